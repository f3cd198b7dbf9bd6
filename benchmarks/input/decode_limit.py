"""The limit of JPEG decoding: libjpeg-turbo alone, one process for every core."""

import time
from collections.abc import Callable, Sequence

import simplejpeg

from pipeline.system import parallel_timing
from trainer.doctor.throughput import Rate


def limit(jpegs: Sequence[bytes], *, processes: int) -> Rate:
    """The rate of decoding JPEGs from memory into pixels that nobody takes."""

    def rate(seconds: float) -> float:
        shares = [(jpegs[number::processes], seconds) for number in range(processes)]
        counts, took = parallel_timing.in_step(_prepare, shares)
        return sum(counts) / took

    return rate


def _prepare(jpegs: Sequence[bytes], seconds: float) -> Callable[[], int]:
    def decode_for_a_while() -> int:
        count, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            simplejpeg.decode_jpeg(jpegs[count % len(jpegs)])
            count += 1
        return count

    return decode_for_a_while
