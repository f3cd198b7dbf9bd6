"""An array in memory that a process and its children see: nothing goes by a pipe."""

import math
import mmap
import os
from multiprocessing import reduction
from typing import Any

import numpy as np


class SharedArray:
    """float32[shape], all zeros at first.

    Memory without a name, that goes with the last process that has it. When a child is
    started with it as an argument, the child's is the same memory.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        descriptor = os.memfd_create("predictions")
        os.ftruncate(descriptor, math.prod(shape) * np.float32().itemsize)
        self._map(descriptor, shape)

    def _map(self, descriptor: int, shape: tuple[int, ...]) -> None:
        self._descriptor = descriptor
        self.array = np.frombuffer(mmap.mmap(descriptor, 0), np.float32).reshape(shape)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (reduction.DupFd(self._descriptor), self.array.shape)

    def __del__(self) -> None:
        os.close(self._descriptor)


def _again(descriptor: Any, shape: tuple[int, ...]) -> SharedArray:
    """The array of the parent, in a child."""
    array = SharedArray.__new__(SharedArray)
    array._map(descriptor.detach(), shape)
    return array
