"""A run that goes on: what it keeps, what it makes again, and what it says."""

import json
import logging
import os
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pipeline import preprocess
from pipeline.dataset.manifest import ImageContract
from pipeline.images import image_bytes
from pipeline.options import ShardsOptions
from pipeline.storage import side_files
from pipeline.system.errors import RunError
from tests.support.files import tree
from tests.support.photos import HEIGHT, WIDTH


def make(images: Path, folder: Path, **options: Any) -> None:
    settings = {"max_reject_fraction": 0.1, "workers": 1, "shards": 2, **options}
    preprocess.run(
        ShardsOptions(
            images=images,
            dataset=folder,
            contract=ImageContract(height=HEIGHT, width=WIDTH),
            **settings,
        )
    )


def begin(images: Path, folder: Path) -> None:
    """Commits every shard; the last step refuses the share of rejects."""
    with pytest.raises(RunError, match="images were rejected"):
        make(images, folder, max_reject_fraction=0.0)


@pytest.fixture
def root(images: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(images, tmp_path / "images"))


def another_picture(path: Path, by: Path) -> None:
    """Puts another photo in the place of one, with the same size and another time."""
    length = path.stat().st_size
    content = by.read_bytes()[:-2]
    assert len(content) < length
    path.write_bytes(content + b"\0" * (length - len(content) - 2) + b"\xff\xd9")
    assert path.stat().st_size == length


def test_a_changed_photo_is_seen(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its size; the dataset is that of a run that began after the change."""
    begin(root, tmp_path / "made")
    shutil.copy(root / "train/blue/00.jpg", root / "train/red/00.jpg")
    make(root, tmp_path / "made")
    make(root, tmp_path / "at once")
    assert tree(tmp_path / "made") == tree(tmp_path / "at once")
    assert re.search(
        r"1 committed shards hold photos that have changed since, and are made again: "
        r"train-0000[01]-of-00002\.tfrecord\n",
        capsys.readouterr().out,
    )


def test_a_changed_photo_of_the_same_size_is_seen(root: Path, tmp_path: Path) -> None:
    """By its time alone."""
    begin(root, tmp_path / "made")
    sizes = {path.stat().st_size: path for path in (root / "train").glob("*/0*.jpg")}
    smallest, largest = sizes[min(sizes)], sizes[max(sizes)]
    another_picture(largest, smallest)
    make(root, tmp_path / "made")
    make(root, tmp_path / "at once")
    assert tree(tmp_path / "made") == tree(tmp_path / "at once")


def test_a_changed_archive_is_seen(root: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()

    def pack() -> None:
        with tarfile.open(packed / "train.tar", "w") as tar:
            tar.add(root / "train", "train")

    pack()
    begin(packed, tmp_path / "made")
    shutil.copy(root / "train/blue/00.jpg", root / "train/red/00.jpg")
    pack()
    make(packed, tmp_path / "made")
    make(packed, tmp_path / "at once")
    assert tree(tmp_path / "made") == tree(tmp_path / "at once")


def test_what_has_not_changed_is_not_written_again(root: Path, tmp_path: Path) -> None:
    """Neither shards nor plans, each of which would be brought to disk once more."""
    folder = tmp_path / "made"
    begin(root, folder)
    kept = [*folder.glob("*.tfrecord"), *(folder / "_work" / "plan").iterdir()]
    assert len(kept) == 12
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in kept}
    (folder / "_work" / "plan" / "test-00000-of-00002.tfrecord.jsonl").write_text("[")
    begin(root, folder)
    after = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in kept}
    assert [path.name for path in kept if before[path] != after[path]] == [
        "test-00000-of-00002.tfrecord.jsonl"
    ]


def test_the_closing_rate_is_that_of_this_run(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "made"
    begin(root, folder)
    note = "train-00001-of-00002.tfrecord.json"
    length = json.loads((folder / "_work" / "done" / note).read_text())
    (folder / "_work" / "done" / note).unlink()
    made = length["note"]["shard"]["examples"] + len(length["note"]["tally"]["rejects"])
    make(root, folder)
    rate_line = capsys.readouterr().out.splitlines()[-2]
    seconds, rate, there = re.match(
        r"  ([\d.]+) s, (\d+) images/s, [\d.]+ MB/s; (\d+) images were there before",
        rate_line,
    ).groups()
    assert int(there) == 42 - made
    # 42 images in that time would be a rate of more than half as much again.
    assert int(rate) <= made / (float(seconds) - 0.05) + 1


# -------------------------------------------------------------- beside the folder


def test_the_source_is_noted_beside_the_folder(root: Path, tmp_path: Path) -> None:
    make(root, tmp_path / "made", seed=5)
    source = json.loads((tmp_path / "made.source.json").read_text())
    assert source["images"] == [str(root)]
    assert source["manifest"] is None
    assert source["folder"] == os.getcwd()
    assert source["flags"]["seed"] == 5
    assert (source["flags"]["height"], source["flags"]["width"]) == (HEIGHT, WIDTH)


def test_a_parent_that_cannot_be_written_costs_a_line(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here folders are in the way: root may write everywhere."""
    for name in ("made.log", "made.source.json"):
        (tmp_path / name / "x").mkdir(parents=True)
    make(root, tmp_path / "made")
    printed = capsys.readouterr()
    assert "42 images listed = 40 written + 2 rejected" in printed.out
    for name in ("made.log", "made.source.json"):
        lines = {*re.findall(rf"note: .*{re.escape(name)} .*\n", printed.out)}
        (line,) = lines
        assert "is left out: Is a directory. It is not needed." in line


def test_a_remote_run_does_without_its_log(tmp_path: Path) -> None:
    (tmp_path / "made.log").mkdir()
    handler = side_files.log_handler(tmp_path / "made.log")
    handler.handle(logging.makeLogRecord({}))


# ------------------------------------------------------------------- fingerprints


def test_what_a_fingerprint_sees(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for path in (one, other):
        path.write_bytes(b"12345678")
    uris = [str(one), image_bytes.in_tar(str(other), 0, 4), "s3://bucket/key\0005"]
    found = [image_bytes.fingerprint(uris)]

    def note() -> None:
        assert image_bytes.fingerprint(uris) == image_bytes.fingerprint(uris)
        found.append(image_bytes.fingerprint(uris))

    os.utime(one, ns=(0, 1))
    note()
    os.utime(other, ns=(0, 1))
    note()
    one.write_bytes(b"123456789")
    os.utime(one, ns=(0, 1))
    note()
    one.unlink()
    note()
    uris[1] = image_bytes.in_tar(str(other), 0, 5)
    note()
    uris[2] = image_bytes.in_store("s3://bucket/key", 6)
    note()
    assert len(set(found)) == len(found) == 7


def test_a_fingerprint_is_not_of_a_place(tmp_path: Path) -> None:
    """Photos that were moved, with their times, are the same photos."""
    (tmp_path / "one").write_bytes(b"1")
    before = image_bytes.fingerprint([str(tmp_path / "one")])
    (tmp_path / "one").rename(tmp_path / "two")
    assert image_bytes.fingerprint([str(tmp_path / "two")]) == before
