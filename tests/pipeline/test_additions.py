"""DATASETs that grow: `make shards` with --append, and `make retry`."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline import additions, estimate, preprocess, verify
from pipeline.dataset import manifest, record
from pipeline.dataset.manifest import ImageContract
from pipeline.options import PlanOptions, RetryOptions, ShardsOptions
from pipeline.shards import finalize
from pipeline.storage import folder_lock, side_files
from pipeline.system import command_line
from pipeline.system.errors import RunError
from tests.support.files import tree
from tests.support.kill_steps import run_until
from tests.support.photos import HEIGHT, WIDTH, jpeg, photo

FINISHED = Path(__file__).parents[1] / "testdata/release-0.1/finished/dataset"


def options(images: Path, folder: Path, **more: Any) -> ShardsOptions:
    settings: dict[str, Any] = {
        "contract": ImageContract(height=HEIGHT, width=WIDTH),
        "max_reject_fraction": 0.2,
        "workers": 1,
        "shards": 2,
    }
    return ShardsOptions(images=images, dataset=folder, **{**settings, **more})


def make(images: Path, folder: Path, **more: Any) -> None:
    preprocess.run(options(images, folder, **more))


def append(images: Path, folder: Path, **more: Any) -> None:
    additions.append(options(images, folder, append=True, **more))


def retry(folder: Path, **more: Any) -> None:
    additions.retry(RetryOptions(dataset=folder, **{"workers": 1, **more}))


def content(folder: Path) -> list[tuple[str, str, bytes, str]]:
    """(split, id, JPEG, class text) of every record, sorted."""
    dataset = manifest.load(folder)
    return sorted(
        (split, stored.record.id, stored.record.encoded, stored.record.text)
        for split in dataset.splits
        for path in dataset.paths(split)
        for stored in record.read(path)
    )


def counts(folder: Path) -> Any:
    value = json.loads((folder / "dataset.json").read_text())
    return value["ledger"]["splits"], value["originals"]


def rows(folder: Path) -> set[tuple[str, ...]]:
    with (folder / "rejects.csv").open(newline="") as file:
        return {tuple(row) for row in csv.reader(file)}


def add(path: Path, channel: int = 0, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(photo(channel, 5000 + seed)))


@pytest.fixture
def root(images: Path, tmp_path: Path) -> Path:
    """Split folders; two of the photos are broken."""
    return Path(shutil.copytree(images, tmp_path / "images"))


@pytest.fixture
def base(root: Path, dataset: Path) -> Path:
    """Its DATASET."""
    side_files.write_source(dataset, {"images": [str(root)], "manifest": None})
    return dataset


def grow(root: Path) -> None:
    """Photos for each split, a new class before and one behind the others."""
    for index in range(5):
        add(root / "train/red" / f"more {index}.jpg", 0, index)
        add(root / "train/aqua" / f"{index}.jpg", 1, 10 + index)
        add(root / "train/zinc" / f"{index}.jpg", 2, 20 + index)
        add(root / "test" / f"more {index}.jpg", 0, 30 + index)
    add(root / "validation/aqua/0.jpg", 1, 40)
    (root / "train/zinc/bad.jpg").write_bytes(b"no photo")


# ------------------------------------------------------------------------ append


def test_append_is_what_is_made_at_once(
    root: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(base)
    grow(root)
    append(root, base)
    make(root, tmp_path / "at once")
    assert content(base) == content(tmp_path / "at once")
    assert rows(base) == rows(tmp_path / "at once")
    assert counts(base) == counts(tmp_path / "at once")
    # Labels and shards of what was there do not move.
    assert (base / "classes.txt").read_text().split() == [
        *("blue", "green", "red"),
        *("aqua", "zinc"),
    ]
    after = tree(base)
    for name in before.keys() - {"classes.txt", "rejects.csv", "dataset.json"}:
        assert after[name] == before[name]
    value = json.loads((base / "dataset.json").read_text())
    assert value["version"] == 2
    assert "train-g01-00001-of-00002.tfrecord" in after
    said = capsys.readouterr().out
    assert "22 of 64 images are not in DATASET" in said
    assert "new: 2 classes: aqua, zinc" in said
    assert "2 images are in rejects.csv: `make retry` tries them again" in said
    verify.run(base, workers=1)


def test_a_second_append_and_one_of_nothing(
    root: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(root / "train/red/more.jpg")
    append(root, base)
    grow(root)
    append(root, base)
    assert (base / "train-g02-00000-of-00002.tfrecord").exists()
    make(root, tmp_path / "at once")
    assert content(base) == content(tmp_path / "at once")
    assert counts(base) == counts(tmp_path / "at once")
    before = tree(base)
    append(root, base)
    assert tree(base) == before
    assert "has all images of IMAGES; nothing to do" in capsys.readouterr().out


def class_folders(root: Path, photos: int) -> None:
    for label, name in enumerate(("blue", "red")):
        for index in range(photos):
            add(root / name / f"{index}.jpg", label, 100 * label + index)


def test_a_split_that_was_decided_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of four photos none validates; of nine the one with the smallest key does."""
    root, folder = tmp_path / "images", tmp_path / "dataset"
    class_folders(root, 4)
    make(root, folder, validation_fraction=0.001)
    class_folders(root, 9)
    append(root, folder, validation_fraction=0.001)
    make(root, tmp_path / "at once", validation_fraction=0.001)
    # Where it was decided later, it is as at once.
    grown, at_once = content(folder), content(tmp_path / "at once")
    assert [row[1:] for row in sorted(grown, key=lambda row: row[1])] == [
        row[1:] for row in sorted(at_once, key=lambda row: row[1])
    ]
    old = {f"{name}/{index}.jpg" for name in ("blue", "red") for index in range(4)}
    moved = {row[1] for row in {*grown} - {*at_once}}
    assert moved <= old
    said = capsys.readouterr().out
    assert bool(moved) == ("would lie in another split if all were made at" in said)
    verify.run(folder, workers=1)


def test_a_photo_that_moved_to_another_split_is_not_taken_twice(
    root: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(base)
    (root / "validation/red/00.jpg").rename(root / "train/red/moved.jpg")
    (root / "validation/red/01.jpg").rename(root / "validation/red/00.jpg")
    add(root / "train/red/moved.jpg", 0, 1)
    (root / "train/red/moved.jpg").unlink()
    (root / "validation/red/02.jpg").rename(root / "train/red/02.jpg")
    append(root, base)
    assert tree(base) == before
    assert "2 images are not in IMAGES any more, and stay" in capsys.readouterr().out


def test_changed_photos_are_named_and_left(
    root: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(base)
    add(root / "train/red/00.jpg", 2, 77)
    add(root / "train/red/more.jpg", 0, 78)
    append(root, base)
    after = content(base)
    assert len(after) == len(before) + 1
    assert {*before} <= {*after}
    assert "1 images have changed since, and stay as they are: train/red/00.jpg" in (
        capsys.readouterr().out
    )


def test_new_photos_alone(root: Path, base: Path, tmp_path: Path) -> None:
    """The old ones may have gone, with all but one of each split."""
    for path in (root / "train").glob("*/0[1-9].jpg"):
        path.unlink()
    add(root / "train/red/more.jpg")
    append(root, base)
    assert len(content(base)) == 24 + 9 + 7 + 1
    verify.run(base, workers=1)


@pytest.mark.parametrize("where", ["train/stray.jpg", "train/red/bad.jpg"])
def test_an_append_of_rejects_alone(
    root: Path, base: Path, tmp_path: Path, where: str
) -> None:
    """Known by the listing, or by the decoder: no shard, and a row in rejects.csv."""
    (root / where).write_bytes(b"no photo")
    append(root, base)
    make(root, tmp_path / "at once")
    assert content(base) == content(tmp_path / "at once")
    assert rows(base) == rows(tmp_path / "at once")
    assert counts(base) == counts(tmp_path / "at once")
    verify.run(base, workers=1)
    add(root / where, 0, 96)
    if "red" in where:
        retry(base)
        assert len(rows(base)) == 1 + 2
        verify.run(base, workers=1)


def test_a_split_that_comes_later(root: Path, tmp_path: Path) -> None:
    later = (root / "validation").rename(tmp_path / "later")
    make(root, tmp_path / "made")
    later.rename(root / "validation")
    append(root, tmp_path / "made")
    make(root, tmp_path / "at once")
    assert content(tmp_path / "made") == content(tmp_path / "at once")
    assert counts(tmp_path / "made") == counts(tmp_path / "at once")
    verify.run(tmp_path / "made", workers=1)


def test_plan_says_what_would_be_added(
    root: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(base)
    grow(root)
    wanted = {"images": root, "dataset": base, "append": True, "workers": 1}
    wanted["contract"] = ImageContract(height=HEIGHT, width=WIDTH)
    estimate.run(PlanOptions(**wanted, max_reject_fraction=0.2))
    said = capsys.readouterr().out
    assert "22 of 64 images are not in DATASET" in said
    assert " for 22 images and write " in said
    assert ", 0 KB needed" not in said
    assert tree(base) == before


# ------------------------------------------------------------------------- retry


def mend(root: Path) -> None:
    add(root / "train/red/cut.jpg", 0, 90)


def test_retry_adds_what_was_mended(
    root: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mend(root)
    make(root, tmp_path / "at once")
    # No photo that was written is opened: it could not be read any more.
    for split, image_id, *_ in content(base):
        (root / split / image_id).write_bytes(b"")
    retry(base)
    assert content(base) == content(tmp_path / "at once")
    assert rows(base) == rows(tmp_path / "at once")
    assert counts(base) == counts(tmp_path / "at once")
    assert (base / "train-g01-00000-of-00001.tfrecord").exists()
    assert "1 of 2 images were added" in capsys.readouterr().out
    verify.run(base, workers=1)


def test_retry_from_another_folder(root: Path, base: Path, tmp_path: Path) -> None:
    mend(root)
    mended = tmp_path / "mended/train/red/cut.jpg"
    mended.parent.mkdir(parents=True)
    shutil.copy(root / "train/red/cut.jpg", mended)
    shutil.rmtree(root)
    retry(base, images=tmp_path / "mended")
    assert {row[0] for row in rows(base)} == {"id", "page.jpg"}
    verify.run(base, workers=1)


def test_retry_with_a_limit_raised(root: Path, tmp_path: Path) -> None:
    progressive = jpeg(photo(0, 1, 200, 200), progressive=True)  # decoded in full
    (root / "train/red/large.jpg").write_bytes(progressive)
    folder, few = tmp_path / "made", 96 * 120
    make(root, folder, contract=contract_of(max_pixels=few))
    assert any(row[3] == "too_many_pixels" for row in rows(folder))
    retry(folder, max_pixels=200 * 200)
    make(root, tmp_path / "at once", contract=contract_of(max_pixels=200 * 200))
    assert content(folder) == content(tmp_path / "at once")
    assert rows(folder) == rows(tmp_path / "at once")
    value = json.loads((folder / "dataset.json").read_text())
    assert value["image"]["max_pixels"] == 200 * 200


def contract_of(**more: Any) -> ImageContract:
    return ImageContract(**{"height": HEIGHT, "width": WIDTH, **more})


def test_retry_of_what_is_still_bad_changes_nothing(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(base)
    retry(base)
    assert tree(base) == before
    assert "0 of 2 images were added" in capsys.readouterr().out


def test_retry_without_rejects(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "train/red/cut.jpg").unlink()
    (root / "test/page.jpg").unlink()
    make(root, tmp_path / "made")
    before = tree(tmp_path / "made")
    retry(tmp_path / "made")
    assert tree(tmp_path / "made") == before
    assert "has no rejects; nothing to do" in capsys.readouterr().out


def test_retry_with_files_gone(
    root: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mend(root)
    (root / "test/page.jpg").unlink()
    retry(base)
    assert {row[0] for row in rows(base)} == {"id", "page.jpg"}
    assert "1 images are not in IMAGES, or cannot be used" in capsys.readouterr().out
    verify.run(base, workers=1)
    before = tree(base)
    with pytest.raises(RunError, match=r"none of the 1 rejected images .*IMAGES="):
        retry(base)
    assert tree(base) == before


def test_retry_after_append_and_append_after_retry(
    root: Path, base: Path, tmp_path: Path
) -> None:
    grow(root)
    append(root, base)
    mend(root)
    add(root / "train/zinc/bad.jpg", 2, 91)
    retry(base)
    add(root / "train/zinc/last.jpg", 2, 92)
    append(root, base)
    make(root, tmp_path / "at once")
    assert content(base) == content(tmp_path / "at once")
    assert counts(base) == counts(tmp_path / "at once")
    verify.run(base, workers=1)


def test_retry_without_the_note_beside_it(root: Path, base: Path) -> None:
    mend(root)
    (base.parent / "dataset.source.json").unlink()
    with pytest.raises(RunError, match=r"dataset\.source\.json is missing.*IMAGES="):
        retry(base)
    retry(base, images=root)
    assert {row[0] for row in rows(base)} == {"id", "page.jpg"}


def test_retry_where_a_class_was_added(root: Path, base: Path) -> None:
    """Which is for an append; also where that class is in one split alone."""
    mend(root)
    add(root / "validation/zinc/0.jpg", 2, 93)
    retry(base)
    assert {row[0] for row in rows(base)} == {"id", "page.jpg"}
    assert manifest.load(base).classes == ("blue", "green", "red")


def test_retry_of_a_csv(root: Path, tmp_path: Path) -> None:
    names = [f"train/red/{name}.jpg" for name in ("00", "01", "02", "cut")]
    lines = "".join(f"{name},red\n" for name in names)
    (tmp_path / "named.csv").write_text(f"id,label\n{lines}train/red/gone.jpg,red\n")
    folder = tmp_path / "made"
    make(root, folder, manifest=tmp_path / "named.csv", max_reject_fraction=0.5)
    assert len(rows(folder)) == 1 + 2
    mend(root)
    shutil.copy(root / "train/red/00.jpg", root / "train/red/gone.jpg")
    retry(folder)
    assert len(rows(folder)) == 1
    verify.run(folder, workers=1)


# --------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"contract": contract_of(width=48)}, "image.width is 40 there and 48 here"),
        ({"contract": contract_of(quality=80)}, "image.quality is 90 there and 80"),
        ({"seed": 3}, r"source\.seed is 0 there and 3 here"),
        ({"layout": "classes"}, r"source\.layout is splits there and classes here"),
    ],
)
def test_append_of_another_kind_is_refused(
    root: Path, base: Path, more: dict[str, Any], found: str
) -> None:
    before = tree(base)
    grow(root)
    with pytest.raises(RunError, match=f"was made otherwise: {found}"):
        append(root, base, **more)
    assert tree(base) == before


def test_append_with_another_validation_fraction_is_refused(tmp_path: Path) -> None:
    """New photos would be split otherwise than the old ones, and nobody would know."""
    root, folder = tmp_path / "images", tmp_path / "dataset"
    class_folders(root, 4)
    make(root, folder, validation_fraction=0.5)
    before = tree(folder)
    class_folders(root, 9)
    found = r"source\.validation_fraction is 0\.5 there and 0\.1 here"
    with pytest.raises(RunError, match=f"was made otherwise: {found}"):
        append(root, folder)
    assert tree(folder) == before
    append(root, folder, validation_fraction=0.5)


def test_append_of_labelled_photos_to_an_unlabelled_test_is_refused(
    root: Path, base: Path, tmp_path: Path
) -> None:
    """And the other way round: a split would be labelled in part."""
    shutil.rmtree(root / "test")
    add(root / "test/red/00.jpg")
    with pytest.raises(RunError, match=r"test has no labels in DATASET .*--labelled_t"):
        append(root, base, labelled_test=True)
    make(root, tmp_path / "labelled", labelled_test=True)
    add(root / "test/red/01.jpg", 0, 1)
    with pytest.raises(RunError, match=r"test has labels in DATASET .*--labelled_test"):
        append(root, tmp_path / "labelled")
    append(root, tmp_path / "labelled", labelled_test=True)


def test_new_classes_are_those_of_a_list(root: Path, base: Path) -> None:
    """--classes promises labels: those that it gives, or none."""
    grow(root)
    add(root / "validation/zinc/0.jpg", 2, 95)
    listed = root.parent / "listed.txt"
    listed.write_text("red\nblue\ngreen\nzinc\naqua\n")
    before = tree(base)
    with pytest.raises(
        RunError, match=r"label 0 is 'blue' in DATASET .* and 'red' in --classes"
    ):
        append(root, base, classes=listed)
    assert tree(base) == before
    listed.write_text("blue\ngreen\nred\nzinc\naqua\n")
    append(root, base, classes=listed)
    assert (base / "classes.txt").read_text() == listed.read_text()


def test_a_class_that_was_renamed_is_refused(root: Path, base: Path) -> None:
    before = tree(base)
    for split in ("train", "validation"):
        (root / split / "red").rename(root / split / "crimson")
    with pytest.raises(RunError, match=r"no class 'red' .* 11 images.*'crimson'"):
        append(root, base)
    assert tree(base) == before


def test_a_class_that_was_renamed_in_a_csv_is_refused(
    root: Path, tmp_path: Path
) -> None:
    named = tmp_path / "named.csv"
    lines = ["id,label,split"]
    for label in ("red", "blue"):
        lines += [f"train/{label}/{n:02d}.jpg,{label},train" for n in range(4)]
    named.write_text("\n".join(lines))
    make(root, tmp_path / "made", manifest=named)
    named.write_text("\n".join(lines).replace(",red,", ",crimson,"))
    with pytest.raises(RunError, match=r"no class 'red' .* 4 images.*'crimson'"):
        append(root, tmp_path / "made", manifest=named)


def test_a_split_that_vanished_is_refused(root: Path, base: Path) -> None:
    before = tree(base)
    shutil.rmtree(root / "validation")
    with pytest.raises(
        RunError, match=r"IMAGES has no validation, of which .* 9 images"
    ):
        append(root, base)
    assert tree(base) == before


def test_a_dataset_of_release_01_is_refused(root: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FINISHED, tmp_path / "made"))
    before = tree(folder)
    with pytest.raises(RunError, match=r"was made by release 0\.1.*--overwrite"):
        append(root, folder)
    with pytest.raises(RunError, match=r"was made by release 0\.1.*--overwrite"):
        retry(folder, images=root)
    assert tree(folder) == before


def test_no_dataset(root: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="does not exist"):
        append(root, tmp_path / "none")
    with pytest.raises(RunError, match="does not exist"):
        retry(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_two_at_once(root: Path, base: Path, program: Any) -> None:
    grow(root)
    before = tree(base)
    with folder_lock.held(base, notes="_work"):
        size = [f"--height={HEIGHT}", f"--width={WIDTH}"]
        words = [f"--images={root}", f"--dataset={base}", *size, "--append"]
        for verb in (["shards", *words], ["retry", f"--dataset={base}"]):
            result = program("pipeline", *verb)
            assert result.returncode == 1
            assert "is in use: another run" in result.stderr
    assert tree(base) == before


def test_append_and_overwrite_together(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--append keeps what --overwrite removes"):
        options(root, tmp_path, append=True, overwrite=True)


# -------------------------------------------------------------------- unfinished


class Stop(BaseException):
    """Ends a run where a kill would."""


@pytest.fixture
def stopped(root: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An append that ended between its lists and dataset.json; returns the base."""
    before = tree(base)
    grow(root)

    def stop(*_: object) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(finalize.ResumableFolder, "finish", stop)
        with pytest.raises(Stop):
            append(root, base)
    return before


def test_a_reader_says_that_an_append_is_unfinished(
    stopped: dict[str, str], root: Path, base: Path, tmp_path: Path
) -> None:
    said = "an append is unfinished. Run `make shards` with ARGS=--append again"
    with pytest.raises(RunError, match=said):
        manifest.load(base)
    with pytest.raises(RunError, match=said):
        verify.run(base, workers=1)
    with pytest.raises(RunError, match=said):
        retry(base)
    with pytest.raises(RunError, match=f"{said}.*--overwrite"):
        make(root, base)
    append(root, base)
    make(root, tmp_path / "at once")
    assert content(base) == content(tmp_path / "at once")


def test_an_unfinished_append_of_other_images_is_withdrawn(
    stopped: dict[str, str],
    root: Path,
    base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    add(root / "train/red/last.jpg", 0, 99)
    append(root, base)
    assert "shards of an unfinished run are removed" in capsys.readouterr().out
    make(root, tmp_path / "at once")
    assert content(base) == content(tmp_path / "at once")
    assert counts(base) == counts(tmp_path / "at once")


def test_an_append_that_is_not_wanted_any_more(
    stopped: dict[str, str], root: Path, base: Path
) -> None:
    """IMAGES is what it was: so is DATASET, to the byte."""
    for path in [*root.glob("train/red/more*"), *root.glob("test/more*")]:
        path.unlink()
    for path in ("train/aqua", "train/zinc", "validation/aqua"):
        shutil.rmtree(root / path)
    append(root, base)
    assert tree(base) == stopped


def test_too_many_rejects_leave_the_dataset_as_it_is(root: Path, base: Path) -> None:
    for index in range(9):
        (root / "train/red" / f"bad {index}.jpg").write_bytes(b"no photo")
    with pytest.raises(RunError, match=r"_work/rejects\.csv says which and why"):
        append(root, base, max_reject_fraction=0.1)
    assert manifest.load(base).split("train").examples == 24  # readers see no change
    append(root, base, max_reject_fraction=0.3)
    verify.run(base, workers=1)


def test_shards_of_a_grown_dataset(root: Path, base: Path, tmp_path: Path) -> None:
    grow(root)
    append(root, base)
    with pytest.raises(RunError, match=r"images were added to .*ARGS=--append"):
        make(root, base)
    make(root, base, overwrite=True)
    make(root, tmp_path / "at once")
    assert tree(base) == tree(tmp_path / "at once")


def test_the_command_line(root: Path, base: Path, program: Any) -> None:
    grow(root)
    size = [f"--height={HEIGHT}", f"--width={WIDTH}", "--max_reject_fraction=0.2"]
    words = [f"--images={root}", f"--dataset={base}", *size]
    result = program("pipeline", "shards", *words, "--append")
    assert result.returncode == 0, result.stderr
    mend(root)
    result = program("pipeline", "retry", f"--dataset={base}")
    assert result.returncode == 0, result.stderr
    assert "1 of 3 images were added" in result.stdout
    result = program("pipeline", "shards", *words, "--append", "--overwrite")
    assert result.returncode == 2
    assert "--append keeps what --overwrite removes" in result.stderr
    assert command_line.flags_of(RetryOptions)["workers"].value


def test_killed_in_the_middle(root: Path, base: Path, tmp_path: Path) -> None:
    """For real, before the 35th step on disk; tests/end_to_end has all of them."""
    grow(root)
    undisturbed = Path(shutil.copytree(base, tmp_path / "undisturbed"))
    append(root, undisturbed)
    words = [f"--images={root}", f"--dataset={base}", "--append", "--shards=2"]
    words += [f"--height={HEIGHT}", f"--width={WIDTH}", "--max_reject_fraction=0.2"]
    assert not run_until(35, "pipeline", ["shards", *words])
    assert (base / "_work/run.json").is_file()
    append(root, base)
    assert tree(base) == tree(undisturbed)
