"""Measurements in a process of their own, on so many cores."""

import contextlib
import io
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import unsaved_training
from pipeline.dataset.manifest import Dataset
from pipeline.system import resources
from pipeline.system.child_process import end_with_the_parent
from trainer.cache.features import Features
from trainer.cache.in_memory import in_memory
from trainer.data import input_pipeline as data
from trainer.doctor import throughput
from trainer.recipe import Recipe
from trainer.training import distribution

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
    """MemoryUse megabytes of a fresh process, after each of so many epochs.

    Args:
        dataset: its train split is fed.
        cores: how many.
        batch_size: of the batches, which are thrown away.
        epochs: how many.
        cached: from decoded pictures, instead of from shards.
    """
    return _in_process(cores, _memory, dataset, batch_size, epochs, cached)


class MemoryUse(NamedTuple):
    """Megabytes of memory.

    Attributes:
        own: that nothing else can have.
        mapped: of files, which the kernel can drop.
        peak: of both, at once.
    """

    own: float
    mapped: float
    peak: float


def training(
    dataset: Dataset,
    recipe: Recipe,
    *,
    features: Features | None,
    folder: Path,
    virtual_devices: int | None,
    cpu: bool,
) -> MemoryUse:
    """Memory of a fresh process after an epoch and its validation.

    Args:
        dataset, recipe, features, folder: see unsaved_training.start.
        virtual_devices, cpu: see distribution.strategy.
    """
    return _in_process(
        resources.cores(),
        _training,
        *(dataset, recipe, features, folder, virtual_devices, cpu),
    )


def _start(dataset: Dataset, batch_size: int, seconds: float) -> Start:
    started = time.perf_counter()
    stream = iter(data.for_training(dataset, batch_size=batch_size, seed=_SEED))
    next(stream)
    first = time.perf_counter() - started
    return Start(first, throughput.of_batches(lambda: stream, batch_size)(seconds))


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


def _training(
    dataset: Dataset,
    recipe: Recipe,
    features: Features | None,
    folder: Path,
    virtual_devices: int | None,
    cpu: bool,
) -> MemoryUse:
    with contextlib.redirect_stdout(io.StringIO()):
        strategy = distribution.strategy(virtual_devices=virtual_devices, cpu=cpu)
        one = unsaved_training.start(
            dataset, recipe, strategy, features=features, folder=folder
        )
    with one:
        one.epoch()
        if one.validates:
            one.validate()
        return MemoryUse(*map(_status, ("RssAnon", "RssFile", "VmHWM")))


def _status(name: str) -> float:
    """Megabytes, of a line of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024 / 1e6
    raise KeyError(name)


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
    end_with_the_parent()
    resources.limit_arenas()
    # TensorFlow's notes, which nothing else stops; errors are handed over.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
