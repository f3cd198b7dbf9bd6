"""Images per second of threads."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf

# Measures for about so many seconds; returns images/s.
Rate = Callable[[float], float]


def in_threads(
    function: Callable[[Any], Any],
    batches: Sequence[Any],
    *,
    threads: int,
    batch_size: int,
) -> Rate:
    """Measures a function of a batch, in Python threads that share out the batches.

    Args:
        function: holds no lock of Python's while it works.
        batches: one for every thread at least; taken again and again.
        threads: how many.
        batch_size: images in a batch.
    """
    shares = [itertools.cycle(batches[number::threads]) for number in range(threads)]

    def of_share(share: Iterator[Any], seconds: float) -> float:
        return _while(seconds, lambda: function(next(share)))

    def rate(seconds: float) -> float:
        function(batches[0])
        with ThreadPoolExecutor(threads) as pool:
            running = [pool.submit(of_share, share, seconds) for share in shares]
            return sum(one.result() for one in running) * batch_size

    return rate


def _while(seconds: float, step: Callable[[], Any]) -> float:
    """Steps per second, over at least so many seconds."""
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        step()
        steps += 1
    tf.test.experimental.sync_devices()  # a GPU may have some still to do
    return steps / (time.perf_counter() - started)
