"""Measurements in a process of their own, on so many cores."""

import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

from pipeline import resources
from pipeline.manifest import Dataset
from trainer import dataset as data
from trainer import rates
from trainer.stores import in_memory

_SEED = 1


class Start(NamedTuple):
    """A process that has just imported TensorFlow.

    Attributes:
        first_batch: seconds until it has one.
        rate: images/s after that.
    """

    first_batch: float
    rate: float


def start(dataset: Dataset, *, cores: int, batch_size: int, seconds: float) -> Start:
    """Feeds from shards on so many of the cores, in a fresh process."""
    return _in_process(cores, _start, dataset, batch_size, seconds)


def memory(
    dataset: Dataset, *, cores: int, batch_size: int, epochs: int, cached: bool
) -> list[float]:
    """Resident megabytes of a fresh process, after each of so many epochs.

    Args:
        dataset: its train split is fed.
        cores: how many.
        batch_size: of the batches, which are thrown away.
        epochs: how many.
        cached: from decoded pictures, instead of from shards.
    """
    return _in_process(cores, _memory, dataset, batch_size, epochs, cached)


def _start(dataset: Dataset, batch_size: int, seconds: float) -> Start:
    started = time.perf_counter()
    stream = iter(data.for_training(dataset, batch_size=batch_size, seed=_SEED))
    next(stream)
    first = time.perf_counter() - started
    return Start(first, rates.of_batches(lambda: stream, batch_size)(seconds))


def _memory(
    dataset: Dataset, batch_size: int, epochs: int, cached: bool
) -> list[float]:
    if cached:
        store = in_memory(dataset, "train")
        stream = data.from_store(store, batch_size=batch_size, seed=_SEED)
    else:
        stream = data.for_training(dataset, batch_size=batch_size, seed=_SEED)
    batches = iter(stream)
    found = []
    for _ in range(epochs):
        for _ in range(data.steps_per_epoch(dataset, batch_size)):
            next(batches)
        found.append(_resident())
    return found


def _resident() -> float:
    """Megabytes of memory that this process has now."""
    with open("/proc/self/statm", encoding="ascii") as numbers:
        pages = int(numbers.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _in_process(cores: int, function: Callable[..., Any], *arguments: Any) -> Any:
    context = multiprocessing.get_context("spawn")
    with (
        _pinned(cores),
        ProcessPoolExecutor(1, context, initializer=_as_in_training) as pool,
    ):
        return pool.submit(function, *arguments).result()


@contextlib.contextmanager
def _pinned(cores: int) -> Iterator[None]:
    """Processes that are started here have so many cores, from their first moment."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _as_in_training() -> None:
    resources.limit_arenas()
    # TensorFlow's notes, which nothing else stops; errors are handed over.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
