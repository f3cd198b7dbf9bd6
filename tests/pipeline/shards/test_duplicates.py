"""Byte-identical source files."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from pipeline import preprocess
from pipeline.dataset.manifest import ImageContract
from pipeline.options import ShardsOptions
from pipeline.shards import duplicates
from pipeline.shards.duplicates import Conflict, Duplicates, Source


def digest(word: str) -> bytes:
    return hashlib.sha256(word.encode()).digest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "_work").mkdir()
    return tmp_path


def test_groups_are_found_across_shards(folder: Path) -> None:
    duplicates.note_sources(folder, "one", [digest("x"), digest("y"), digest("z")])
    duplicates.note_sources(folder, "two", [digest("y"), digest("x"), digest("w")])
    names = [
        ("one", [Source("train", name, "x") for name in "abc"]),
        (
            "two",
            [
                Source("test", "d", ""),
                Source("train", "e", "y"),
                Source("test", "f", ""),
            ],
        ),
    ]
    found = duplicates.find(folder, names)
    assert found.to_json()["duplicates"] == {
        "images": 2,
        "groups": [["test/d", "train/b"], ["train/a", "train/e"]],
        "across_splits": [["test/d", "train/b"]],
    }
    assert found.conflicts == [
        Conflict("a", "train", "x", digest("x").hex()),
        Conflict("e", "train", "y", digest("x").hex()),
    ]


def test_files_that_were_not_read_are_no_copies(folder: Path) -> None:
    duplicates.note_sources(folder, "one", [duplicates.UNREAD, duplicates.UNREAD])
    sources = [Source("train", "a", "x"), Source("train", "b", "y")]
    found = duplicates.find(folder, [("one", sources)])
    assert found == Duplicates([], [])


def test_copies_are_in_the_ledger(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three copies of one photo, one of them in test; two of a broken file are none."""
    root = Path(shutil.copytree(images, tmp_path / "images"))
    source = root / "train" / "blue" / "00.jpg"
    shutil.copy(source, root / "train" / "blue" / "copy.jpg")
    shutil.copy(source, root / "test" / "copy.jpg")
    shutil.copy(root / "test" / "page.jpg", root / "test" / "page2.jpg")
    preprocess.run(
        ShardsOptions(
            images=root,
            dataset=tmp_path / "made",
            contract=ImageContract(height=32, width=40),
            max_reject_fraction=0.5,
            workers=1,
        )
    )
    value = json.loads((tmp_path / "made" / "dataset.json").read_text())
    across = ["test/copy.jpg", "train/blue/00.jpg", "train/blue/copy.jpg"]
    assert value["ledger"]["duplicates"] == {
        "images": 2,
        "groups": [across],
        "across_splits": [across],
    }
    output = capsys.readouterr().out
    assert "2 images are copies of another" in output
    assert "test/copy.jpg = train/blue/copy.jpg" in output
