"""IMAGES → DATASET by the real Beam job, stopped in every way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pipeline import preprocess
from pipeline.dataset import manifest
from pipeline.dataset.manifest import ImageContract
from pipeline.options import ShardsOptions
from pipeline.runners import execution
from pipeline.system.errors import RunError, UsageError
from tests.support.files import REPOSITORY, tree
from tests.support.photos import CLASSES, HEIGHT, PER_CLASS, TEST, WIDTH, jpeg, photo
from tests.support.processes import Program, wait_for_shards

CONTRACT = ImageContract(height=HEIGHT, width=WIDTH)
SIZE = (f"--height={HEIGHT}", f"--width={WIDTH}")


def make(images: Path | list[Path], folder: Path, **options: object) -> None:
    """As the command line does, in this process."""
    settings = {"max_reject_fraction": 0.1, "workers": 1, "shards": 2, **options}
    preprocess.run(
        ShardsOptions(
            images=images,
            dataset=folder,
            contract=CONTRACT,
            **settings,
        )
    )


def test_a_finished_dataset_holds_these_files_and_no_others(made_dataset: Path) -> None:
    shards = {
        manifest.shard_name(split, index, 2)
        for split in manifest.SPLITS
        for index in range(2)
    }
    others = {"classes.txt", "dataset.json", "rejects.csv"}
    assert set(os.listdir(made_dataset)) == shards | others
    assert (made_dataset / "classes.txt").read_text() == "blue\ngreen\nred\n"


def test_the_ledger_balances(made_dataset: Path) -> None:
    value = json.loads((made_dataset / "dataset.json").read_text())
    assert value["splits"]["train"]["examples"] == len(CLASSES) * PER_CLASS["train"]
    assert value["splits"]["test"]["examples"] == TEST
    train = value["ledger"]["splits"]["train"]
    assert (train["listed"], train["written"], train["rejected"]) == (25, 24, 1)
    assert train["classes"]["red"] == {"listed": 9, "written": 8, "rejected": 1}
    rejects = pd.read_csv(made_dataset / "rejects.csv", keep_default_na=False)
    assert rejects[["id", "split", "label", "reason"]].to_numpy().tolist() == [
        ["page.jpg", "test", "", "not_an_image"],
        ["red/cut.jpg", "train", "red", "damaged"],
    ]


def test_the_shards_are_as_their_manifest_says(made_dataset: Path) -> None:
    dataset = manifest.load(made_dataset)
    assert manifest.find_damage(dataset) is None
    assert dataset.image == CONTRACT


@pytest.mark.parametrize(
    "workers",
    [
        pytest.param(1, marks=pytest.mark.slow),
        2,
        pytest.param(4, marks=pytest.mark.slow),
    ],
)
def test_worker_processes_and_order_change_no_byte(
    images: Path, made_dataset: Path, tmp_path: Path, program: Program, workers: int
) -> None:
    """Real worker processes, on a copy made in another order."""
    copy = tmp_path / "elsewhere"
    for path in sorted(images.rglob("*.jpg"), reverse=True):
        target = copy / path.relative_to(images)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    folder = tmp_path / "made" / "dataset"
    result = program(
        *(
            "pipeline",
            f"--images={copy}",
            f"--dataset={folder}",
            f"--workers={workers}",
        ),
        *("--shards=2", "--max_reject_fraction=0.1", *SIZE),
    )
    assert result.returncode == 0, result.stderr
    assert tree(folder) == tree(made_dataset)
    assert "42 images listed = 40 written + 2 rejected" in result.stdout
    assert "1 damaged" in result.stdout


def test_class_folders_are_split_by_hash(images: Path, tmp_path: Path) -> None:
    make(images / "validation", tmp_path / "made", validation_fraction=0.4, shards=1)
    dataset = manifest.load(tmp_path / "made")
    counts = {name: split.examples for name, split in dataset.splits.items()}
    assert sum(counts.values()) == len(CLASSES) * PER_CLASS["validation"]
    assert counts["train"] >= len(CLASSES)
    assert dataset.classes == CLASSES


def test_a_second_run_does_nothing(
    images: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in dataset.iterdir()}
    make(images, dataset)
    assert "complete already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in dataset.iterdir()} == before


def test_another_run_is_refused_with_both_values(images: Path, dataset: Path) -> None:
    with pytest.raises(RunError, match=r"source\.seed is 0 there and 5 here"):
        make(images, dataset, seed=5)
    with pytest.raises(RunError, match=r"shards\.test is 2 there and 3 here"):
        make(images, dataset, shards=3)


def test_rejects_of_the_listing_are_refused_before_anything_is_made(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    csv, folder = tmp_path / "list.csv", tmp_path / "made"
    csv.write_text("id,label\nred/00,red\nblue/00,blue\ngone,red\n")
    with pytest.raises(
        RunError,
        match=r"1 of 3 images were rejected by their names alone \(33\.33%\); .* These "
        r"are 1 no_file, such as 'gone' \(IMAGES has no file gone\.jpg or gone\)\. Me",
    ):
        make(images / "train", folder, manifest=csv)
    assert not folder.exists()
    make(images / "train", folder, manifest=csv, max_reject_fraction=0.5)
    make(
        images / "train", folder, manifest=csv
    )  # it is complete: nothing is judged again


def test_overwrite_leaves_no_stale_shard(
    images: Path, dataset: Path, made_dataset: Path
) -> None:
    make(images, dataset, shards=3, overwrite=True)
    assert len(list(dataset.glob("*-of-00003.tfrecord"))) == 9
    make(images, dataset, overwrite=True)
    assert tree(dataset) == tree(made_dataset)


def test_overwrite_of_an_unfinished_run_begins_anew(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "made"
    with pytest.raises(RunError, match="images were rejected"):
        make(images, folder, max_reject_fraction=0.0)
    (folder / "_work" / "done" / "train-00001-of-00002.tfrecord.json").unlink()
    first = folder / "train-00000-of-00002.tfrecord"
    written = first.stat().st_mtime_ns
    make(images, folder, overwrite=True)
    assert first.stat().st_mtime_ns != written
    assert (
        "--overwrite: 5 shards of an unfinished run are removed; without it a run goes "
        "on" in capsys.readouterr().out
    )


@pytest.mark.parametrize("overwrite", [False, True])
def test_mended_files_are_read_again(
    images: Path, tmp_path: Path, overwrite: bool
) -> None:
    root, folder = tmp_path / "images", tmp_path / "made"
    shutil.copytree(images, root)
    with pytest.raises(RunError, match="mend the files and run again: shards with"):
        make(root, folder, max_reject_fraction=0.0)
    whole = (root / "train" / "red" / "00.jpg").read_bytes()
    (root / "train" / "red" / "cut.jpg").write_bytes(whole)
    (root / "test" / "page.jpg").write_bytes(whole)
    make(root, folder, max_reject_fraction=0.0, overwrite=overwrite)
    assert manifest.load(folder).split("train").rejected == 0


def test_a_dataset_inside_the_images_is_refused(images: Path) -> None:
    with pytest.raises(RunError, match="is among the images of"):
        make(images, images / "train" / "made")


def test_where_every_folder_is_a_class_a_dataset_inside_is_refused(
    images: Path,
) -> None:
    with pytest.raises(RunError, match="is among the images of"):
        make(images, images / "made", layout="classes")


def test_a_finished_dataset_that_lost_a_shard_is_not_complete(
    images: Path, dataset: Path
) -> None:
    (dataset / "test-00001-of-00002.tfrecord").unlink()
    with pytest.raises(RunError, match=r"test-00001-of-00002\.tfrecord is missing"):
        make(images, dataset)


def test_too_many_rejections_fail_and_keep_the_shards(
    images: Path, made_dataset: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "made"
    with pytest.raises(RunError, match=r"2 of 42 images were rejected \(4\.76%\)"):
        make(images, folder, max_reject_fraction=0.01)
    assert not (folder / "dataset.json").exists()
    assert "red/cut.jpg" in (folder / "rejects.csv").read_text()
    shards = {path: path.stat().st_mtime_ns for path in folder.glob("*.tfrecord")}
    make(images, folder, max_reject_fraction=0.05)
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
    assert tree(folder) == tree(made_dataset)


def test_a_class_emptied_by_rejections_is_named(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(images, tmp_path / "images"))
    for path in (root / "train" / "green").iterdir():
        path.write_bytes(b"")
    make(root, tmp_path / "made", max_reject_fraction=0.5)
    assert "classes without a training image: green" in capsys.readouterr().out
    assert manifest.load(tmp_path / "made").classes == CLASSES


def test_no_decodable_image(tmp_path: Path) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "images" / "a" / "x.jpg").write_text("no picture")
    with pytest.raises(RunError, match="none of the 1 images could be decoded"):
        make(tmp_path / "images", tmp_path / "made", max_reject_fraction=1.0)
    assert not (tmp_path / "made" / "dataset.json").exists()


def test_an_empty_class_stops_before_any_work(
    images: Path, tmp_path: Path, program: Program
) -> None:
    root = Path(shutil.copytree(images, tmp_path / "images"))
    (root / "train" / "mauve").mkdir()
    folder = tmp_path / "made"
    result = program("pipeline", f"--images={root}", f"--dataset={folder}")
    assert result.returncode == 1
    assert "mauve" in result.stderr
    assert "Traceback" not in result.stderr
    assert not folder.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images=x"], "missing --dataset"),
        (["--images=x", "--dataset=y", "--height=0"], "height"),
        (["--images=x", "--dataset=y", "--resize=fold"], "stretch|crop|pad"),
        (["--images=x", "--dataset=y", "--", "--foo=1"], "--foo"),
        (["--images=x", "--dataset=y", "stray"], "stray"),
        (["--images=x,,z", "--dataset=y"], "--images=x,,z has an empty path"),
        (["samples", "--images=x"], "python -m benchmarks.demo photos"),
        (["bench", "--images=x"], "python -m benchmarks shards"),
    ],
)
def test_wrong_usage(words: list[str], message: str, program: Program) -> None:
    result = program("pipeline", *words)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_beam_options_are_checked() -> None:
    with pytest.raises(UsageError, match="no option --number_of_workers"):
        execution.beam_options(["--number_of_workers=3"], workers=1)
    assert execution.beam_options(["--num_workers=3"], workers=1)


@pytest.mark.parametrize("mode", ["in_memory", "multi_processing"])
def test_there_is_one_mode(mode: str) -> None:
    with pytest.raises(UsageError, match=f"{mode}: .* it is multi_threading"):
        execution.beam_options([f"--direct_running_mode={mode}"], workers=1)


# ------------------------------------------------------- archives, a CSV, several roots


def pack_splits(images: Path, root: Path) -> list[str]:
    """An archive for train, one per class of validation, test as a folder."""
    (root / "validation").mkdir(parents=True)
    for name in CLASSES:
        with tarfile.open(root / "validation" / f"{name}.tar", "w") as archive:
            for path in sorted((images / "validation" / name).iterdir(), reverse=True):
                archive.add(path, path.name)
    with tarfile.open(root / "train.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(images / "train", "train")
    shutil.copytree(images / "test", root / "test")
    return [str(root)]


def pack_all(images: Path, root: Path) -> list[str]:
    root.mkdir()
    with tarfile.open(root / "all.tar", "w") as archive:
        archive.add(images, "./photos")
    return [str(root / "all.tar")]


def two_roots(images: Path, root: Path) -> list[str]:
    """One of them with a comma in its name; every other photo is in it."""
    one, two = root / "one", root / "two, with a comma"
    for number, path in enumerate(sorted(images.rglob("*.jpg"))):
        target = (two if number % 2 else one) / path.relative_to(images)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return [str(two), str(one)]


@pytest.mark.parametrize("arrange", [pack_all, two_roots])
def test_how_the_photos_lie_changes_no_byte(
    images: Path,
    made_dataset: Path,
    tmp_path: Path,
    arrange: Callable[[Path, Path], list[str]],
) -> None:
    """Of the shards, and of dataset.json."""
    roots = [Path(root) for root in arrange(images, tmp_path / "photos")]
    make(roots, tmp_path / "made")
    assert tree(tmp_path / "made") == tree(made_dataset)


def test_worker_processes_read_archives(
    images: Path, made_dataset: Path, tmp_path: Path, program: Program
) -> None:
    (root,) = pack_splits(images, tmp_path / "photos")
    folder = tmp_path / "made" / "dataset"
    result = program(
        *("pipeline", f"--images={root}", f"--dataset={folder}", "--workers=2"),
        *("--shards=2", "--max_reject_fraction=0.1", *SIZE),
    )
    assert result.returncode == 0, result.stderr
    assert tree(folder) == tree(made_dataset)


def test_a_csv_says_what_class_folders_say(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same shards, from photos in a folder and in an archive; then the ledger."""
    photos, csv = images / "validation", tmp_path / "list.csv"
    ids = [str(path.relative_to(photos)) for path in photos.rglob("*.jpg")]
    rows = [f"{name},{name.partition('/')[0]}\n" for name in reversed(ids)]
    csv.write_text(f"id,label\n{''.join(rows)}")
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        archive.add(photos, ".")
    options = {"validation_fraction": 0.4, "shards": 1}
    make(photos, tmp_path / "folders", **options)
    make(photos, tmp_path / "csv", manifest=csv, **options)
    make(tmp_path / "photos.tar", tmp_path / "tar", manifest=csv, **options)
    made = tree(tmp_path / "folders")
    assert tree(tmp_path / "csv") == tree(tmp_path / "tar")
    for name in made.keys() - {"dataset.json"}:
        assert tree(tmp_path / "csv")[name] == made[name]
    source = manifest.read(tmp_path / "csv")["source"]
    assert (source["layout"], source["validation_fraction"]) == ("manifest", 0.4)

    csv.write_text(f"id,label\ngone,red\n{''.join(rows[:-1])}")
    capsys.readouterr()
    make(photos, tmp_path / "again", manifest=csv, **options, max_reject_fraction=0.2)
    said = capsys.readouterr().out
    assert "3 classes: blue, green, red" in said
    assert f"1 not named by the CSV, such as {photos / ids[0]}" in said
    assert "1 rejected: 1 no_file" in said
    account = manifest.read(tmp_path / "again")["ledger"]
    assert account["ignored"] == 1
    assert account["splits"]["train"]["reasons"] == {"no_file": 1}
    rejects = (tmp_path / "again" / "rejects.csv").read_text()
    assert "gone,train,red,no_file,IMAGES has no file gone.jpg or gone\n" in rejects


def test_a_csv_with_splits(images: Path, tmp_path: Path, program: Program) -> None:
    """A DATASET that `verify` finds in order; test rows with and without label."""
    photos, csv = images / "train", tmp_path / "list.csv"
    rows = [f"{name}/{n:02d},{name},train" for name in CLASSES for n in range(6)]
    rows += [f"{name}/06,{name},validation" for name in CLASSES]
    rows += ["red/07,red,test", "blue/07,,test", "red/cut,,test", "none,,test"]
    csv.write_text("\n".join(["id,label,split", *rows]))
    folder = tmp_path / "made"
    words = (f"--images={photos}", f"--manifest={csv}", f"--dataset={folder}")
    options = ("--max_reject_fraction=0.2", "--shards=1", *SIZE)
    result = program("pipeline", *words, *options, "--workers=2")
    assert result.returncode == 0, result.stderr
    result = program("pipeline", "verify", f"--dataset={folder}")
    assert "25 images listed = 23 written + 2 rejected" in result.stdout, result.stderr
    classes = manifest.read(folder)["ledger"]["splits"]["test"]["classes"]
    assert {name: counts["written"] for name, counts in classes.items()} == {
        "": 1,
        "red": 1,
    }


def test_a_dataset_among_the_photos_of_any_root_is_refused(
    images: Path, tmp_path: Path
) -> None:
    other, csv = tmp_path / "other", tmp_path / "list.csv"
    shutil.copytree(images / "validation" / "red", other / "mauve")
    csv.write_text("id,label\nmauve/00,red\n")
    for options in ({}, {"manifest": csv}):
        with pytest.raises(RunError, match=f"is among the images of {other}"):
            make([images / "validation", other], other / "made", **options)


def test_plan_takes_the_same_flags(
    images: Path, tmp_path: Path, program: Program
) -> None:
    csv = tmp_path / "list.csv"
    csv.write_text("id,label\nred/00,red\nblue/01,blue\nnone,red\n")
    roots = f"{images / 'train'},{images / 'test'}"
    result = program(
        *("pipeline", "plan", f"--images={roots}", f"--manifest={csv}", *SIZE),
        *("--workers=1", "--validation_fraction=0", "--max_reject_fraction=0.5"),
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(
        f"IMAGES {images / 'train'}, {images / 'test'}: 3 images (3 in train), "
        "2 classes: blue, red\n  ignored: 31 files: 31 not na"
    )
    assert " for 3 images and write " in result.stdout
    assert "1 already (1 no_file)" in result.stdout


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Enough of large photos that a run can be caught at work."""
    folder = tmp_path / "many" / "a"
    folder.mkdir(parents=True)
    data = jpeg(photo(0, 0, 1200, 1600))
    for index in range(400):
        (folder / f"{index}.jpg").write_bytes(data)
    return folder.parent


def start(many: Path, folder: Path) -> subprocess.Popen[str]:
    """Starts the job as a process group of its own, as a shell does."""
    words = [
        "pipeline",
        f"--images={many}",
        f"--dataset={folder}",
        "--shards=40",
        "--validation_fraction=0",
        *SIZE,
    ]
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGKILL, -9, id="kill", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, id="^C"),
    ],
)
def test_a_stopped_run_goes_on(
    many: Path, tmp_path: Path, number: int, code: int
) -> None:
    folder, undisturbed = tmp_path / "made", tmp_path / "undisturbed"
    process = start(many, folder)
    wait_for_shards(folder, process)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in errors
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*.tfrecord")}
    assert 0 < len(kept) < 40
    again = start(many, folder)
    _, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    noted = {path: path.stat().st_mtime_ns for path in kept}
    assert sum(noted[path] == kept[path] for path in kept) >= 3
    preprocess.run(
        ShardsOptions(
            images=many,
            dataset=undisturbed,
            contract=CONTRACT,
            shards=40,
            validation_fraction=0,
            workers=1,
        )
    )
    assert tree(folder) == tree(undisturbed)
