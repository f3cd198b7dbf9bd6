"""Permutations: uniform, complete, and functions of their arguments alone."""

from collections import Counter

import numpy as np
import pytest

GOLDEN = (
    [4, 1, 6, 3, 2, 7, 5, 0],
    [3, 1, 6, 2, 5, 4, 0, 7],
    [4, 3, 1, 6, 7, 2, 5, 0],
)


@pytest.fixture
def order(tf):
    from trainer.data import permutation

    return permutation


def positions(order, count: int, batch_size: int, batches: int, **options) -> list[int]:
    chain = order.batches(count, batch_size, **options).take(batches)
    return np.concatenate(list(chain.as_numpy_iterator())).tolist()


@pytest.mark.parametrize("count", [1, 2, 24, 1000])
def test_every_number_once(order, count: int) -> None:
    for epoch in range(3):
        found = order.permutation(7, epoch, count)
        assert found.dtype == np.int64
        assert sorted(found) == list(range(count))


def test_the_order_never_changes(order) -> None:
    """A run that goes on under another NumPy must find the same epochs."""
    assert order.permutation(7, 0, 8).tolist() == GOLDEN[0]
    assert order.permutation(7, 1, 8).tolist() == GOLDEN[1]
    assert order.permutation(8, 0, 8).tolist() == GOLDEN[2]


def test_all_orders_are_equally_likely(order) -> None:
    """Chi-squared of the 24 orders of four examples over 4,800 epochs: 23 degrees of
    freedom, of which 49.7 is the 99.9th percentile."""
    epochs = 4800
    found = Counter(tuple(order.permutation(3, e, 4)) for e in range(epochs))
    expected = epochs / 24
    assert len(found) == 24
    assert sum((n - expected) ** 2 / expected for n in found.values()) < 49.7


def test_a_stream_is_permutation_after_permutation(order) -> None:
    """Batches of 10 over 24: permutations end inside batches."""
    found = positions(order, 24, 10, 12, seed=5)
    epochs = [found[start : start + 24] for start in range(0, 120, 24)]
    assert epochs == [order.permutation(5, e, 24).tolist() for e in range(5)]


@pytest.mark.parametrize("first", [1, 23, 24, 25, 70])
def test_a_stream_starts_anywhere(order, first: int) -> None:
    whole = positions(order, 24, 1, 100, seed=5)
    assert (
        positions(order, 24, 5, 4, seed=5, first_example=first)
        == (whole[first : first + 20])
    )


@pytest.mark.parametrize(("count", "batch_size"), [(1, 4), (3, 7)])
def test_batches_larger_than_an_epoch(order, count: int, batch_size: int) -> None:
    found = positions(order, count, batch_size, 3, seed=5)
    assert len(found) == 3 * batch_size
    assert Counter(found[: count * 5]) == dict.fromkeys(range(count), 5)
