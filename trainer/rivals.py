"""What else feeds a model: the bare kernels, and what people use instead of shards."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.dataset import record, shard_cache
from pipeline.dataset.manifest import Dataset
from trainer import order, rates
from trainer.rates import Rate
from trainer.stores import Rows


def decode_jpeg(jpegs: Sequence[bytes], *, batch_size: int, threads: int) -> Rate:
    """Bare `tf.io.decode_jpeg`, in as many Python threads; nobody takes the pixels.

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

    batches = [tf.constant(batch) for batch in _full_batches(jpegs, batch_size)]
    return rates.in_threads(corners, batches, threads=threads, batch_size=batch_size)


def gather(store: Rows, *, batch_size: int, threads: int) -> Rate:
    """Bare `tf.gather` of a permutation's batches, in as many Python threads.

    Args:
        store: of pixels.
        batch_size: gathered in one call.
        threads: each has its own batches.
    """
    assert isinstance(store.columns, np.ndarray)
    images = tf.experimental.dlpack.from_dlpack(store.columns.__dlpack__())  # no copy
    positions = order.permutation(0, 0, store.examples)
    batches = [tf.constant(batch) for batch in _full_batches(positions, batch_size)]
    return rates.in_threads(
        lambda batch: tf.gather(images, batch),
        batches,
        threads=threads,
        batch_size=batch_size,
    )


def per_element(dataset: Dataset, *, batch_size: int) -> Rate:
    """The ordinary chain over the same shards: every example for itself, no shuffle of
    examples, everything tuned by tf.data."""
    tune = tf.data.AUTOTUNE
    shape = (dataset.image.height, dataset.image.width, 3)

    def example(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        features = tf.io.parse_single_example(
            serialized,
            {
                record.ENCODED: tf.io.FixedLenFeature([], tf.string),
                record.LABEL: tf.io.FixedLenFeature([], tf.int64),
            },
        )
        image = tf.io.decode_jpeg(
            features[record.ENCODED], channels=3, dct_method="INTEGER_ACCURATE"
        )
        return tf.ensure_shape(image, shape), features[record.LABEL]

    shards = dataset.split("train").shards
    paths = [str(shard_cache.shard_file(dataset, shard)) for shard in shards]
    chain = (
        tf.data.Dataset.from_tensor_slices(paths)
        .shuffle(len(paths))
        .repeat()
        .interleave(tf.data.TFRecordDataset, num_parallel_calls=tune)
        .map(example, num_parallel_calls=tune)
        .batch(batch_size, drop_remainder=True)
        .prefetch(tune)
    )
    return rates.of_batches(chain.__iter__, batch_size)


def image_dataset_from_directory(
    folder: Path, *, height: int, width: int, batch_size: int
) -> Rate:
    """Keras' dataset of class folders; the files must fill whole batches."""
    chain = keras.utils.image_dataset_from_directory(
        folder, batch_size=batch_size, image_size=(height, width), verbose=False
    )
    return rates.of_batches(chain.repeat().__iter__, batch_size)


def flow_from_directory(
    folder: Path, *, height: int, width: int, batch_size: int
) -> Rate:
    """ImageDataGenerator, as the article used it: in one thread, its default.

    The files must fill whole batches.
    """
    generator = tf.keras.preprocessing.image.ImageDataGenerator(rescale=1 / 255)
    with contextlib.redirect_stdout(io.StringIO()):  # the number of files
        flow = generator.flow_from_directory(
            folder, target_size=(height, width), batch_size=batch_size
        )
    return rates.of_batches(flow.__iter__, batch_size)


def _full_batches(values: Any, batch_size: int) -> list[Any]:
    """Slices of a sequence or an array."""
    starts = range(0, len(values) - batch_size + 1, batch_size)
    return [values[start : start + batch_size] for start in starts]
