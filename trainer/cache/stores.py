"""Whole splits at hand by position: rows of a content, or JPEGs that are decoded."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.dataset import record
from pipeline.dataset.manifest import Dataset
from pipeline.system import resources
from pipeline.system.console import progress
from trainer import hang_detection
from trainer.cache.content import LABELS, PIXELS
from trainer.data import input_pipeline as data

_FILL_BATCH = 64
_ALIGNMENT = 64  # bytes: what TensorFlow takes without a copy


class Rows:
    """The columns of a content.

    Attributes:
        examples, serve: see input_pipeline.Store. An element has the pixels, or the
            columns of features by name, and the labels.
        rows: uint8[examples, height, width, 3], or the columns of features by name.

    Raises:
        ValueError: a column does not begin at a multiple of 64 bytes.
    """

    def __init__(self, columns: Mapping[str, np.ndarray]) -> None:
        self.examples = len(columns[LABELS])
        self.rows: Any = columns.get(PIXELS)
        if self.rows is None:
            self.rows = {name: columns[name] for name in columns if name != LABELS}
        self._labels = tf.constant(columns[LABELS])
        for column in tf.nest.flatten(self.rows):
            if column.ctypes.data % _ALIGNMENT:
                raise ValueError(
                    f"columns must begin at a multiple of {_ALIGNMENT} bytes"
                )

    def serve(
        self, positions: Callable[[int], tf.data.Dataset], batch_size: int
    ) -> tf.data.Dataset:
        """Gathers rows; see input_pipeline.Store."""
        arrays, labels = tf.nest.flatten(self.rows), self._labels

        def gathered(_: tf.Tensor) -> tf.data.Dataset:
            # In a dataset inside a dataset, so that they are handed over once, without
            # a copy. Captured from outside, tf.data would copy all of them for a
            # fingerprint (HashTensor in tensorflow/core/data/rewrite_utils.cc); handed
            # over by every batch, Python would be what limits the rate.
            tensors = tf.numpy_function(
                lambda _: arrays, [_], [one.dtype for one in arrays], stateful=False
            )
            shaped = map(tf.ensure_shape, tensors, [one.shape for one in arrays])
            table = tf.nest.pack_sequence_as(self.rows, list(shaped))

            def take(batch: tf.Tensor) -> tuple[Any, tf.Tensor]:
                rows = tf.nest.map_structure(lambda one: tf.gather(one, batch), table)
                return rows, tf.gather(labels, batch)

            return positions(batch_size).map(
                take, num_parallel_calls=resources.cores() + 1, deterministic=True
            )

        return tf.data.Dataset.from_tensors(0).flat_map(gathered)


class Encoded:
    """The records of a split as they are stored; decoded again whenever taken.

    Attributes:
        examples, serve: see input_pipeline.Store.
    """

    def __init__(self, dataset: Dataset, split: str) -> None:
        shards = dataset.split(split).shards
        self.examples = dataset.split(split).examples
        self._height, self._width = dataset.image.height, dataset.image.width
        self._records: list[bytes] = []
        batches = data.in_shard_order(dataset, shards).batch(_FILL_BATCH)
        with progress(self.examples, f"caching JPEGs of {split}") as bar:
            for batch in batches.as_numpy_iterator():
                self._records += batch.tolist()
                bar.update(len(batch))
                hang_detection.alive()

    def serve(
        self, positions: Callable[[int], tf.data.Dataset], batch_size: int
    ) -> tf.data.Dataset:
        """Decodes; see input_pipeline.Store."""
        together = min(batch_size, data.DECODED_TOGETHER)
        served = positions(together).map(
            self._take, num_parallel_calls=resources.cores() + 1
        )
        return served if together == batch_size else served.rebatch(batch_size)

    def _take(self, positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns uint8[batch, height, width, 3] and int64[batch] at int64[batch]."""
        serialized = tf.numpy_function(self._at, [positions], tf.string, stateful=False)
        _, images, labels = record.parse(
            tf.ensure_shape(serialized, positions.shape),
            height=self._height,
            width=self._width,
        )
        return images, labels

    def _at(self, positions: np.ndarray) -> np.ndarray:
        return np.array([self._records[i] for i in positions], object)
