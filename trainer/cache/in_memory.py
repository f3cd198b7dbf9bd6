"""A content in memory."""

import math
import mmap
from typing import Any

import numpy as np

from trainer.cache.content import LABELS, Content


def fill(content: Content) -> dict[str, np.ndarray]:
    """Makes a content, and returns its columns."""
    columns = {
        name: allocate((content.rows, *shape), dtype)
        for name, (dtype, shape) in content.columns.items()
    }
    at = 0
    for batch in content.make(0):
        end = at + len(batch[LABELS])
        for name, rows in batch.items():
            columns[name][at:end] = rows
        at = end
    return columns


def allocate(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Returns an array at the start of a page; np.empty aligns to 16 bytes only."""
    count = np.dtype(dtype).itemsize * math.prod(shape)
    memory = mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, dtype).reshape(shape)
