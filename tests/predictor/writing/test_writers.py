"""Files written by other processes: whole, or not there, whatever happens to these."""

import csv
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from pipeline.dataset.ledger import Reject
from pipeline.storage.resumable_folder import WORK, ResumableFolder
from pipeline.system.errors import RunError
from predictor.format.file_format import Format
from predictor.format.predictions_manifest import MANIFEST
from predictor.writing.writers import Writers
from tests.support.files import REPOSITORY
from tests.support.processes import children

NAMES = [f"predictions-0000{n}-of-00003.csv" for n in range(3)]
CLASSES = ["a", "b, c", "d"]
BAD = Reject("bad.jpg", "test", "", "damaged", "cut short")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """PREDICTIONS, started."""
    folder = tmp_path / "predictions"
    ResumableFolder(folder, manifest=MANIFEST).start({})
    return folder


def writers(
    folder: Path, *, rows: int = 4, count: int = 1, **format: object
) -> Writers:
    return Writers(folder, Format(**format), CLASSES, rows=rows, count=count)


def batch(name: str, number: int, rows: int = 4) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng([NAMES.index(name), number])
    ids = [f"{name[12:17]}/{number}-{row}.jpg" for row in range(rows)]
    return ids, rng.random((rows, len(CLASSES)), np.float32)


def processes() -> list[int]:
    """Of the writers; Python's own helper is started before them."""
    return [pid for pid in children(os.getpid()) if b"child_process" in command(pid)]


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def names(folder: Path) -> set[str]:
    """Everything but the notes: also what is unfinished, in the work folder."""
    everything = {path.name for path in folder.rglob("*") if path.is_file()}
    return everything - {"run.json"}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_file_has_its_rows_in_order(folder: Path, count: int) -> None:
    """Batches of three files in turn, the last ones shorter."""
    with writers(folder, count=count) as writing:
        for number in range(5):
            for name in NAMES:
                writing.write(name, *batch(name, number, rows=4 if number < 4 else 1))
        for name in NAMES:
            writing.end(name, [BAD] if name == NAMES[1] else [])
        writing.finish()
    work = ResumableFolder(folder, manifest=MANIFEST)
    for name in NAMES:
        batches = [batch(name, n, rows=4 if n < 4 else 1) for n in range(5)]
        ids = [image_id for ids, _ in batches for image_id in ids]
        values = np.concatenate([values for _, values in batches])
        with (folder / name).open(newline="") as file:
            header, *rows = csv.reader(file)
        assert header == ["id", *CLASSES]
        assert [row[0] for row in rows] == ids
        np.testing.assert_array_equal(
            np.array([row[1:] for row in rows], np.float32), values
        )
        note, content = work.note(name), (folder / name).read_bytes()
        assert note["entry"] == {
            "file": name,
            "rows": 17,
            "bytes": len(content),
            "crc32c": google_crc32c.Checksum(content).hexdigest().decode(),
            "ids_sha256": hashlib.sha256(
                b"".join(image_id.encode() + b"\0" for image_id in ids)
            ).hexdigest(),
            "rejected": int(name == NAMES[1]),
        }
        assert note["rejects"] == ([list(BAD)] if name == NAMES[1] else [])


def test_a_file_without_rows_is_its_header(folder: Path) -> None:
    with writers(folder) as writing:
        writing.end(NAMES[0], [BAD])
        writing.finish()
    assert (folder / NAMES[0]).read_text() == 'id,a,"b, c",d\n'
    note = ResumableFolder(folder, manifest=MANIFEST).note(NAMES[0])
    assert (note["entry"]["rows"], note["entry"]["rejected"]) == (0, 1)


def test_many_files_without_rows(folder: Path) -> None:
    """More answers than a pipe holds, before anything asks for one."""
    rejects = [Reject(f"{n}.jpg", "test", "", "damaged", "x" * 50) for n in range(50)]
    with writers(folder) as writing:
        for number in range(1000):
            writing.end(f"predictions-{number:05d}-of-01000.csv", rejects)
        writing.finish()
    assert len(list(folder.glob("*.csv"))) == 1000


def test_a_batch_may_have_very_long_ids(folder: Path) -> None:
    """A request larger than the pipe."""
    ids = [f"{n}" * 4000 + ".jpg" for n in range(4)]
    with writers(folder) as writing:
        for number in range(30):
            unique = [f"{number}/{image_id}" for image_id in ids]
            writing.write(NAMES[0], unique, np.zeros((4, 3), np.float32))
        writing.end(NAMES[0], [])
        writing.finish()
    assert (folder / NAMES[0]).read_bytes().count(b"\n") == 121


def until_begun(folder: Path, count: int = 1) -> None:
    deadline = time.monotonic() + 30
    while len(list((folder / WORK).glob(".scratch-*"))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("format", [{}, {"compression": "gzip"}, {"parquet": True}])
def test_a_killed_writer_ends_the_run(folder: Path, format: dict) -> None:
    """In the middle of two files; a third, which is whole, stays."""
    extension = Format(**format).extension
    first, second, third = (name.replace(".csv", extension) for name in NAMES)
    lost = pytest.raises(
        RunError, match=r"was lost \(the process ended: SIGKILL\)\. Is"
    )
    with lost, writers(folder, **format) as writing:
        writing.write(first, *batch(NAMES[0], 0))
        writing.end(first, [])
        writing.finish()
        for name in (second, third):
            writing.write(name, *batch(NAMES[1], 0))
        until_begun(folder, 2)
        (process,) = processes()
        os.kill(process, signal.SIGKILL)
        for number in range(10):
            writing.write(second, *batch(NAMES[1], number))
    assert names(folder) == {first, f"{first}.json"}
    assert not processes()


def test_a_writer_that_is_killed_while_the_end_is_awaited(folder: Path) -> None:
    lost = pytest.raises(RunError, match="SIGKILL")
    with lost, writers(folder) as writing:
        writing.write(NAMES[0], *batch(NAMES[0], 0))
        until_begun(folder)
        (process,) = processes()
        os.kill(process, signal.SIGSTOP)
        writing.end(NAMES[0], [])
        killer = subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -9 {process}"])
        writing.finish()
    killer.wait()
    assert names(folder) == set()


@pytest.mark.parametrize("error", [RunError, KeyboardInterrupt])
def test_an_error_here_leaves_nothing_unfinished(folder: Path, error: type) -> None:
    raised = pytest.raises(error)
    with raised, writers(folder, count=2) as writing:
        for name in NAMES[:2]:
            writing.write(name, *batch(name, 0))
        until_begun(folder, 2)
        raise error
    assert names(folder) == set()
    assert not processes()


PARENT = """
import sys
import itertools
from pathlib import Path
from tests.predictor.writing.test_writers import NAMES, batch, writers

if __name__ == "__main__":
    with writers(Path(sys.argv[1]), count=2) as writing:
        for number in itertools.count():
            for name in NAMES[:2]:
                writing.write(name, *batch(name, number))
"""


def test_writers_end_with_a_run_that_is_killed(folder: Path) -> None:
    words = [sys.executable, "-c", PARENT, folder]
    parent = subprocess.Popen(words, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    until_begun(folder, 2)
    below = children(parent.pid)
    assert len(below) == 2
    parent.kill()
    _, errors = parent.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while any(map(command, below)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert errors == ""
    assert not list(folder.glob("*.csv"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 KB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    "format",
    [{}, {"compression": "gzip"}, {"compression": "zstd"}, {"parquet": True}],
)
def test_a_full_disk(small_disk: Path, format: dict) -> None:
    """What was committed stays, nothing else; the message is the system's."""
    folder = small_disk / "predictions"
    ResumableFolder(folder, manifest=MANIFEST).start({})
    first, second, _ = (
        name.replace(".csv", Format(**format).extension) for name in NAMES
    )
    rows = 4000
    full = pytest.raises(OSError, match="No space left on device")
    with full as raised, writers(folder, rows=rows, **format) as writing:
        writing.write(first, *batch(NAMES[0], 0))
        writing.end(first, [])
        writing.finish()
        for number in range(30):
            writing.write(second, *batch(NAMES[1], number, rows))
        writing.end(second, [])
        writing.finish()
    assert raised.value.errno == 28
    assert names(folder) == {first, f"{first}.json"}


def test_a_file_that_cannot_be_committed(folder: Path) -> None:
    refused = pytest.raises(IsADirectoryError)
    with refused, writers(folder) as writing:
        writing.write(NAMES[0], *batch(NAMES[0], 0))
        until_begun(folder)
        (folder / NAMES[0]).mkdir()
        writing.end(NAMES[0], [])
        writing.finish()
    assert names(folder) == set()
