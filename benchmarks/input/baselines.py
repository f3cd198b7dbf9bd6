"""What else feeds a model: the bare kernels, and what people use instead of shards."""

import contextlib
import io
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from pipeline.dataset import record, shard_cache
from pipeline.dataset.manifest import Dataset
from trainer.cache.in_memory import Rows
from trainer.data import permutation
from trainer.doctor import decode_rate, throughput
from trainer.doctor.throughput import Rate


def gather(store: Rows, *, batch_size: int, threads: int) -> Rate:
    """Bare `tf.gather` of a permutation's batches, in as many Python threads.

    Args:
        store: of pixels.
        batch_size: gathered in one call.
        threads: each has its own batches.
    """
    assert isinstance(store.columns, np.ndarray)
    images = tf.experimental.dlpack.from_dlpack(store.columns.__dlpack__())  # no copy
    positions = permutation.permutation(0, 0, store.examples)
    batches = [
        tf.constant(batch) for batch in decode_rate.full_batches(positions, batch_size)
    ]
    return throughput.in_threads(
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
    return throughput.of_batches(chain.__iter__, batch_size)


def image_dataset_from_directory(
    folder: Path, *, height: int, width: int, batch_size: int
) -> Rate:
    """Keras' dataset of class folders; the files must fill whole batches."""
    chain = keras.utils.image_dataset_from_directory(
        folder, batch_size=batch_size, image_size=(height, width), verbose=False
    )
    return throughput.of_batches(chain.repeat().__iter__, batch_size)


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
    return throughput.of_batches(flow.__iter__, batch_size)
