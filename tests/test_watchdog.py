"""A run that hangs ends, and shows where."""

import subprocess
import sys

from conftest import REPOSITORY

SCRIPT = """
import time
from trainer.training.hang_detection import Watchdog
with Watchdog(minutes={minutes}) as watchdog:
    for _ in range(10):
        time.sleep(0.1)
        watchdog.alive()
    print("went on", flush=True)
    if {hangs}:
        def collective_that_hangs():
            time.sleep(60)
        collective_that_hangs()
"""


def run(*, hangs: bool) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(minutes=0.5 / 60, hangs=hangs)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=30,
        check=False,
    )


def test_a_hang_ends_the_process_and_shows_the_stacks() -> None:
    result = run(hangs=True)
    assert result.returncode == 1
    assert result.stdout == "went on\n"
    assert "collective_that_hangs" in result.stderr
    assert "--all_reduce=hierarchical_copy" in result.stderr


def test_work_is_left_alone() -> None:
    result = run(hangs=False)
    assert (result.returncode, result.stderr) == (0, "")
