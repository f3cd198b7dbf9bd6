"""The table of all images: joined by id, whatever the order, with little memory."""

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from predictor.evaluation.image_table import ImageTable
from predictor.evaluation.labels import ClassIndex
from predictor.format.row_batch import RowBatch

CLASSES = tuple("abcdef")


@pytest.mark.parametrize("seed", range(5))
def test_parts_and_their_order_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = [f"{number:x}.jpg" for number in rng.permutation(50)]
    values = rng.dirichlet(np.ones(6), 50).astype(np.float32)
    labels = {x: (int(rng.integers(6)),) for x in [*ids[:40], "without"]}

    def joined(parts: list[np.ndarray]) -> pd.DataFrame:
        table = ImageTable(ClassIndex(CLASSES), labels)
        for part in parts:
            rows = RowBatch([ids[at] for at in part], None, values[part])
            table.add((rows, {}))
        return table.joined()

    cuts = np.sort(rng.integers(0, 51, 3))
    whole = joined([np.arange(50)])
    pd.testing.assert_frame_equal(
        whole, joined(np.split(rng.permutation(50), cuts)), check_like=False
    )
    assert list(whole["id"]) == sorted([*ids, "without"])
    assert whole["_merge"].value_counts().to_dict() == {
        **{"both": 40, "right_only": 10, "left_only": 1}
    }
    for row in whole[whole["_merge"] == "both"].itertuples():
        assert (row.label,) == labels[row.id]
        assert row.predicted == values[ids.index(row.id)].argmax()


def test_memory_is_that_of_a_part() -> None:
    """80 parts of 4 MB; numpy tells tracemalloc what it allocates."""
    part, classes = 200, 5000

    def parts() -> Iterator[RowBatch]:
        rng = np.random.default_rng(0)
        for number in range(80):
            values = rng.random((part, classes), np.float32)
            yield RowBatch([f"{number} {row}" for row in range(part)], None, values)

    labels = {f"{number} {row}": (row,) for number in range(80) for row in range(part)}
    table = ImageTable(ClassIndex(tuple(map(str, range(classes)))), labels)
    tracemalloc.start()
    for rows in parts():
        table.add((rows, {}))
    found = table.joined()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 80 * part
    assert peak < 6 * part * classes * 4
