"""Tasks in processes: in order, and none of them outlives who gave the tasks."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.system import process_pool
from pipeline.system.errors import RunError
from tests.support.files import REPOSITORY

SECONDS = 60  # for processes to start, or to end


def square(number: int) -> int:
    return number**2


def fail(number: int) -> int:
    raise ValueError(f"no {number}")


def kill_oneself(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def note_oneself(task: tuple[Path, float]) -> None:
    """Leaves a file with the name of the process, and takes its time."""
    folder, seconds = task
    (folder / str(os.getpid())).touch()
    time.sleep(seconds)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers: int) -> None:
    found = process_pool.each(square, range(7), workers=workers, of="squares")
    assert list(found) == [0, 1, 4, 9, 16, 25, 36]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_task_raises_is_raised(workers: int) -> None:
    with pytest.raises(ValueError, match="no 0"):
        list(process_pool.each(fail, [0, 1], workers=workers, of="squares"))


def test_a_killed_process() -> None:
    with pytest.raises(RunError, match=r"a process of squares was killed.*--workers"):
        list(process_pool.each(kill_oneself, [0, 1], workers=2, of="squares"))


def test_no_process_outlives_its_parent(tmp_path: Path) -> None:
    """Killed by `kill -9`, with one process at work and one that waits for a task."""
    script = """
import sys
from pathlib import Path
from pipeline.system import process_pool
from tests.pipeline.system.test_process_pool import note_oneself

folder = Path(sys.argv[1])
tasks = [(folder, 0.5), (folder, 600)]
list(process_pool.each(note_oneself, tasks, workers=2, of="notes"))
"""
    path = str(REPOSITORY)
    parent = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], env={**os.environ, "PYTHONPATH": path}
    )
    try:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
        processes = [int(file.name) for file in tmp_path.iterdir()]
        time.sleep(1)  # now one of them waits
        assert all(map(runs, processes))
    finally:
        parent.kill()
        parent.wait()
    try:
        wait_until(lambda: not any(map(runs, processes)))
    finally:
        for process in filter(runs, processes):
            os.kill(process, signal.SIGKILL)


def wait_until(condition) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def runs(process: int) -> bool:
    return os.path.exists(f"/proc/{process}/exe")  # of a zombie a broken link
