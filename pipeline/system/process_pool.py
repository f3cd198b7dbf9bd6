"""Processes that take tasks one after another, and end with who gave them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TypeVar

from pipeline.system.errors import RunError

Task = TypeVar("Task")
Result = TypeVar("Result")


def each(
    function: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int, of: str
) -> Generator[Result, None, None]:
    """Yields what comes of every task, in order; to be closed when it is left early.

    Args:
        function: at the top of a module; it has nothing to lose when it is ended.
        tasks: what it is given.
        workers: processes; one does without any.
        of: the program, for errors.

    Raises:
        RunError: one of the processes was killed.
    """
    workers = min(workers, len(tasks))
    if workers < 2:
        yield from map(function, tasks)
        return
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
    )
    try:
        yield from pool.map(function, tasks)
    except BrokenProcessPool as error:
        raise RunError(
            f"a process of {of} was killed. Is the memory full? Run it again, with "
            "fewer --workers."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """In each process, before its first task."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the pool
    end_with_the_parent()


def end_with_the_parent() -> None:
    """Has this child process end when its parent is gone, even by `kill -9`.

    A process of a pool holds both ends of the pipe that tasks come by, so that it never
    sees the end of it; one that hangs in a task does not look at its pipe.
    """
    threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
