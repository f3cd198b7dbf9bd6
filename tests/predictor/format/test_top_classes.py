"""The best classes of every row."""

import numpy as np
import pytest

from predictor.format.top_classes import best


@pytest.mark.parametrize("k", [1, 2, 5, 99, 100])
@pytest.mark.parametrize("values", ["distinct", "few", "equal"])
def test_as_a_stable_sort_has_it(k: int, values: str) -> None:
    rng = np.random.default_rng(k)
    rows = {
        "distinct": rng.random((30, 100), np.float32),
        "few": rng.integers(0, 4, (30, 100)).astype(np.float32),
        "equal": np.full((30, 100), 0.01, np.float32),
    }[values]
    found = best(rows, k)
    assert (found.shape, found.dtype) == ((30, k), np.int64)
    expected = np.argsort(-rows, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(found, expected)


def test_one_class_and_no_rows() -> None:
    assert best(np.ones((2, 1), np.float32), 1).tolist() == [[0], [0]]
    assert best(np.empty((0, 3), np.float32), 2).shape == (0, 2)


def test_the_rows_stay_as_they_are() -> None:
    rows = np.random.default_rng(0).random((4, 9), np.float32)
    before = rows.copy()
    best(rows, 3)
    np.testing.assert_array_equal(rows, before)
