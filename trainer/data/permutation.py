"""Which example stands where in training: a full permutation for every epoch."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf


def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """Returns a random order of all examples, a function of its arguments alone.

    The ranks of as many raw draws of Philox (Salmon et al. 2011): NumPy promises these
    for ever, but not how its own `permutation` turns them into one.

    Args:
        seed: of the run.
        epoch: from 0.
        count: of examples.

    Returns:
        int64[count], every number below `count` once.
    """
    draws = np.random.Philox(key=[seed, epoch]).random_raw(count)
    return np.argsort(draws, kind="stable")


def batches(
    count: int, batch_size: int, *, seed: int, first_example: int = 0
) -> tf.data.Dataset:
    """Returns positions in an endless sequence of permutations, in full batches.

    Args:
        count: of examples.
        batch_size: of positions; a permutation may end inside a batch.
        seed: of the run.
        first_example: how many positions of the sequence to leave out; costs nothing.

    Returns:
        Elements int64[batch_size].
    """
    first_epoch, skipped = divmod(first_example, count)

    def one(epoch: np.int64) -> np.ndarray:
        order = permutation(seed, int(epoch), count)
        return order[skipped:] if epoch == first_epoch else order

    return (
        tf.data.Dataset.counter(first_epoch)
        .map(_stateless(one))
        .prefetch(1)  # the next epoch's, while this one's are in use
        .rebatch(batch_size, drop_remainder=True)
    )


def _stateless(function: Callable[[np.int64], np.ndarray]) -> Callable:
    """Makes a graph of it; stateless, or deterministic runs would not run it ahead."""

    def graph(epoch: tf.Tensor) -> tf.Tensor:
        order = tf.numpy_function(function, [epoch], tf.int64, stateful=False)
        return tf.ensure_shape(order, [None])

    return graph
