"""Programs and their processes."""

import multiprocessing.context
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path


def children(pid: int) -> list[int]:
    found = subprocess.run(
        ["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in found.stdout.split()]


def wait_for_shards(folder: Path, process: subprocess.Popen[str]) -> None:
    """Waits until some shards are committed, but not all."""
    while len(list(folder.glob("_work/done/*"))) < 3:
        assert process.poll() is None
        time.sleep(0.02)


Program = Callable[..., subprocess.CompletedProcess[str]]


def descendants(pid: int) -> list[int]:
    below = children(pid)
    return below + [deeper for child in below for deeper in descendants(child)]


def started(
    context: multiprocessing.context.ForkServerContext,
    target: Callable[..., None],
    *arguments: object,
) -> BaseProcess:
    """Starts a process; returns when `target` begins.

    A signal before that meets the code of multiprocessing, which ends with code 1.
    """
    begun = context.Event()
    process = context.Process(target=_begin, args=(begun, target, *arguments))
    process.start()
    assert begun.wait(300)
    return process


def _begin(begun: Event, target: Callable[..., None], *arguments: object) -> None:
    try:
        begun.set()
        target(*arguments)
    except KeyboardInterrupt:
        sys.exit(130)
