"""Memory that a process and its children see."""

import gc
import os

import numpy as np

from pipeline.system.child_process import Child
from predictor.writing.shared_array import SharedArray


class Double:
    """Doubles rows in place; each takes a row, as a request."""

    def __init__(self, shared: SharedArray) -> None:
        self._shared = shared

    def __call__(self, row: int) -> float:
        self._shared.array[row] *= 2
        return float(self._shared.array[row].sum())


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_zeros_of_a_shape() -> None:
    array = SharedArray((2, 3, 5)).array
    assert (array.shape, array.dtype) == ((2, 3, 5), np.float32)
    assert not array.any()


def test_what_one_process_writes_the_other_reads() -> None:
    shared = SharedArray((3, 4))
    worker: Child[int, float] = Child(Double, shared, shared=[shared.descriptor])
    shared.array[:] = np.arange(12).reshape(3, 4)
    worker.ask(1)
    assert worker.answer() == 2 * (4 + 5 + 6 + 7)
    np.testing.assert_array_equal(shared.array[1], [8, 10, 12, 14])
    np.testing.assert_array_equal(shared.array[2], [8, 9, 10, 11])
    worker.end()


def test_nothing_is_left_of_it() -> None:
    gc.collect()
    before = descriptors()
    for _ in range(20):
        shared = SharedArray((1, 1))
        shared.array[0] = 1
    del shared
    gc.collect()
    assert descriptors() == before
