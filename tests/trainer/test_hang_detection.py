"""A run that hangs ends, and shows where; one that is slow goes on."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.files import REPOSITORY

pytestmark = pytest.mark.integration

SCRIPT = """
import io, sys, time
{before}
from trainer import hang_detection
with hang_detection.HangDetector(minutes={minutes}):
    for _ in range(10):
        time.sleep(0.1)
        hang_detection.alive()
    print("went on", flush=True)
    def collective_that_hangs(sleep):
        sleep(60)
    {hangs}
"""
WAITS = "collective_that_hangs(time.sleep)"
KEEPS_THE_LOCK = "import ctypes; collective_that_hangs(ctypes.PyDLL(None).sleep)"


def run(hangs: str, before: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-c",
            SCRIPT.format(minutes=0.5 / 60, hangs=hangs, before=before),
        ],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=30,
        check=False,
    )


def test_a_hang_ends_the_process_and_shows_the_stacks() -> None:
    result = run(WAITS)
    assert result.returncode == 1
    assert result.stdout == "went on\n"
    assert "collective_that_hangs" in result.stderr
    assert "--all_reduce=hierarchical_copy" in result.stderr


def test_a_call_that_keeps_the_lock_of_python_is_ended() -> None:
    """As a driver may, or a library of the math; no thread of Python can run."""
    result = run(KEEPS_THE_LOCK)
    assert result.returncode == 1
    assert result.stdout == "went on\n"
    assert "collective_that_hangs" in result.stderr


def test_a_hang_is_seen_where_stderr_is_no_file() -> None:
    """As in a notebook; what the timer prints goes to the process's own stderr."""
    result = run(KEEPS_THE_LOCK, before="sys.stderr = io.StringIO()")
    assert (result.returncode, result.stdout) == (1, "went on\n")


def test_work_is_left_alone() -> None:
    result = run("pass")
    assert (result.returncode, result.stderr) == (0, "")


# The program itself, on a disk that takes its time for every record that it reads in
# order, and for every piece of a cache that it checks; and for one of them for ever.
ON_A_SLOW_DISK = """
import os, runpy, sys, time
import google_crc32c
import tensorflow as tf
from pipeline.system import resources
from trainer.data import input_pipeline
from trainer.cache import content, on_disk, stores

seconds, stuck_at, *words = sys.argv[1:]
read, extend, pieces = input_pipeline.in_shard_order, google_crc32c.extend, []

def wait():
    pieces.append(None)
    time.sleep(3600 if len(pieces) == int(stuck_at) else float(seconds))

def after_a_while(record):
    wait()
    return record

def in_shard_order(*arguments):
    def slow(one):
        return tf.ensure_shape(tf.numpy_function(after_a_while, [one], tf.string), [])
    return read(*arguments).map(slow)

def extend_after_a_while(*arguments):
    wait()
    return extend(*arguments)

input_pipeline.in_shard_order = in_shard_order
google_crc32c.extend = extend_after_a_while
if "FREE_MEMORY" in os.environ:
    resources.free_memory = lambda: int(os.environ["FREE_MEMORY"])
stores._FILL_BATCH = content._DECODED_TOGETHER = 1
content._PART_ROWS = 4
on_disk._CHECKED_TOGETHER = 4096
sys.argv = ["trainer", *words]
runpy.run_module("trainer", run_name="__main__", alter_sys=True)
"""
HANG_SECONDS = 9  # more than the first step takes
PIECES = 33  # 24 records to train on, and 9 to validate


def train(
    dataset: Path, folder: Path, *flags: str, seconds: float = 0.4, stuck_at: int = 0
) -> subprocess.CompletedProcess[str]:
    words = [
        *(f"--dataset={dataset}", f"--model={folder}", "--recipe=article", "--cpu"),
        *("--weights=none", "--batch_size=8", "--epochs=1", "--seed=3"),
        f"--hang_minutes={HANG_SECONDS / 60}",
    ]
    script = [sys.executable, "-c", ON_A_SLOW_DISK, str(seconds), str(stuck_at)]
    return subprocess.run(
        [*script, *words, *flags],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=300,
        check=False,
    )


def test_a_slow_fill_is_no_hang(made_dataset: Path, tmp_path: Path) -> None:
    """Of JPEGs, in memory; the pauses together are longer than a hang."""
    assert PIECES * 0.4 > HANG_SECONDS
    result = train(made_dataset, tmp_path / "model", "--cache=encoded")
    assert result.returncode == 0, result.stderr[-3000:]
    assert (tmp_path / "model" / "model.keras").exists()


def test_a_fill_that_stands_still_is_ended(made_dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    result = train(made_dataset, folder, "--cache=encoded", seconds=0, stuck_at=20)
    assert result.returncode == 1
    assert "nothing has happened for 0.15 minutes" in result.stderr
    assert "after_a_while" in result.stderr  # the stack of the thread that hangs
    assert not (folder / "model.keras").exists()


def touch(cache: Path) -> None:
    """Has the next run check the files: those that nobody touched are not read."""
    for path in cache.rglob("*.npy"):
        path.touch()


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["decoded", "features"])
def test_a_slow_fill_and_a_slow_check_on_disk_are_no_hang(
    made_dataset: Path, tmp_path: Path, monkeypatch, cache: str
) -> None:
    """The second run checks what the first one has made."""
    monkeypatch.setenv("FREE_MEMORY", "1000")  # or pixels would stay in memory
    flags = [f"--cache={cache}", f"--cache_dir={tmp_path / 'cache'}"]
    for name in ("first", "second"):
        touch(tmp_path / "cache")
        result = train(made_dataset, tmp_path / name, *flags)
        assert result.returncode == 0, result.stderr[-3000:]
        assert f"cache: {cache}, on disk" in result.stdout
    assert result.stdout.count("is complete\n") == 2


@pytest.mark.slow
def test_a_check_that_stands_still_is_ended(made_dataset: Path, tmp_path: Path) -> None:
    flags = ["--cache=features", f"--cache_dir={tmp_path / 'cache'}"]
    result = train(made_dataset, tmp_path / "first", *flags, seconds=0)
    assert result.returncode == 0, result.stderr[-3000:]
    touch(tmp_path / "cache")
    result = train(made_dataset, tmp_path / "second", *flags, seconds=0, stuck_at=5)
    assert result.returncode == 1
    assert "extend_after_a_while" in result.stderr
