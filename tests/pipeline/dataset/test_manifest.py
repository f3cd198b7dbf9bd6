"""dataset.json: what it promises, and what becomes of a folder that breaks it."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.dataset import manifest, record
from pipeline.dataset.manifest import ImageContract
from pipeline.storage import atomic
from pipeline.system.errors import RunError
from tests.support.photos import CLASSES, HEIGHT, PER_CLASS, TEST, WIDTH

SHARD = "train-00001-of-00002.tfrecord"


# ---------------------------------------------------------------------- contract


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 0}, r"image size is 0x200 \(height x width\).*at least 1"),
        ({"width": -1}, "image size is 150x-1"),
        ({"resize": "squash"}, "resize is 'squash', not one of .*stretch.*crop.*pad"),
        ({"quality": 0}, "quality is 0, not from 1 to 100"),
        ({"quality": 101}, "quality is 101, not from 1 to 100"),
        ({"chroma": "422"}, "chroma is '422', not one of .*420.*444"),
    ],
)
def test_a_contract_refuses(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageContract(**{"height": 150, "width": 200, **change})


@pytest.mark.parametrize("resize", manifest.RESIZES)
@pytest.mark.parametrize("chroma", manifest.CHROMAS)
@pytest.mark.parametrize("quality", [1, 100])
def test_a_contract_allows(resize: str, chroma: str, quality: int) -> None:
    contract = ImageContract(
        height=1, width=1, resize=resize, chroma=chroma, quality=quality
    )
    assert ImageContract(**dataclasses.asdict(contract)) == contract


def test_height_and_width_cannot_be_confused() -> None:
    with pytest.raises(TypeError):
        ImageContract(150, 200)  # type: ignore[misc]


def test_a_model_depends_on_the_pixels_alone() -> None:
    contract = ImageContract(height=150, width=200, resize="crop", quality=50)
    assert contract.pixels() == {"height": 150, "width": 200, "resize": "crop"}


# ------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("split", "index", "count", "name"),
    [
        ("train", 0, 64, "train-00000-of-00064.tfrecord"),
        ("validation", 3, 4, "validation-00003-of-00004.tfrecord"),
        ("test", 99_999, 100_000, "test-99999-of-100000.tfrecord"),
    ],
)
def test_shard_name(split: str, index: int, count: int, name: str) -> None:
    assert manifest.shard_name(split, index, count) == name


@pytest.mark.parametrize(
    "classes", [(), ("a",), ("007", "a b", "a,b", "é", "line\u2028sep", "\x85")]
)
def test_classes_read_back(tmp_path: Path, classes: tuple[str, ...]) -> None:
    path = tmp_path / "classes.txt"
    atomic.write_text(path, manifest.classes_text(classes))
    entry = manifest.classes_entry(classes)
    assert entry == {"count": len(classes), "sha256": atomic.sha256(path)}
    assert manifest.read_classes(path, entry) == classes


def test_line_number_is_label() -> None:
    assert manifest.classes_text(("b", "a")) == "b\na\n"


# -------------------------------------------------------------------------- load


def test_load(made_dataset: Path) -> None:
    dataset = manifest.load(made_dataset)
    assert dataset.folder == made_dataset
    assert dataset.classes == CLASSES
    assert dataset.image == ImageContract(height=HEIGHT, width=WIDTH)
    assert list(dataset.splits) == ["train", "validation", "test"]
    assert {name: (s.examples, s.rejected) for name, s in dataset.splits.items()} == {
        "train": (3 * PER_CLASS["train"], 1),
        "validation": (3 * PER_CLASS["validation"], 0),
        "test": (TEST, 1),
    }
    for split in dataset.splits.values():
        assert sum(shard.examples for shard in split.shards) == split.examples
    assert dataset.paths("train")[1] == made_dataset / SHARD
    assert manifest.find_damage(dataset) is None


def test_the_folder_holds_what_the_manifest_lists(made_dataset: Path) -> None:
    dataset = manifest.load(made_dataset)
    listed = {path.name for name in dataset.splits for path in dataset.paths(name)}
    assert {path.name for path in made_dataset.iterdir()} == listed | {
        manifest.MANIFEST,
        manifest.CLASSES,
        manifest.REJECTS,
    }


def test_an_unknown_split_is_refused(made_dataset: Path) -> None:
    dataset = manifest.load(made_dataset)
    with pytest.raises(
        RunError, match=r"no split 'dev'; it has train, validation, test\. .*--split"
    ):
        dataset.split("dev")
    with pytest.raises(RunError, match="no split 'dev'"):
        dataset.paths("dev")


def test_the_fingerprint_is_that_of_the_content(dataset: Path) -> None:
    before = manifest.load(dataset).fingerprint
    copy = Path(shutil.copytree(dataset, dataset.with_name("copy")))
    assert manifest.load(copy).fingerprint == before
    edit(copy, lambda value: value["source"].update(seed=5))
    assert manifest.load(copy).fingerprint != before


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes dataset.json."""
    path = folder / manifest.MANIFEST
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    atomic.write_json(path, value)


def cut(folder: Path) -> None:
    content = (folder / SHARD).read_bytes()
    (folder / SHARD).write_bytes(content[:-5])


BREAKAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "dataset does not exist. `make shards` makes it"),
    "no manifest": (
        lambda folder: (folder / "dataset.json").unlink(),
        "dataset is incomplete: it has no dataset.json.*`make shards` again",
    ),
    "another version": (
        lambda folder: edit(folder, lambda value: value.update(version=3)),
        "dataset.json has version 3; this program reads 1 and 2. Make .* again",
    ),
    "no version": (
        lambda folder: edit(folder, dict.clear),
        "dataset.json has version None",
    ),
    "manifest cut": (
        lambda folder: (folder / "dataset.json").write_text('{"version'),
        "dataset.json is damaged: .*Restore it",
    ),
    "manifest of others": (
        lambda folder: (folder / "dataset.json").write_text("[]"),
        "dataset.json holds a JSON list",
    ),
    "shard gone": (
        lambda folder: (folder / SHARD).unlink(),
        rf"{SHARD} is missing; dataset.json promises \d+ bytes\. Restore",
    ),
    "shard short": (cut, rf"{SHARD} has \d+ bytes; dataset.json promises \d+ bytes"),
    "classes gone": (
        lambda folder: (folder / "classes.txt").unlink(),
        "classes.txt is not the list .*expected .*'count': 3.*found .*'count': 0",
    ),
    "classes in another order": (
        lambda folder: (folder / "classes.txt").write_text("red\ngreen\nblue\n"),
        "classes.txt is not the list .*'sha256'.*Restore the file, or make",
    ),
    "a class more": (
        lambda folder: (folder / "classes.txt").open("a").write("x\n"),
        "expected .*'count': 3.*found .*'count': 4",
    ),
    "half a class more": (
        lambda folder: (folder / "classes.txt").open("a").write("x"),
        "classes.txt is not the list",
    ),
    "other line ends": (
        lambda folder: (folder / "classes.txt").write_bytes(b"blue\r\ngreen\r\nred\r"),
        "classes.txt is not the list",
    ),
    "classes that are no UTF-8": (
        lambda folder: (folder / "classes.txt").write_bytes(b"bl\xfce\ngreen\nred\n"),
        "classes.txt is not the list",
    ),
}


@pytest.mark.parametrize(("damage", "message"), BREAKAGES.values(), ids=BREAKAGES)
def test_load_names_what_is_wrong(
    dataset: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(dataset)
    with pytest.raises(RunError, match=message):
        manifest.load(dataset)


@pytest.mark.parametrize("position", [0, 300, -1])
def test_find_damage_names_the_shard(dataset: Path, position: int) -> None:
    content = bytearray((dataset / SHARD).read_bytes())
    content[position] ^= 1  # one bit; the length stays
    (dataset / SHARD).write_bytes(content)
    damage = manifest.find_damage(manifest.load(dataset))
    assert damage is not None
    assert damage.startswith(f"shard {dataset / SHARD} is damaged (record ")
    assert atomic.sha256(dataset / SHARD) in damage
    assert "Restore it, or make the dataset again" in damage


def test_find_damage_names_the_record(dataset: Path) -> None:
    stored = list(record.read(dataset / SHARD))[2]
    content = bytearray((dataset / SHARD).read_bytes())
    content[stored.offset + 100] ^= 1
    (dataset / SHARD).write_bytes(content)
    damage = manifest.find_damage(manifest.load(dataset))
    assert f"record 2 at byte {stored.offset}: the CRC of its data" in str(damage)


def test_find_damage_of_a_shard_that_is_whole_but_another(dataset: Path) -> None:
    """Same length, same records, other labels: only the checksum tells."""
    records = [stored.record for stored in record.read(dataset / SHARD)]
    frames = [
        record.frame(
            record.encode(
                r.id, r.encoded, height=r.height, width=r.width, label=2, text=r.text
            )
        )
        for r in records
    ]
    (dataset / SHARD).write_bytes(b"".join(frames))
    damage = manifest.find_damage(manifest.load(dataset))
    assert f"{SHARD} is not the one that was written ({len(records)} whole" in str(
        damage
    )


def test_find_damage_of_a_shard_that_went_meanwhile(dataset: Path) -> None:
    loaded = manifest.load(dataset)
    (dataset / SHARD).unlink()
    assert f"{SHARD} is missing" in str(manifest.find_damage(loaded))


def test_the_usual_max_pixels_leaves_no_trace() -> None:
    contract = ImageContract(height=1, width=2)
    assert "max_pixels" not in contract.to_json()
    assert ImageContract(**contract.to_json()) == contract
    larger = ImageContract(height=1, width=2, max_pixels=10**9)
    assert ImageContract(**larger.to_json()) == larger


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ((), "no classes"),
        (("hat",), "1 class: hat"),
        (("a", "b", "c", "d", "e"), "5 classes: a, b, c, d, e"),
        (tuple("abcdef"), "6 classes: a, b, c, d, e, …"),
    ],
)
def test_classes_in_words(classes: tuple[str, ...], words: str) -> None:
    assert manifest.classes_in_words(classes) == words


def test_counts_are_those_of_what_was_read(dataset: Path) -> None:
    """Images may be added while a dataset is read: its description is replaced."""
    before = manifest.load(dataset)
    counts = manifest.class_counts(before, "train")

    def add(value: dict[str, Any]) -> None:
        value["ledger"]["splits"]["train"]["classes"]["red"]["written"] += 5

    edit(dataset, add)
    assert manifest.class_counts(before, "train") == counts
    assert manifest.class_counts(manifest.load(dataset), "train") != counts


def test_an_append_that_ends_while_a_dataset_is_read(
    made_dataset: Path,
    grown_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between dataset.json and the lists: what is read is the dataset of then or now,
    and nothing is said to be damaged."""
    folder = Path(shutil.copytree(made_dataset, tmp_path / "dataset"))
    real = manifest.read_classes

    def grow_first(*arguments: Any) -> Any:
        if manifest.read(folder)["version"] == 1:
            shutil.copytree(grown_dataset, folder, dirs_exist_ok=True)
        return real(*arguments)

    monkeypatch.setattr(manifest, "read_classes", grow_first)
    assert manifest.load(folder).classes == manifest.load(grown_dataset).classes
