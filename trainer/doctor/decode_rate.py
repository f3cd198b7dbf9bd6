"""How fast this node decodes JPEGs, by bare TensorFlow kernels."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from trainer.doctor import throughput
from trainer.doctor.throughput import Rate


def decode_jpeg(jpegs: Sequence[bytes], *, batch_size: int, threads: int) -> Rate:
    """Measures bare `tf.io.decode_jpeg` in Python threads; nobody takes the pixels.

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

    batches = [tf.constant(batch) for batch in full_batches(jpegs, batch_size)]
    return throughput.in_threads(
        corners, batches, threads=threads, batch_size=batch_size
    )


def full_batches(values: Any, batch_size: int) -> list[Any]:
    """Cuts a sequence or an array into full batches; leaves out the rest."""
    starts = range(0, len(values) - batch_size + 1, batch_size)
    return [values[start : start + batch_size] for start in starts]
