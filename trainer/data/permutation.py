"""Which example stands where in training: a full permutation for every epoch."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf


def permutation(seed: int, epoch: int, count: int, *, part: int = 0) -> np.ndarray:
    """A random order of all examples, a function of its arguments alone.

    The ranks of as many raw draws of Philox (Salmon et al. 2011): NumPy promises these
    for ever, but not how its own `permutation` turns them into one.

    Args:
        seed: of the run.
        epoch: from 0, below 2**32.
        count: of examples.
        part: of a dataset, each of which has its own orders.

    Returns:
        int64[count], every number below `count` once.
    """
    draws = np.random.Philox(key=[seed, epoch + (part << 32)]).random_raw(count)
    return np.argsort(draws, kind="stable")


def batches(
    count: int,
    batch_size: int,
    *,
    seed: int,
    first_example: int = 0,
    parts: int = 1,
) -> tf.data.Dataset:
    """Positions in an endless sequence of permutations, in full batches.

    Args:
        count: of examples.
        batch_size: of positions; a permutation may end inside a batch.
        seed: of the run.
        first_example: how many positions of the sequence to leave out; costs nothing.
        parts: that the examples are cut into, one after the other, each with its own
            permutations, and with an equal share of each batch: where every device
            holds a part.

    Returns:
        Elements int64[batch_size].
    """
    bounds = cut(count, parts)
    each = [
        _of_part(
            (bounds[part], bounds[part + 1]),
            batch_size // parts,
            seed,
            first_example // parts,
            part,
        )
        for part in range(parts)
    ]
    if parts == 1:
        return each[0]
    return tf.data.Dataset.zip(tuple(each)).map(lambda *one: tf.concat(one, axis=0))


def views(
    batch_size: int, count: int, *, seed: int, first_batch: int = 0
) -> tf.data.Dataset:
    """Which of so many views of an image is taken, for each position of `batches`.

    Returns:
        Endless elements int64[batch_size], uniform in 0 … count - 1.
    """

    def drawn(number: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_uniform(
            [batch_size], [seed, number], 0, count, tf.int64, alg="philox"
        )

    return tf.data.Dataset.counter(first_batch).map(drawn)


def cut(count: int, parts: int) -> list[int]:
    """Where each of so many parts begins, and the last one ends."""
    return [part * count // parts for part in range(parts + 1)]


def _of_part(
    bounds: tuple[int, int], batch_size: int, seed: int, first_example: int, part: int
) -> tf.data.Dataset:
    first, end = bounds
    first_epoch, skipped = divmod(first_example, end - first)

    def one(epoch: np.int64) -> np.ndarray:
        order = first + permutation(seed, int(epoch), end - first, part=part)
        return order[skipped:] if epoch == first_epoch else order

    return (
        tf.data.Dataset.counter(first_epoch)
        .map(_stateless(one))
        .prefetch(1)  # the next epoch's, while this one's are in use
        .rebatch(batch_size, drop_remainder=True)
    )


def _stateless(function: Callable[[np.int64], np.ndarray]) -> Callable:
    """As a graph; stateless, or deterministic runs would not run it ahead."""

    def graph(epoch: tf.Tensor) -> tf.Tensor:
        order = tf.numpy_function(function, [epoch], tf.int64, stateful=False)
        return tf.ensure_shape(order, [None])

    return graph
