"""A whole split at hand by position: as JPEGs, as pixels, or as anything computed."""

import math
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.dataset import record
from pipeline.dataset.manifest import Dataset
from pipeline.system import resources
from pipeline.system.console import progress
from trainer import hang_detection
from trainer.cache import on_disk as spill
from trainer.data import input_pipeline as data

Columns = np.ndarray | Mapping[str, np.ndarray]

_FILL_BATCH = 64
_PART_ROWS = 16 * _FILL_BATCH  # that are committed to disk at once
_ALIGNMENT = 64  # bytes: what TensorFlow takes without a copy


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
        with progress(self.examples, f"caching {split}") as bar:
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


class Rows:
    """Arrays with a row for every example, in the order of the shards: pixels, mostly.

    Attributes:
        examples, serve: see input_pipeline.Store.
        columns: one array, or more by name; in memory or mapped into it.
        labels: int64[examples].

    Raises:
        ValueError: an array does not begin at a multiple of 64 bytes.
    """

    def __init__(self, columns: Columns, labels: np.ndarray) -> None:
        self.examples = len(labels)
        self.columns = columns
        self.labels = tf.constant(labels)
        for column in tf.nest.flatten(columns):
            if column.ctypes.data % _ALIGNMENT:
                raise ValueError(
                    f"columns must begin at a multiple of {_ALIGNMENT} bytes"
                )

    def serve(
        self, positions: Callable[[int], tf.data.Dataset], batch_size: int
    ) -> tf.data.Dataset:
        """Gathers; see input_pipeline.Store."""
        arrays = tf.nest.flatten(self.columns)

        def served(_: tf.Tensor) -> tf.data.Dataset:
            # In a dataset inside a dataset, so that they are handed over once, without
            # a copy. Captured from outside, tf.data would copy all of them for a
            # fingerprint (HashTensor in tensorflow/core/data/rewrite_utils.cc); handed
            # over by every batch, Python would be what limits the rate.
            tensors = tf.numpy_function(
                lambda _: arrays, [_], [one.dtype for one in arrays], stateful=False
            )
            columns = tf.nest.pack_sequence_as(
                self.columns,
                [
                    tf.ensure_shape(tensor, one.shape)
                    for tensor, one in zip(tensors, arrays, strict=True)
                ],
            )

            def take(batch: tf.Tensor) -> tuple[Any, tf.Tensor]:
                rows = tf.nest.map_structure(lambda one: tf.gather(one, batch), columns)
                return rows, tf.gather(labels, batch)

            return positions(batch_size).map(
                take, num_parallel_calls=resources.cores() + 1, deterministic=True
            )

        labels = self.labels
        return tf.data.Dataset.from_tensors(0).flat_map(served)


def in_memory(dataset: Dataset, split: str) -> Rows:
    """Decodes a split into memory."""
    examples = dataset.split(split).examples
    images = allocate((examples, dataset.image.height, dataset.image.width, 3))
    labels = np.empty(examples, np.int64)
    at = 0
    for pictures, classes in _decoded(dataset, split):
        images[at : at + len(classes)] = pictures
        labels[at : at + len(classes)] = classes
        at += len(classes)
    return Rows(images, labels)


def on_disk(dataset: Dataset, split: str, folder: Path) -> Rows:
    """Decodes a split into a folder, or finds it there; see on_disk.on_disk.

    Raises:
        RunError: the disk is too small, or the folder is not ours.
    """
    image = dataset.image

    def make(first: int) -> Iterator[spill.Part]:
        part = []
        for batch in _decoded(dataset, split, first=first * _PART_ROWS):
            part.append(batch)
            if len(part) * _FILL_BATCH == _PART_ROWS:
                yield _joined(part)
                part.clear()
        if part:
            yield _joined(part)

    content = spill.Content(
        what="decoded pictures",
        key={  # the decoder is TensorFlow's
            "dataset": dataset.fingerprint,
            "split": split,
            "tensorflow": tf.__version__,
        },
        columns={
            "pixels": (np.uint8, (image.height, image.width, 3)),
            "labels": (np.int64, ()),
        },
        parts=spill.in_parts(dataset.split(split).examples, _PART_ROWS),
        make=make,
    )
    columns = spill.on_disk(content, folder)
    return Rows(columns["pixels"], columns["labels"])


def _decoded(
    dataset: Dataset, split: str, *, first: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Decodes a split once, in order, from an example on, with progress.

    Yields:
        (uint8[batch, height, width, 3], int64[batch])
    """
    shards = dataset.split(split).shards
    batches = data.for_inference(dataset, shards, batch_size=_FILL_BATCH, first=first)
    with progress(dataset.split(split).examples, f"caching {split}", done=first) as bar:
        for _, images, labels in batches.as_numpy_iterator():
            yield images, labels
            bar.update(len(labels))
            hang_detection.alive()


def _joined(batches: Sequence[tuple[np.ndarray, np.ndarray]]) -> spill.Part:
    pixels, labels = zip(*batches, strict=True)
    return {"pixels": np.concatenate(pixels), "labels": np.concatenate(labels)}


def allocate(shape: tuple[int, ...]) -> np.ndarray:
    """Returns uint8 at the start of a page; np.empty aligns to 16 bytes only."""
    memory = mmap.mmap(
        -1, math.prod(shape), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    )
    return np.frombuffer(memory, np.uint8).reshape(shape)
