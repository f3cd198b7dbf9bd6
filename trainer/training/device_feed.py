"""From batches of tf.data to the replicas of a strategy, ahead of time."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf

_AHEAD = 2  # batches that are on their devices before they are asked for


def to_replicas(
    batches: tf.data.Dataset, strategy: tf.distribute.Strategy
) -> Generator[Any, None, None]:
    """Global batches, cut evenly and brought to the devices by a thread of its own.

    A strategy's own iterators end with a segmentation fault when they are dropped
    while they read ahead (TensorFlow 2.21, MultiDeviceIterator), as they are at the
    end of an endless stream; and they have glibc give back memory all the time
    (GeneratorDataset sets M_TRIM_THRESHOLD), which costs an eighth of the rate.

    Args:
        batches: tuples, perhaps nested, of tensors whose first axis divides by the
            replicas.
        strategy: of the replicas.

    Yields:
        The same structures, to be given to `strategy.run`.
    """
    stream = iter(batches)
    with ThreadPoolExecutor(1, thread_name_prefix="feed") as thread:

        def fetch() -> Any:
            batch = next(stream, None)
            return None if batch is None else _cut(batch, strategy)

        ahead = deque(thread.submit(fetch) for _ in range(_AHEAD))
        while (batch := ahead.popleft().result()) is not None:
            ahead.append(thread.submit(fetch))
            yield batch


def padded(batch: Any, multiple: int) -> Any:
    """Adds rows of zeros to every tensor of a structure, up to a multiple."""

    def pad(tensor: tf.Tensor) -> tf.Tensor:
        missing = -tf.shape(tensor)[0] % multiple
        below = [[0, missing]] + [[0, 0]] * (tensor.shape.rank - 1)
        return tf.pad(tensor, below)

    return tf.nest.map_structure(pad, batch)


def _cut(batch: Any, strategy: tf.distribute.Strategy) -> Any:
    """The part of each replica, on its device."""
    replicas = strategy.num_replicas_in_sync
    # On the CPU: GPUs have no kernel of Split for uint8.
    with tf.device("CPU:0"):
        tensors = [tf.split(each, replicas) for each in tf.nest.flatten(batch)]
    parts = list(zip(*tensors, strict=True))

    def on_device(context: tf.distribute.experimental.ValueContext) -> Any:
        index = context.replica_id_in_sync_group
        with tf.device(strategy.extended.worker_devices[index]):
            return tf.nest.pack_sequence_as(
                batch, [tf.identity(x) for x in parts[index]]
            )

    return strategy.experimental_distribute_values_from_function(on_device)
