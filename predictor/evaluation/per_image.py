"""What is kept of every image: enough for every metric, and no row of probabilities."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.system.errors import RunError
from predictor.format.row_batch import RowBatch, is_probability

NONE = -1  # a label: shows none of the classes; a prediction: there is none
LAST = np.iinfo(np.int32).max  # a rank behind every class


def results(
    rows: RowBatch, labels: Sequence[tuple[int, ...]], ranked: np.ndarray | None
) -> pd.DataFrame:
    """Reduces rows of predictions to a table with a row for each image.

    Of several labels of an image the one counts that the model ranks best.

    Args:
        rows: none without a class.
        labels: of each row, numbers of classes; none for a distractor.
        ranked: int[rows, k], the numbers of `rows.classes`; None of `probabilities`.

    Returns:
        id, label (int32; NONE for a distractor), predicted (int32: the most probable
        class, of equal ones the first), confidence (float32: its probability),
        probability (float32, of the label; NaN where it is not known), rank (int32, of
        the label, from 1, equal probabilities in the order of the classes; -k where it
        is only known to be behind the k-th, LAST where the model has no such class),
        and `labelled`, `answered` and `correct` (bool).

    Raises:
        RunError: a best probability is none.
    """
    if ranked is None:
        columns = _of_probabilities(labels, rows.probabilities)
    else:
        columns = _of_ranked(labels, ranked, rows.probabilities)
    found = image_table(rows.ids, *columns)
    # A NaN anywhere in a row is its best.
    if len(wrong := np.flatnonzero(~is_probability(found["confidence"].to_numpy()))):
        first = found.loc[wrong[0]]
        raise RunError(
            f"the best probability of {first['id']!r} is {first['confidence']}, not "
            f"from 0 to 1 ({len(wrong)} of {len(found)} images of this batch). Predict "
            "again with a model whose loss was finite and that ends in a softmax."
        )
    return found


def without_prediction(
    ids: Sequence[str], labels: Sequence[tuple[int, ...]]
) -> pd.DataFrame:
    """Returns the rows of images that should have been predicted: all wrong."""
    rows = len(ids)
    label = np.array([own[0] if own else NONE for own in labels], np.int32)
    nothing = np.full(rows, NONE), np.zeros(rows), np.full(rows, np.nan)
    return image_table(ids, label, *nothing, np.full(rows, LAST))


def image_table(ids: Sequence[str], *columns: np.ndarray) -> pd.DataFrame:
    """Returns the table of `results` from its first six columns."""
    label, predicted, confidence, probability, rank = columns
    return pd.DataFrame(
        {
            "id": pd.Series(ids, dtype=object),
            "label": label.astype(np.int32),
            "predicted": predicted.astype(np.int32),
            "confidence": confidence.astype(np.float32),
            "probability": probability.astype(np.float32),
            "rank": rank.astype(np.int32),
            "labelled": label != NONE,
            "answered": predicted != NONE,
            "correct": (label != NONE) & (label == predicted),
        }
    )


def _of_probabilities(
    labels: Sequence[tuple[int, ...]], values: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Reduces float32[rows, classes]."""
    rows, classes = values.shape
    label = np.full(rows, NONE)
    for row, several in enumerate(labels):
        # The best one: of equal probabilities the first class; else one without column.
        columns = (number for number in several if number < classes)
        best = max(columns, key=lambda n: (values[row, n], -n), default=None)
        label[row] = best if best is not None else several[0] if several else NONE
    predicted = values.argmax(axis=1) if rows else np.empty(0, int)
    probability = np.full(rows, np.nan, np.float32)
    rank = np.full(rows, LAST)
    (known,) = np.nonzero((label != NONE) & (label < classes))
    at = label[known, None]
    kept = values if len(known) == rows else values[known]
    own = np.take_along_axis(kept, at, axis=1)
    before = np.count_nonzero(kept > own, axis=1)
    before += np.count_nonzero((kept == own) & (np.arange(classes) < at), axis=1)
    probability[known], rank[known] = own[:, 0], before + 1
    return label, predicted, values[np.arange(rows), predicted], probability, rank


def _of_ranked(
    labels: Sequence[tuple[int, ...]], ranked: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Reduces the k best classes, int[rows, k], and float32[rows, k] of these."""
    rows, k = ranked.shape
    label = np.array(
        [
            next((n for n in best if n in own), own[0] if own else NONE)
            for best, own in zip(ranked.tolist(), labels, strict=True)
        ],
        int,
    )
    hits = ranked == label[:, None]
    found, at = hits.any(axis=1), hits.argmax(axis=1)
    probability = np.where(found, values[np.arange(rows), at], np.nan)
    return label, ranked[:, 0], values[:, 0], probability, np.where(found, at + 1, -k)
