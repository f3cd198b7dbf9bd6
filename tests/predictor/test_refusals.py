"""What predictions are refused for, and what is left then."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.dataset import manifest
from pipeline.storage import atomic
from pipeline.system.errors import RunError, UsageError
from predictor.format.file_format import Format
from tests.support.files import tree
from tests.support.photos import CLASSES, HEIGHT, WIDTH, jpeg, photo
from tests.support.processes import Program


def change_network(folder: Path, network) -> None:
    """Another network in MODEL, which is a finished one."""
    network.save(folder / "model.keras")
    value = json.loads((folder / "model.json").read_text())
    value["sha256"] = atomic.sha256(folder / "model.keras")
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
    """Of the brightest image alone; its shard is not kept."""
    import keras

    from trainer.data import input_pipeline as data

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
    shard = int(list(means).index(first) >= shards[0].examples)
    folder = tmp_path / "predictions"
    assert not (folder / f"predictions-0000{shard}-of-00002.csv").exists()
    assert not (folder / "predictions.json").exists()


def test_a_disk_that_is_too_small_begins_nothing(
    model: Path,
    made_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here and on Beam: another format may take the folder."""
    from pipeline.system import resources
    from predictor.format.file_format import Format
    from predictor.options import PredictionRequest
    from predictor.request import StartedRun

    def begun(format: Format) -> StartedRun:
        order = PredictionRequest(
            model=model, folder=tmp_path / "p", format=format, dataset=made_dataset
        )
        return StartedRun(order)

    run = begun(Format())
    monkeypatch.setattr(resources, "free_disk", lambda folder: 10)
    with pytest.raises(RunError, match=r"p has 0\.01 KB free"):
        run.announce_size(run.parts.missing(), writers=1)
    assert not begun(Format(kind="top_k", top_k=1)).complete


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
    options: dict = {"model": own, "images": images, "max_reject_fraction": 0.5}
    with pytest.raises(RunError, match="a class 'id', which is the name of the first"):
        run(None, folder, **options)

    format = Format(kind="top_k", top_k=3)
    frame = run(None, folder, **options, format=format)
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
    from pipeline.dataset.manifest import ImageContract
    from pipeline.options import ShardsOptions

    root = Path(shutil.copytree(images, parent / "images"))
    shutil.rmtree(root / "test")
    (root / "test").mkdir()
    for number in range(4):
        (root / "test" / f"bad {number}.jpg").write_bytes(b"no image")
    for number in range(good):
        content = jpeg(photo(number, number))
        (root / "test" / f"good {number}.jpg").write_bytes(content)
    preprocess.run(
        ShardsOptions(
            images=root,
            dataset=parent / "dataset",
            contract=ImageContract(height=HEIGHT, width=WIDTH),
            shards=6,
            max_reject_fraction=0.9,
            workers=1,
        )
    )
    return parent / "dataset"


@pytest.mark.integration
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

    pixels = keras.Input((HEIGHT, WIDTH, 3))
    x = keras.layers.GlobalAveragePooling2D()(pixels / 255)
    outputs = keras.layers.Dense(20_000, "softmax")(x)
    change_network(own, keras.Model(pixels, outputs))
    change_classes(own, tuple(f"class {n}" for n in range(20_000)))
    folder = small_disk / "predictions"
    options: dict = {"model": own, "images": images, "max_reject_fraction": 0.5}
    with pytest.raises(
        RunError, match=r"KB free, and 8 rows of 20,000 classes take .* --format=top_k"
    ):
        run(None, folder, **options)
    assert not folder.exists()
    run(None, folder, **options, format=Format(kind="top_k"))


def test_more_than_all_classes(run, made_dataset: Path, tmp_path: Path) -> None:

    format = Format(kind="top_k", top_k=4)
    with pytest.raises(UsageError, match="--top_k=4, and MODEL has 3 classes"):
        run(made_dataset, tmp_path / "predictions", format=format)
    assert not (tmp_path / "predictions").exists()


def test_a_sample_that_is_not_there(run, made_dataset: Path, tmp_path: Path) -> None:
    options = {
        "format": Format(kind="submission"),
        "sample_submission": tmp_path / "sample.csv",
    }
    with pytest.raises(RunError, match=r"sample\.csv is no file"):
        run(made_dataset, tmp_path / "predictions", **options)
    assert not (tmp_path / "predictions").exists()


SPAWNED_WITHOUT_DECODER = """
import sys
if "child_process" in " ".join(sys.orig_argv):
    sys.modules["simplejpeg"] = None
"""


def test_decode_processes_that_cannot_live(
    model: Path, images: Path, tmp_path: Path, program: Program
) -> None:
    """Nothing is committed; once the library is mended, every photo is predicted."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sitecustomize.py").write_text(SPAWNED_WITHOUT_DECODER)
    folder = tmp_path / "predictions"
    words = [f"--model={model}", f"--images={images / 'test'}", "--cpu"]
    words.append(f"--predictions={folder}")
    broken = {**os.environ, "PYTHONPATH": str(tmp_path / "broken")}
    result = program("predictor", *words, env=broken)
    assert result.returncode == 1
    assert "error: processes that decode images were lost 3 times" in result.stderr
    assert "simplejpeg" in result.stderr  # by the processes themselves
    assert set(tree(folder)) == {"_work/run.json"}
    result = program("predictor", *words, "--max_reject_fraction=0.2")
    assert result.returncode == 0, result.stderr
    assert "8 images = 7 predicted + 1 rejected (1 not_an_image)" in result.stdout


@pytest.fixture
def without_tensorflow(tmp_path: Path) -> dict[str, str]:
    """An environment in which to import TensorFlow is a fault."""
    folder = tmp_path / "without"
    folder.mkdir()
    for name in ("tensorflow", "keras"):
        (folder / f"{name}.py").write_text(f"raise SystemExit('{name} is imported')")
    return {**os.environ, "PYTHONPATH": str(folder)}


def write_ids(path: Path, *ids: str) -> Path:
    path.write_text("".join(f"{row}\n" for row in ("id,landmarks", *ids)))
    return path


def same_stems(photos: Path) -> list[str]:
    (photos / "more").mkdir()
    shutil.copy(photos / "photo 1.jpg", photos / "more" / "photo 1.JPEG")
    return ["--format=submission"]


def strange_sample(photos: Path) -> list[str]:
    sample = write_ids(photos.parent / "sample.csv", "x,", "y,")
    return ["--format=submission", f"--sample_submission={sample}"]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (
            same_stems,
            " would both be row 'photo 1' of the submission, which has one for each",
        ),
        (
            strange_sample,
            "error: none of the 2 ids of --sample_submission, such as 'x', is one of",
        ),
        (lambda photos: [], "error: MODEL has a class 'id'"),
    ],
)
@pytest.mark.parametrize("source", ["images", "dataset"])
def test_what_the_last_step_needs_is_refused_first(
    own: Path,
    images: Path,
    tmp_path: Path,
    program: Program,
    without_tensorflow: dict[str, str],
    prepare: Callable[[Path], list[str]],
    message: str,
    source: str,
) -> None:
    """Before TensorFlow is imported, and with nothing begun."""
    root = Path(shutil.copytree(images, tmp_path / "images"))
    words = prepare(root / "test")
    if not words:
        change_classes(own, ("at", "id", "us"))
    if source == "dataset":
        made_of(root / "test", tmp_path / "dataset")
        words.append(f"--dataset={tmp_path / 'dataset'}")
    else:
        words.append(f"--images={root / 'test'}")
    folder = tmp_path / "predictions"
    words += [f"--model={own}", f"--predictions={folder}"]
    result = program("predictor", *words, env=without_tensorflow)
    assert result.returncode == 1, result.stderr
    assert message in result.stderr
    assert not folder.exists()


def made_of(photos: Path, dataset: Path) -> None:
    """DATASET with a test split alone, so that any model may predict it."""
    from pipeline import preprocess
    from pipeline.dataset.manifest import ImageContract
    from pipeline.options import ShardsOptions

    root = dataset.parent / "test only"
    shutil.copytree(photos, root / "test")
    preprocess.run(
        ShardsOptions(
            images=root,
            dataset=dataset,
            contract=ImageContract(height=HEIGHT, width=WIDTH),
            max_reject_fraction=0.5,
            workers=1,
        )
    )


def test_ids_with_a_dot_and_no_extension(run, tmp_path: Path) -> None:
    """A CSV names 22.05 for the file 22.05.jpg, and so does the sample."""

    ids = write_ids(dotted(tmp_path) / "bare.csv", "22.05,", "31.07,", "deep.7.jpg,")
    options = {"images": ids, "format": Format(kind="submission")}
    free = landmarks(run(None, tmp_path / "free", **options))
    assert list(free) == ["22.05", "31.07", "deep.7"]
    sample = write_ids(tmp_path / "sample.csv", "31.07,", "22.05,", "deep.7.jpg,")
    held = landmarks(run(None, tmp_path / "held", **options, sample_submission=sample))
    assert held == {
        **{"31.07": free["31.07"], "22.05": free["22.05"]},
        **{"deep.7.jpg": free["deep.7"]},
    }
    assert all(isinstance(text, str) for text in held.values())


def test_ids_with_a_dot_in_a_dataset(run, own: Path, tmp_path: Path) -> None:
    """And `verify` holds the rows to the records by the same rule."""
    from pipeline import preprocess
    from pipeline.dataset.manifest import ImageContract
    from pipeline.options import ShardsOptions
    from predictor import verify

    csv = tmp_path / "list.csv"
    csv.write_text("id,label,split\n22.05,,test\n31.07,,test\ndeep.7.jpg,,test\n")
    preprocess.run(
        ShardsOptions(
            images=dotted(tmp_path),
            dataset=tmp_path / "dataset",
            manifest=csv,
            contract=ImageContract(height=HEIGHT, width=WIDTH),
            workers=1,
        )
    )
    sample = write_ids(tmp_path / "sample.csv", "22,", "deep.7.jpg,", "22.05,")
    for name, given in (("free", None), ("held", sample)):
        options = {"format": Format(kind="submission"), "sample_submission": given}
        run(tmp_path / "dataset", tmp_path / name, model=own, **options)
        verify.run(tmp_path / name, dataset=tmp_path / "dataset")


def dotted(parent: Path) -> Path:
    """Photos whose names have a dot before that of the extension."""
    photos = parent / "photos"
    photos.mkdir()
    for number, name in enumerate(("22.05", "31.07", "deep.7")):
        (photos / f"{name}.jpg").write_bytes(jpeg(photo(number, number)))
    return photos


def landmarks(frame: pd.DataFrame) -> dict[str, str]:
    return dict(zip(frame.id.astype(str), frame.landmarks, strict=True))


def test_the_right_sample_after_a_wrong_one(
    run, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was predicted for one sample serves another; a finished one does not."""

    folder = tmp_path / "predictions"
    first = write_ids(tmp_path / "first.csv", "photo 1,", "photo 9,")
    second = write_ids(tmp_path / "second.csv", "photo 2,", "photo 1,")
    options: dict = {"images": images / "test"}
    with pytest.raises(RunError, match="1 of 8 images were rejected"):
        run(
            None,
            folder,
            format=Format(kind="submission", compression="gzip"),
            sample_submission=first,
            **options,
        )
    capsys.readouterr()
    options |= {"max_reject_fraction": 0.5, "format": Format(kind="submission")}
    frame = run(None, folder, sample_submission=second, **options)
    assert list(frame.id) == ["photo 2", "photo 1"]
    assert frame.landmarks.notna().all()
    said = capsys.readouterr().out
    assert "2 of 2 submission rows have a prediction; 5 images have no row" in said
    assert "replicas" not in said  # nothing was predicted again
    value = json.loads((folder / "predictions.json").read_text())
    assert value["sample_submission"] == atomic.sha256(second)
    with pytest.raises(RunError, match="another run: sample_submission is"):
        run(None, folder, sample_submission=first, **options)


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
