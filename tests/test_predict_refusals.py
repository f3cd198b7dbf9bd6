"""What predictions are refused for, and what is left then."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, HEIGHT, WIDTH, Program, jpeg, photo, tree
from test_predict import run_fixture  # noqa: F401
from test_predict_photos import model_fixture  # noqa: F401

from pipeline import files, manifest
from pipeline.console import RunError, UsageError


def change_network(folder: Path, network) -> None:
    """Another network in MODEL, which is a finished one."""
    network.save(folder / "model.keras")
    value = json.loads((folder / "model.json").read_text())
    value["sha256"] = files.sha256(folder / "model.keras")
    (folder / "model.json").write_text(json.dumps(value))


def change_classes(folder: Path, classes: tuple[str, ...]) -> None:
    """Other names of the classes in MODEL."""
    (folder / "classes.txt").write_text(manifest.classes_text(classes))
    value = json.loads((folder / "model.json").read_text())
    value["classes"] = manifest.classes_entry(classes)
    (folder / "model.json").write_text(json.dumps(value))


@pytest.fixture
def own(model: Path, tmp_path: Path) -> Path:
    """A MODEL of one's own, to change or to break."""
    return Path(shutil.copytree(model, tmp_path / "own"))


def test_a_broken_model_is_said(
    run, own: Path, made_dataset: Path, tmp_path: Path
) -> None:
    """Weights that are no numbers: the ids are named, nothing is kept."""
    import keras

    network = keras.models.load_model(own / "model.keras")
    network.set_weights([np.full_like(one, np.nan) for one in network.get_weights()])
    change_network(own, network)
    folder = tmp_path / "predictions"
    with pytest.raises(
        RunError,
        match=r"not finite for 2 of 2 images: photo \d\.jpg, photo \d\.jpg\. ",
    ):
        run(made_dataset, folder, model=own, batch_size=2)
    assert set(tree(folder)) == {"_work/run.json"}


def test_one_bad_number_is_enough(
    run, own: Path, made_dataset: Path, tmp_path: Path
) -> None:
    """Of the brightest image alone; a shard before it is kept."""
    import keras

    from trainer import dataset as data

    dataset = manifest.load(made_dataset)
    shards = dataset.split("test").shards
    batches = data.for_inference(dataset, shards, batch_size=1).as_numpy_iterator()
    means = {ids[0].decode(): images.mean() for ids, images, _ in batches}
    *_, second, first = sorted(means, key=means.__getitem__)
    threshold = float(means[second] + means[first]) / 2
    pixels = keras.Input((HEIGHT, WIDTH, 3))
    mean = keras.layers.GlobalAveragePooling2D()(pixels)
    mean = keras.ops.mean(mean, axis=1, keepdims=True)
    outputs = keras.layers.Dense(3, "softmax")(keras.ops.sqrt(threshold - mean))
    change_network(own, keras.Model(pixels, outputs))
    with pytest.raises(RunError, match=f"not finite for 1 of 1 images: {first}. MODEL"):
        run(made_dataset, tmp_path / "predictions", model=own, batch_size=1)
    before = list(means).index(first) >= shards[0].examples
    kept = {path.name for path in (tmp_path / "predictions").glob("*.csv")}
    assert kept <= ({"predictions-00000-of-00002.csv"} if before else set())


def test_a_class_twice_is_refused(
    run, own: Path, made_dataset: Path, tmp_path: Path
) -> None:
    change_classes(own, ("red", "green", "red"))
    with pytest.raises(
        RunError, match=r"class 'red' more than once, in the lines 1, 3"
    ):
        run(made_dataset, tmp_path / "predictions", model=own)
    assert not (tmp_path / "predictions").exists()


def test_a_class_named_as_the_first_column(
    run, own: Path, images: Path, tmp_path: Path
) -> None:
    change_classes(own, ("at", "id", "us"))
    folder = tmp_path / "predictions"
    with pytest.raises(RunError, match="a class 'id', which is the name of the first"):
        run(None, folder, model=own, images=images)
    from predictor.formats import Format

    format = Format(kind="top_k", top_k=3)
    frame = run(None, folder, model=own, images=images, format=format)
    assert set(frame.class_1) <= {"at", "id", "us"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "train"}, "another run: split is test there and train here"),
        (
            {"format": {"kind": "top_k", "top_k": 2}},
            "format is probabilities there and",
        ),
        (
            {"format": {"compression": "zstd"}},
            "compression is none there and zstd here",
        ),
        ({"format": {"parquet": True}}, "parquet is False there and True here"),
    ],
)
def test_predictions_of_something_else_are_refused(
    run, made_dataset: Path, tmp_path: Path, change: dict, message: str
) -> None:
    """As another model is, above."""
    folder = tmp_path / "predictions"
    run(made_dataset, folder)
    before = tree(folder)
    from predictor.formats import Format

    if "format" in change:
        change = {"format": Format(**change["format"])}
    with pytest.raises(RunError, match=message):
        run(made_dataset, folder, **change)
    assert tree(folder) == before


def test_predictions_of_an_earlier_release(
    run, made_dataset: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "predictions"
    folder.mkdir()
    (folder / "predictions.json").write_text('{"version": 1, "rows": 7, "files": []}')
    with pytest.raises(
        RunError, match=r"another release: version is 1 there and 2 here\. Name another"
    ):
        run(made_dataset, folder)


def test_a_split_without_rows(run, images: Path, tmp_path: Path) -> None:
    """All of its images were rejected."""
    dataset = make_dataset(images, tmp_path, good=0)
    with pytest.raises(
        RunError, match=r"split test of .* has no examples, and 4 rejec"
    ):
        run(dataset, tmp_path / "predictions")
    assert not (tmp_path / "predictions").exists()


@pytest.mark.parametrize("batch_size", [1, 2, 64])
@pytest.mark.parametrize("writers", [1, 2])
def test_empty_shards(
    run, images: Path, tmp_path: Path, batch_size: int, writers: int
) -> None:
    """Two good photos in six shards: some have none."""
    dataset = make_dataset(images, tmp_path, good=2)
    sizes = [shard.examples for shard in manifest.load(dataset).split("test").shards]
    assert 0 in sizes
    folder = tmp_path / "predictions"
    options = {"batch_size": batch_size, "writers": writers}
    frame = run(dataset, folder, **options)
    assert sorted(frame.id) == ["good 0.jpg", "good 1.jpg"]
    value = json.loads((folder / "predictions.json").read_text())
    assert [entry["rows"] for entry in value["files"]] == sizes


def make_dataset(images: Path, parent: Path, *, good: int) -> Path:
    """Like `made_dataset`, but with another test split, in six shards."""
    from pipeline import preprocess
    from pipeline.manifest import ImageContract

    root = Path(shutil.copytree(images, parent / "images"))
    shutil.rmtree(root / "test")
    (root / "test").mkdir()
    for number in range(4):
        (root / "test" / f"bad {number}.jpg").write_bytes(b"no image")
    for number in range(good):
        content = jpeg(photo(number, number))
        (root / "test" / f"good {number}.jpg").write_bytes(content)
    preprocess.run(
        root,
        parent / "dataset",
        contract=ImageContract(height=HEIGHT, width=WIDTH),
        shards=6,
        max_reject_fraction=0.9,
        workers=1,
        beam_arguments=["--direct_running_mode=in_memory"],
    )
    return parent / "dataset"


def test_what_no_device_can_hold(
    run, own: Path, made_dataset: Path, tmp_path: Path
) -> None:
    """A layer of terabytes, which the machine refuses at once."""
    import keras

    pixels = keras.Input((HEIGHT, WIDTH, 3))
    large = keras.layers.UpSampling2D(10_000_000)(pixels)
    x = keras.layers.GlobalAveragePooling2D()(large)
    change_network(own, keras.Model(pixels, keras.layers.Softmax()(x)))
    with pytest.raises(RunError, match=r"a batch of 7 .* a smaller --batch_size"):
        run(made_dataset, tmp_path / "predictions", model=own, batch_size=7)


def test_16_bits_give_float32_probabilities(
    run, own: Path, made_dataset: Path, tmp_path: Path
) -> None:
    import keras

    pixels = keras.Input((HEIGHT, WIDTH, 3))
    x = keras.layers.Flatten(dtype="mixed_bfloat16")(pixels / 255)
    x = keras.layers.Dense(8, "relu", dtype="mixed_bfloat16")(x)
    outputs = keras.layers.Dense(3, "softmax", dtype="float32")(x)
    change_network(own, keras.Model(pixels, outputs))
    frame = run(made_dataset, tmp_path / "predictions", model=own)
    sums = frame[list(CLASSES)].astype(np.float32).sum(axis="columns")
    np.testing.assert_allclose(sums, 1, atol=1e-6)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 KB, which `remount` can enlarge."""
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_survived(run, small_disk: Path, tmp_path: Path) -> None:
    """It fills while the run goes on: what was committed is kept."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(600):
        (photos / f"{number:03d} {'x' * 150}.jpg").write_bytes(jpeg(photo(0, number)))
    undisturbed, folder = tmp_path / "undisturbed", small_disk / "predictions"
    run(None, undisturbed, images=photos)
    # The ids are longer than the estimate knows.
    (small_disk / "filler").write_bytes(bytes(90_000))
    with pytest.raises(OSError, match="No space left on device"):
        run(None, folder, images=photos)
    left = {path.name for path in folder.iterdir()} - {"_work"}
    assert left < {path.name for path in undisturbed.glob("*.csv")}
    assert not list(folder.rglob(".scratch-*"))
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    run(None, folder, images=photos)
    assert tree(folder) == tree(undisturbed)


def test_a_disk_that_is_too_small_is_refused_before(
    run, own: Path, images: Path, small_disk: Path
) -> None:
    """And then the folder is free for a format that takes less."""
    import keras

    from predictor.formats import Format

    pixels = keras.Input((HEIGHT, WIDTH, 3))
    x = keras.layers.GlobalAveragePooling2D()(pixels / 255)
    outputs = keras.layers.Dense(20_000, "softmax")(x)
    change_network(own, keras.Model(pixels, outputs))
    change_classes(own, tuple(f"class {n}" for n in range(20_000)))
    folder = small_disk / "predictions"
    with pytest.raises(
        RunError, match=r"KB free, and 8 rows of 20,000 classes take .* --format=top_k"
    ):
        run(None, folder, model=own, images=images)
    assert not folder.exists()
    run(None, folder, model=own, images=images, format=Format(kind="top_k"))


def test_more_than_all_classes(run, made_dataset: Path, tmp_path: Path) -> None:
    from predictor.formats import Format

    format = Format(kind="top_k", top_k=4)
    with pytest.raises(UsageError, match="--top_k=4, and MODEL has 3 classes"):
        run(made_dataset, tmp_path / "predictions", format=format)
    assert not (tmp_path / "predictions").exists()


def test_a_sample_that_is_not_there(run, made_dataset: Path, tmp_path: Path) -> None:
    options = {"sample_submission": tmp_path / "sample.csv"}
    with pytest.raises(RunError, match=r"sample\.csv cannot be read"):
        run(made_dataset, tmp_path / "predictions", **options)
    assert not (tmp_path / "predictions").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images=x", "--dataset=y"], "give one of --dataset and --images"),
        ([], "give one of --dataset and --images"),
        (["--dataset=x", "--sample_submission=x"], "goes with --format=submission"),
        (["--dataset=x", "--format=top_k", "--top_k=0"], "--top_k"),
        (["--dataset=x", "--format=xlsx"], "--format"),
    ],
)
def test_wrong_usage(words: list[str], message: str, program: Program) -> None:
    result = program("predictor", "--model=x", "--predictions=z", *words)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
