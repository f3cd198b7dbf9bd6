"""From batches of tf.data to the replicas of a strategy, ahead of time."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf

_AHEAD = 2  # batches that are on their devices before they are asked for


def to_replicas(
    batches: tf.data.Dataset, strategy: tf.distribute.Strategy, *, batch_size: int
) -> Generator[Any, None, None]:
    """Cuts global batches evenly and brings them to the devices, in its own thread.

    A strategy's own iterators end with a segmentation fault when they are dropped
    while they read ahead (TensorFlow 2.21, MultiDeviceIterator), as they are at the
    end of an endless stream; and they have glibc give back memory all the time
    (GeneratorDataset sets M_TRIM_THRESHOLD), which costs an eighth of the rate.

    Args:
        batches: tuples, perhaps nested, of tensors whose first axis are the rows. Rows
            of zeros are added to a short batch: no replica may be left without any.
        strategy: of the replicas.
        batch_size: rows of a batch, over all replicas.

    Yields:
        The same structures, to be given to `strategy.run`.
    """
    replicas = strategy.num_replicas_in_sync

    def cut(*batch: Any) -> tuple[Any, ...]:
        tensors = [
            _parts(_full(tensor, batch_size), replicas)
            for tensor in tf.nest.flatten(batch)
        ]
        return tuple(
            tf.nest.pack_sequence_as(batch, of_replica)
            for of_replica in zip(*tensors, strict=True)
        )

    stream = iter(batches.map(cut))
    with ThreadPoolExecutor(1, thread_name_prefix="feed") as thread:

        def fetch() -> Any:
            parts = next(stream, None)
            return None if parts is None else _on_devices(parts, strategy)

        ahead = deque(thread.submit(fetch) for _ in range(_AHEAD))
        while (batch := ahead.popleft().result()) is not None:
            ahead.append(thread.submit(fetch))
            yield batch


def _full(tensor: tf.Tensor, batch_size: int) -> tf.Tensor:
    """Adds rows of zeros up to the batch size; a full batch is not copied."""
    missing = batch_size - tf.shape(tensor)[0]
    below = [[0, missing]] + [[0, 0]] * (tensor.shape.rank - 1)
    full = tf.cond(missing > 0, lambda: tf.pad(tensor, below), lambda: tensor)
    return tf.ensure_shape(full, [batch_size, *tensor.shape[1:]])


def _parts(tensor: tf.Tensor, replicas: int) -> list[tf.Tensor]:
    """Cuts the first axis evenly.

    The parts share the memory of the batch if their bytes are a multiple of 64. Neither
    tf.split nor a slice looks at more than a row: of pictures of 90,000 bytes they
    would copy all, 46 MB of 512.
    """
    rows, inner = len(tensor) // replicas, tensor.shape[1:]
    return tf.unstack(tf.reshape(tensor, [replicas, rows, *inner]))


def _on_devices(parts: tuple[Any, ...], strategy: tf.distribute.Strategy) -> Any:
    """Returns the parts as one value of the strategy, each on its replica's device."""

    def on_device(context: tf.distribute.experimental.ValueContext) -> Any:
        index = context.replica_id_in_sync_group
        with tf.device(strategy.extended.worker_devices[index]):
            return tf.nest.map_structure(tf.identity, parts[index])

    return strategy.experimental_distribute_values_from_function(on_device)
