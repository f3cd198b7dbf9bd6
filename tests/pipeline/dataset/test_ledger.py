"""The account of every listed image."""

import csv
import io
import json
from pathlib import Path

import pandas as pd
import pytest

from pipeline.dataset import ledger
from pipeline.dataset.ledger import Listed, Reject
from pipeline.dataset.manifest import Shard
from pipeline.dataset.sidecar import ShardCounts, ShardResult
from pipeline.sources.listing import ImageRef, Listing
from pipeline.storage import atomic
from pipeline.system.errors import RunError

ODD = [
    "plain.jpg",
    "a,b.jpg",
    'say "x".jpg',
    "two\nlines.jpg",
    "carriage\rreturn.jpg",
    "both\r\n.jpg",
    "grün 日本 🦓.jpg",
    " blank ",
    "'=1+1",
    "NA",
    r"\xff.jpg",
]


def ref(split: str, image_id: str) -> ImageRef:
    label = None if split == "test" else image_id.partition("/")[0]
    return ImageRef(image_id, f"/images/{split}/{image_id}", label, split)


def note(index: int, written: dict[str, int], *rejects: list[str]) -> ShardResult:
    examples = sum(written.values())
    shard = Shard(f"{index}.tfrecord", examples, 1000 * examples, "0" * 64)
    return ShardResult(shard, ShardCounts(written, list(rejects), bytes_read=10))


def listed() -> Listed:
    """Six images of train, two of test, one of them without a class."""
    train = ["a/1", "a/2", "a/3", "b/1", "c/1", "c/2"]
    listing = Listing(
        "splits",
        refs=[ref("train", i) for i in train] + [ref("test", i) for i in ("x", "y")],
        rejects=[Reject("stray", "train", "", "no_class", "outside")],
        classes=("a", "b", "c"),
    )
    listing.ignored.add("beside", "LICENSE")
    listing.ignored.add("litter", ".DS_Store")
    return listing.listed()


def notes() -> dict[str, list[ShardResult]]:
    return {
        "train": [
            note(0, {"a": 1, "c": 1}, ["b/1", "b", "damaged", "cut"]),
            note(1, {"a": 2}, ["c/2", "c", "damaged", "cut"]),
        ],
        "test": [note(2, {"": 1}, ["y", "", "not_an_image", "text"])],
    }


def test_balance() -> None:
    account = ledger.balance(listed(), notes())
    assert account.listed == {
        ("train", ""): 1,
        ("train", "a"): 3,
        ("train", "b"): 1,
        ("train", "c"): 2,
        ("test", ""): 2,
    }
    assert account.listed == account.written + account.rejected
    assert (account.listed.total(), account.written.total()) == (9, 5)
    assert account.reject_fraction == pytest.approx(4 / 9)
    assert (account.ignored.total(), account.bytes_read) == (2, 30)


def test_splits_are_those_of_the_manifest() -> None:
    splits = ledger.balance(listed(), notes()).splits
    assert list(splits) == ["train", "test"]
    assert (splits["train"].examples, splits["train"].rejected) == (4, 3)
    assert (splits["test"].examples, splits["test"].rejected) == (1, 1)
    assert [part.file for part in splits["train"].shards] == [
        "0.tfrecord",
        "1.tfrecord",
    ]


def test_rejects_are_sorted_whatever_the_order_of_the_shards() -> None:
    forward = notes()
    backward = {split: parts[::-1] for split, parts in reversed(forward.items())}
    rejects = ledger.balance(listed(), forward).rejects
    assert rejects == sorted(rejects) == ledger.balance(listed(), backward).rejects
    assert [row.id for row in rejects] == ["b/1", "c/2", "stray", "y"]


def test_reasons() -> None:
    account = ledger.balance(listed(), notes())
    assert account.reasons("train") == {"damaged": 2, "no_class": 1}
    assert account.reasons("test") == {"not_an_image": 1}
    assert account.reasons("validation") == {}


def test_what_was_listed_reads_back() -> None:
    value = json.loads(json.dumps(listed().to_json()))
    assert Listed.from_json(value) == listed()


@pytest.mark.parametrize(
    ("split", "parts", "message"),
    [
        (
            "train",
            [note(0, {"a": 2, "b": 1, "c": 2})],
            "'train', class 'a': 3 images listed, 2 written and 0 rejected",
        ),
        (
            "train",
            [note(0, {"a": 3, "b": 2, "c": 2})],
            "'train', class 'b': 1 images listed, 2 written",
        ),
        (  # the totals agree
            "train",
            [note(0, {"a": 3, "b": 1, "c": 1, "d": 1})],
            "'train', class 'c': 2 images listed, 1 written",
        ),
        ("test", [], "'test', class '': 2 images listed, 0 written and 0 rejected"),
        (
            "test",
            [note(0, {"": 2}, ["y", "", "damaged", "cut"])],
            "2 images listed, 2 written and 1 rejected.*--overwrite",
        ),
    ],
)
def test_an_imbalance_is_named(
    split: str, parts: list[ShardResult], message: str
) -> None:
    with pytest.raises(RunError, match=f"does not balance: .*{message}"):
        ledger.balance(listed(), notes() | {split: parts})


def test_to_json_adds_up() -> None:
    account = ledger.balance(listed(), notes())
    value = json.loads(json.dumps(account.to_json()))
    assert value["ignored"] == 2
    assert value["ignored_by_kind"] == {"beside": 1, "litter": 1}
    train = value["splits"]["train"]
    assert {key: train[key] for key in ("listed", "written", "rejected")} == {
        "listed": 7,
        "written": 4,
        "rejected": 3,
    }
    assert train["reasons"] == {"damaged": 2, "no_class": 1}
    assert train["classes"]["c"] == {"listed": 2, "written": 1, "rejected": 1}
    assert train["classes"][""] == {"listed": 1, "written": 0, "rejected": 1}
    for split in value["splits"].values():
        assert split["listed"] == split["written"] + split["rejected"]
        for what in ("listed", "written", "rejected"):
            assert split[what] == sum(c[what] for c in split["classes"].values())
    assert list(value["splits"]) == ["train", "test"]
    assert list(value["splits"]["test"]["classes"]) == [""]


@pytest.mark.parametrize("label", ["", "a,b", "NA", "007"])
def test_rejects_csv_reads_back(tmp_path: Path, label: str) -> None:
    rejects = [Reject(name, "train", label, "damaged", f"at {name}") for name in ODD]
    path = tmp_path / "rejects.csv"
    atomic.write_text(path, ledger.rejects_csv(rejects))
    with path.open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    assert head == ["id", "split", "label", "reason", "detail"]
    assert [Reject(*row) for row in rows] == rejects == ledger.read_rejects(path)
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert [Reject(*row) for row in table.itertuples(index=False)] == rejects


def test_rejects_csv_of_none_is_its_header() -> None:
    text = ledger.rejects_csv([])
    assert text == "id,split,label,reason,detail\n"
    assert list(csv.DictReader(io.StringIO(text))) == []
