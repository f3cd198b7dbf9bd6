"""What dataset.json says of the originals, of conflicts and of what was ignored."""

import csv
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline import preprocess, verify
from pipeline.dataset import manifest
from pipeline.dataset.manifest import ImageContract, ShardName
from pipeline.options import ShardsOptions
from pipeline.storage import atomic
from pipeline.system.errors import RunError
from tests.support.photos import HEIGHT, WIDTH


def make(images: Path, folder: Path, **options: Any) -> dict[str, Any]:
    """Makes a dataset and returns its dataset.json."""
    settings = {"max_reject_fraction": 0.5, "workers": 1, "shards": 2, **options}
    preprocess.run(
        ShardsOptions(
            images=images,
            dataset=folder,
            contract=ImageContract(height=HEIGHT, width=WIDTH),
            **settings,
        )
    )
    value: dict[str, Any] = json.loads((folder / "dataset.json").read_text())
    return value


@pytest.fixture
def root(images: Path, tmp_path: Path) -> Path:
    """The photos, one of them in two classes, and once more in test."""
    copy = Path(shutil.copytree(images, tmp_path / "images"))
    photo = copy / "train" / "blue" / "00.jpg"
    shutil.copy(photo, copy / "train" / "green" / "again.jpg")
    shutil.copy(photo, copy / "train" / "green" / "third, one.jpg")
    shutil.copy(photo, copy / "test" / "copy.jpg")
    return copy


def test_one_photo_with_two_labels(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = make(root, tmp_path / "made")
    digest = hashlib.sha256((root / "train/blue/00.jpg").read_bytes()).hexdigest()
    with (tmp_path / "made" / "conflicts.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    # The copy in test has no label, and so no other one.
    assert rows == [
        ["id", "split", "label", "sha256"],
        ["blue/00.jpg", "train", "blue", digest],
        ["green/again.jpg", "train", "green", digest],
        ["green/third, one.jpg", "train", "green", digest],
    ]
    assert value["ledger"]["conflicts"] == {
        "images": 3,
        "first": [
            "train/blue/00.jpg",
            "train/green/again.jpg",
            "train/green/third, one.jpg",
        ],
    }
    assert value["ledger"]["duplicates"]["images"] == 3
    assert (
        "3 images have the bytes of another with another label, such as "
        "train/blue/00.jpg = train/green/again.jpg: see conflicts.csv"
    ) in capsys.readouterr().out
    verify.run(tmp_path / "made", workers=1)


def test_without_a_conflict_there_is_no_list(made_dataset: Path) -> None:
    value = json.loads((made_dataset / "dataset.json").read_text())
    assert value["ledger"]["conflicts"] == {"images": 0, "first": []}
    assert not (made_dataset / "conflicts.csv").exists()
    assert set(value["files"]) == {"classes.txt", "rejects.csv"}


def test_an_overwritten_dataset_keeps_no_conflicts(root: Path, tmp_path: Path) -> None:
    make(root, tmp_path / "made")
    for name in ("again.jpg", "third, one.jpg"):
        (root / "train" / "green" / name).unlink()
    make(root, tmp_path / "made", overwrite=True)
    assert not (tmp_path / "made" / "conflicts.csv").exists()


def test_the_lists_are_held_to_their_digests(root: Path, tmp_path: Path) -> None:
    value = make(root, tmp_path / "made")
    assert set(value["files"]) == {"classes.txt", "rejects.csv", "conflicts.csv"}
    for name, digest in value["files"].items():
        assert digest == atomic.sha256(tmp_path / "made" / name)


@pytest.mark.parametrize("name", ["rejects.csv", "conflicts.csv"])
def test_verify_names_a_list_that_was_changed(
    root: Path, tmp_path: Path, name: str
) -> None:
    """By a letter that no count can tell."""
    make(root, tmp_path / "made")
    path = tmp_path / "made" / name
    path.write_text(path.read_text().replace("jpg", "png"))
    with pytest.raises(RunError, match=f"{name}: its sha256 is .*json promises"):
        verify.run(tmp_path / "made", workers=1)


def test_verify_names_conflicts_that_are_gone(root: Path, tmp_path: Path) -> None:
    make(root, tmp_path / "made")
    (tmp_path / "made" / "conflicts.csv").unlink()
    with pytest.raises(RunError, match=r"conflicts\.csv: its sha256 is of no file"):
        verify.run(tmp_path / "made", workers=1)


def test_the_originals_do_not_depend_on_shards(root: Path, tmp_path: Path) -> None:
    value = make(root, tmp_path / "made", shards=1)
    again = make(root, tmp_path / "again", shards=7)
    assert value["originals"] == again["originals"]
    assert set(value["originals"]) == {"train", "validation", "test"}
    train = value["originals"]["train"]
    assert train["format"] == {"jpeg": 26}
    assert train["height_x_width"] == {"64x64": 26}
    assert train["aspect"] == {"1.25": 26}
    assert sum(train["bytes"].values()) == 26


def test_verify_counts_the_originals(made_dataset: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made_dataset, tmp_path / "dataset"))
    value = json.loads((folder / "dataset.json").read_text())
    value["originals"]["train"]["format"]["jpeg"] += 1
    (folder / "dataset.json").write_text(json.dumps(value))
    with pytest.raises(RunError, match=r"originals\.train\.format counts 25 images"):
        verify.run(folder, workers=1)


def test_what_was_ignored_by_kind(root: Path, tmp_path: Path) -> None:
    for name in (".DS_Store", "LICENSE", "train/Thumbs.db"):
        (root / name).touch()
    ledger = make(root, tmp_path / "made")["ledger"]
    assert ledger["ignored"] == 3
    assert ledger["ignored_by_kind"] == {"litter": 2, "beside": 1}


def test_what_a_csv_does_not_name(root: Path, tmp_path: Path) -> None:
    rows = "".join(f"train/red/{i:02d}.jpg,red\n" for i in range(8))
    (tmp_path / "named.csv").write_text(f"id,label\n{rows}train/blue/01.jpg,blue\n")
    ledger = make(root, tmp_path / "made", manifest=tmp_path / "named.csv")["ledger"]
    assert ledger["ignored_by_kind"] == {"unnamed": ledger["ignored"]}
    assert ledger["ignored"] > 30


# ------------------------------------------------------------------- generations


@pytest.fixture
def grown(made_dataset: Path, tmp_path: Path) -> Path:
    """A dataset whose second shard of train was added later."""
    folder = Path(shutil.copytree(made_dataset, tmp_path / "dataset"))
    value = json.loads((folder / "dataset.json").read_text())
    value["version"] = 2
    shards = value["splits"]["train"]["shards"]
    names = [ShardName("train", 0, 1), ShardName("train", 0, 1, generation=1)]
    for entry, name in zip(shards, names, strict=True):
        (folder / entry["file"]).rename(folder / str(name))
        entry["file"] = str(name)
    (folder / "dataset.json").write_text(json.dumps(value))
    return folder


def test_readers_go_by_the_manifest(
    grown: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = manifest.load(grown)
    assert [path.name for path in dataset.paths("train")] == [
        "train-00000-of-00001.tfrecord",
        "train-g01-00000-of-00001.tfrecord",
    ]
    assert manifest.find_damage(dataset) is None
    verify.run(grown, workers=1)
    assert "is whole" in capsys.readouterr().out


def test_training_reads_all_generations(grown: Path, tf: object) -> None:
    from trainer.data import input_pipeline

    dataset = manifest.load(grown)
    shards = dataset.split("train").shards
    batches = input_pipeline.for_inference(dataset, shards, batch_size=8)
    assert sum(len(batch.ids) for batch in batches) == 24


def test_a_generation_with_a_gap_is_named(grown: Path) -> None:
    old, new = (f"train-g01-00000-of-0000{count}.tfrecord" for count in (1, 2))
    (grown / old).rename(grown / new)
    text = (grown / "dataset.json").read_text()
    (grown / "dataset.json").write_text(text.replace(old, new))
    with pytest.raises(RunError, match=f"the 1 of train is {new}, not {old}"):
        verify.run(grown, workers=1)


def test_an_overwrite_removes_all_generations(grown: Path, images: Path) -> None:
    make(images, grown, overwrite=True)
    assert not list(grown.glob("*-g01-*"))
