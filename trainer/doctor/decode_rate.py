"""How fast this node decodes JPEGs, by bare TensorFlow kernels in Python threads."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf

# Measures for about so many seconds; returns images/s.
Rate = Callable[[float], float]


def decode_jpeg(jpegs: Sequence[bytes], *, batch_size: int, threads: int) -> Rate:
    """Measures bare `tf.io.decode_jpeg` in Python threads; nobody takes the pixels.

    Args:
        jpegs: in memory; at least a batch for every thread.
        batch_size: decoded in one call.
        threads: each has its own images.
    """

    @tf.function(input_signature=[tf.TensorSpec([batch_size], tf.string)])
    def corners(batch: tf.Tensor) -> tf.Tensor:
        images = [
            tf.io.decode_jpeg(one, channels=3, dct_method="INTEGER_ACCURATE")
            for one in tf.unstack(batch)
        ]
        return tf.stack([image[0, 0, 0] for image in images])  # or nothing is decoded

    batches = [tf.constant(batch) for batch in full_batches(jpegs, batch_size)]
    return in_threads(corners, batches, threads=threads, batch_size=batch_size)


def full_batches(values: Any, batch_size: int) -> list[Any]:
    """Cuts a sequence or an array into full batches; leaves out the rest."""
    starts = range(0, len(values) - batch_size + 1, batch_size)
    return [values[start : start + batch_size] for start in starts]


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
