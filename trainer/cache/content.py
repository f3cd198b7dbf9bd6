"""What a cache holds of a split, as columns of arrays: here pixels, elsewhere features.

`in_memory` and `on_disk` fill columns of any content; `stores.Rows` serves them.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.dataset.manifest import Dataset
from pipeline.system.console import progress
from trainer import hang_detection
from trainer.data import input_pipeline as data

LABELS, PIXELS = "labels", "pixels"

_DECODED_TOGETHER = 64
_PART_ROWS = 16 * _DECODED_TOGETHER  # that are committed to disk at once

# Arrays with the same number of rows, by the name of their column.
Batch = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Content:
    """What is kept of a split: a row for each example, in the order of the shards.

    Attributes:
        what: in words.
        key: everything that decides the values, as JSON.
        columns: dtype and shape of a row, by name; LABELS is int64[].
        rows: of all batches.
        part_rows: that are committed to disk at once; whole batches.
        batches: yields the batches from a row on, where a part begins.
    """

    what: str
    key: Mapping[str, Any]
    columns: Mapping[str, tuple[Any, tuple[int, ...]]]
    rows: int
    part_rows: int
    batches: Callable[[int], Iterator[Batch]]

    @property
    def row_bytes(self) -> dict[str, int]:
        """Returns the bytes of a row of each column."""
        return {
            name: np.dtype(dtype).itemsize * math.prod(shape)
            for name, (dtype, shape) in self.columns.items()
        }

    def make(self, first: int) -> Iterator[Batch]:
        """Yields the batches from a row on, and shows the progress."""
        with progress(self.rows, f"caching {self.what}", done=first) as bar:
            for batch in self.batches(first):
                yield batch
                bar.update(len(batch[LABELS]))
                hang_detection.alive()


def pixels(dataset: Dataset, split: str) -> Content:
    """Describes the decoded images of a split: uint8[height, width, 3] a row."""
    shards, image = dataset.split(split).shards, dataset.image

    def batches(first: int) -> Iterator[Batch]:
        decoded = data.for_inference(
            dataset, shards, batch_size=_DECODED_TOGETHER, first=first
        )
        for _, images, labels in decoded.as_numpy_iterator():
            yield {PIXELS: images, LABELS: labels}

    return Content(
        what=f"pixels of {split}",
        key={  # the decoder is TensorFlow's
            "dataset": dataset.fingerprint,
            "split": split,
            "tensorflow": tf.__version__,
        },
        columns={
            PIXELS: (np.uint8, (image.height, image.width, 3)),
            LABELS: (np.int64, ()),
        },
        rows=dataset.split(split).examples,
        part_rows=_PART_ROWS,
        batches=batches,
    )
