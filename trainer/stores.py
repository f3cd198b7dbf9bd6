"""A whole split in memory, at hand by position: as JPEGs, or as pixels."""

import math
import mmap
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from pipeline import record, resources
from pipeline.console import progress
from pipeline.manifest import Dataset
from trainer import dataset as data

_FILL_BATCH = 64
_ALIGNMENT = 64  # bytes: what TensorFlow takes without a copy


class Encoded:
    """The records of a split as they are stored; decoded again whenever taken.

    Attributes:
        examples, serve: see trainer.dataset.Store.
    """

    def __init__(self, dataset: Dataset, split: str) -> None:
        shards = dataset.split(split).shards
        self.examples = dataset.split(split).examples
        self._height, self._width = dataset.image.height, dataset.image.width
        self._records: list[bytes] = []
        batches = data.in_shard_order(dataset, shards).batch(_FILL_BATCH)
        with progress(self.examples, f"caching {split}") as bar:
            for batch in batches.as_numpy_iterator():
                self._records += batch.tolist()
                bar.update(len(batch))

    def serve(
        self, positions: Callable[[int], tf.data.Dataset], batch_size: int
    ) -> tf.data.Dataset:
        """Decodes; see trainer.dataset.Store."""
        together = min(batch_size, data.DECODED_TOGETHER)
        served = positions(together).map(
            self._take, num_parallel_calls=resources.cores() + 1
        )
        return served if together == batch_size else served.rebatch(batch_size)

    def _take(self, positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(uint8[batch, height, width, 3], int64[batch]) at int64[batch]."""
        serialized = tf.numpy_function(self._at, [positions], tf.string, stateful=False)
        _, images, labels = record.parse(
            tf.ensure_shape(serialized, positions.shape),
            height=self._height,
            width=self._width,
        )
        return images, labels

    def _at(self, positions: np.ndarray) -> np.ndarray:
        return np.array([self._records[i] for i in positions], object)


class Decoded:
    """The pictures of a split and their labels, in the order of the shards.

    Attributes:
        examples, serve: see trainer.dataset.Store.
        images: uint8[examples, height, width, 3], in memory or mapped into it.

    Raises:
        ValueError: the pictures do not begin at a multiple of 64 bytes.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        if images.ctypes.data % _ALIGNMENT:
            raise ValueError(f"images must begin at a multiple of {_ALIGNMENT} bytes")
        self.examples = len(images)
        self.images = images
        self._labels = tf.constant(labels)

    def serve(
        self, positions: Callable[[int], tf.data.Dataset], batch_size: int
    ) -> tf.data.Dataset:
        """Gathers; see trainer.dataset.Store."""

        def served(_: tf.Tensor) -> tf.data.Dataset:
            # In a dataset inside a dataset, so that they are handed over once, without
            # a copy. Captured from outside, tf.data would copy all of them for a
            # fingerprint (HashTensor in tensorflow/core/data/rewrite_utils.cc); handed
            # over by every batch, Python would be what limits the rate.
            images = tf.numpy_function(
                lambda _: self.images, [_], tf.uint8, stateful=False
            )
            images = tf.ensure_shape(images, self.images.shape)
            return positions(batch_size).map(
                lambda batch: (tf.gather(images, batch), tf.gather(labels, batch)),
                num_parallel_calls=resources.cores() + 1,
                deterministic=True,
            )

        labels = self._labels
        return tf.data.Dataset.from_tensors(0).flat_map(served)


def decoded(dataset: Dataset, split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Decodes a split once, in order, with progress.

    Yields:
        (uint8[batch, height, width, 3], int64[batch])
    """
    shards = dataset.split(split).shards
    batches = data.for_inference(dataset, shards, batch_size=_FILL_BATCH)
    with progress(dataset.split(split).examples, f"caching {split}") as bar:
        for _, images, labels in batches.as_numpy_iterator():
            yield images, labels
            bar.update(len(labels))


def in_memory(dataset: Dataset, split: str) -> Decoded:
    """Decodes a split into memory."""
    examples = dataset.split(split).examples
    images = _allocate((examples, dataset.image.height, dataset.image.width, 3))
    labels = np.empty(examples, np.int64)
    at = 0
    for pictures, classes in decoded(dataset, split):
        images[at : at + len(classes)] = pictures
        labels[at : at + len(classes)] = classes
        at += len(classes)
    return Decoded(images, labels)


def _allocate(shape: tuple[int, ...]) -> np.ndarray:
    """uint8 at the start of a page; np.empty aligns to 16 bytes only."""
    memory = mmap.mmap(
        -1, math.prod(shape), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    )
    return np.frombuffer(memory, np.uint8).reshape(shape)
