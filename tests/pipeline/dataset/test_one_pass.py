"""`verify` reads every byte of a shard once, for its checksum and its records."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.dataset import manifest, record, shard_check
from pipeline.dataset.record import BadRecordError
from pipeline.dataset.shard_check import Task
from tests.support.files import REPOSITORY

SHARD = "train-00000-of-00002.tfrecord"

# Counts what comes by read(2) from files that are opened by a path ending in SHARD.
COUNTING = """
import io, sys
from pathlib import Path
from pipeline.dataset import manifest, shard_check
from pipeline.dataset.shard_check import Task
read = 0
class Counting(io.FileIO):
    def readinto(self, buffer):
        global read
        count = super().readinto(buffer)
        read += count
        return count
real = Path.open
def opened(path, mode="r", *rest, **options):
    if path.suffix == ".tfrecord" and mode == "rb":
        return io.BufferedReader(Counting(path))
    return real(path, mode, *rest, **options)
Path.open = opened
dataset = manifest.load(Path(sys.argv[1]))
shard = dataset.split("train").shards[0]
labels = len(dataset.classes)
task = Task(dataset.folder, "train", shard, dataset.image, labels, dataset.classes)
report = shard_check.check(task)
print(read, shard.bytes, report.whole, report.problems.count)
"""


@pytest.mark.parametrize("damage", [None, 300])
def test_every_byte_is_read_once(dataset: Path, damage: int | None) -> None:
    if damage is not None:
        content = bytearray((dataset / SHARD).read_bytes())
        content[damage] ^= 1
        (dataset / SHARD).write_bytes(content)
    result = subprocess.run(
        [sys.executable, "-c", COUNTING, dataset],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    read, length, whole, problems = result.stdout.split()
    assert read == length
    assert (whole, problems) == (("True", "0") if damage is None else ("False", "2"))


@pytest.mark.parametrize("cut", [None, 3, 1000])
def test_the_digest_is_that_of_the_file(dataset: Path, cut: int | None) -> None:
    """Also where the records end before the file, or the file before a record."""
    path = dataset / SHARD
    content = path.read_bytes()
    if cut:
        path.write_bytes(content[:cut] + b"x" + content[cut:-5])
    digest = hashlib.sha256()
    try:
        count = sum(1 for _ in record.read(path, digest))
    except BadRecordError:
        count = -1
    assert (count == -1) == bool(cut)
    assert digest.hexdigest() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_file_is_named_before_its_records(dataset: Path, tmp_path: Path) -> None:
    """Of many problems five are told: the one that explains the others is first."""
    loaded = manifest.load(dataset)
    shard = loaded.split("train").shards[0]
    shutil.copy(dataset / "validation-00000-of-00002.tfrecord", dataset / SHARD)
    task = Task(dataset, "train", shard, loaded.image, 0, loaded.classes)
    problems = shard_check.check(task).problems
    assert problems.lines[0].startswith(f"{SHARD}: has ")
    assert len(problems.lines) == 5
    assert problems.count > 5
