"""For tests that kill a process before each of its steps on disk."""

import os
import signal
from collections.abc import Callable

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
