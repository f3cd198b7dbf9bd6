"""For tests that kill a process before each of its steps on disk."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

from tests.support.files import REPOSITORY

STEPS = ("replace", "fsync", "unlink", "mkdir", "rmdir")  # of the module `os`


def kill_before_step(step: int) -> None:
    """Has this process kill itself before its nth step, from 0."""
    left = step

    def counted(real: Callable) -> Callable:
        def call(*args: object, **options: object) -> object:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return real(*args, **options)

        return call

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))


_PROGRAM = """
import runpy, sys
from tests.support.kill_steps import kill_before_step
step, program, *words = sys.argv[1:]
sys.argv = [program, *words]
kill_before_step(int(step))
runpy.run_module(program, run_name="__main__", alter_sys=True)
"""


def run_until(step: int, program: str, words: Sequence[str]) -> bool:
    """Runs `python -m PROGRAM`, which kills itself before its nth step on disk.

    A process of its own: one that is forked has locks of Beam's threads, without them.

    Returns:
        Whether it got to its end.
    """
    command = [sys.executable, "-c", _PROGRAM, str(step), program, *words]
    result = subprocess.run(
        command,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode in (0, -signal.SIGKILL), result.stderr
    return result.returncode == 0
