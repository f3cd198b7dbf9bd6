"""An array in memory that a process and its children see: nothing goes by a pipe."""

import math
import mmap
import os
from typing import Any

import numpy as np


class SharedArray:
    """float32[shape], all zeros at first.

    Memory without a name, that goes with the last process that has it. The array of a
    child that is started with its descriptor among `shared` is the same memory.

    Attributes:
        array: float32[shape].
        descriptor: of the memory.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        descriptor = os.memfd_create("predictions")
        os.ftruncate(descriptor, math.prod(shape) * np.float32().itemsize)
        self._map(descriptor, shape)

    def _map(self, descriptor: int, shape: tuple[int, ...]) -> None:
        self.descriptor = descriptor
        self.array = np.frombuffer(mmap.mmap(descriptor, 0), np.float32).reshape(shape)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.descriptor, self.array.shape)

    def __del__(self) -> None:
        os.close(self.descriptor)


def _again(descriptor: int, shape: tuple[int, ...]) -> SharedArray:
    """Returns the array of the parent, in a child."""
    array = SharedArray.__new__(SharedArray)
    array._map(descriptor, shape)
    return array
