"""What is kept of every image: enough for every metric, and no row of probabilities."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from pipeline.system.errors import RunError

NONE = -1  # a label: shows none of the classes; a prediction: there is none

_LAST = np.iinfo(np.int32).max  # a rank behind every class
_ROUNDING = 1e-4  # above 1, of probabilities that were 16 bits once


@dataclass(frozen=True, kw_only=True)
class PerImageResults:
    """Images, their labels, and what was predicted of them: 20 bytes each, and the id.

    Attributes:
        ids: of the images.
        labels: int32; NONE for a distractor.
        predicted: int32, the most probable class, of equal ones the first; NONE where
            there is no prediction.
        confidence: float32, the probability of that class.
        probability: float32, of the label; NaN where it is not known.
        rank: int32, of the label, from 1, equal probabilities in the order of the
            classes; -k where it is only known to be behind the k-th.
    """

    ids: list[str]
    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    probability: np.ndarray
    rank: np.ndarray

    @property
    def labelled(self) -> np.ndarray:
        """bool: it shows a class, so that it can be right or wrong."""
        return self.labels != NONE

    @property
    def answered(self) -> np.ndarray:
        """bool: it has a prediction."""
        return self.predicted != NONE

    @property
    def correct(self) -> np.ndarray:
        """bool: the prediction is the label."""
        return self.labelled & (self.labels == self.predicted)


def of_probabilities(
    ids: list[str], labels: np.ndarray, probabilities: np.ndarray
) -> PerImageResults:
    """Reduces the probabilities of all classes.

    Args:
        ids: of the rows.
        labels: int[rows]; NONE for a distractor. One that has no column is behind all.
        probabilities: float32[rows, classes].

    Raises:
        RunError: a best probability is none.
    """
    rows, classes = probabilities.shape
    predicted = probabilities.argmax(axis=1)  # of a row with NaN: the NaN
    confidence = probabilities[np.arange(rows), predicted]
    _check(ids, confidence)
    probability = np.full(rows, np.nan, np.float32)
    rank = np.full(rows, _LAST, np.int32)
    (known,) = np.nonzero((labels != NONE) & (labels < classes))
    at = np.asarray(labels)[known, None]
    values = probabilities if len(known) == rows else probabilities[known]
    own = np.take_along_axis(values, at, axis=1)
    before = np.count_nonzero(values > own, axis=1)
    before += np.count_nonzero((values == own) & (np.arange(classes) < at), axis=1)
    probability[known], rank[known] = own[:, 0], before + 1
    return _of(ids, labels, predicted, confidence, probability, rank)


def of_ranked(
    ids: list[str], labels: np.ndarray, ranked: np.ndarray, probabilities: np.ndarray
) -> PerImageResults:
    """Reduces the k best classes.

    Args:
        ids: of the rows.
        labels: int[rows]; NONE for a distractor.
        ranked: int[rows, k], the best class first.
        probabilities: float32[rows, k], of these.

    Raises:
        RunError: a best probability is none.
    """
    rows, k = ranked.shape
    confidence = probabilities[:, 0]
    _check(ids, confidence)
    own = ranked == np.asarray(labels)[:, None]
    found, at = own.any(axis=1), own.argmax(axis=1)
    probability = np.where(found, probabilities[np.arange(rows), at], np.nan)
    rank = np.where(found, at + 1, -k)
    return _of(ids, labels, ranked[:, 0], confidence, probability, rank)


def without_prediction(ids: list[str], labels: np.ndarray) -> PerImageResults:
    """Images that should have been predicted: wrong, by any measure of ranks."""
    rows = len(ids)
    unknown = np.full(rows, np.nan)
    return _of(
        ids, labels, np.full(rows, NONE), np.zeros(rows), unknown, np.full(rows, _LAST)
    )


def join(parts: Iterable[PerImageResults]) -> PerImageResults:
    """All of them, sorted by id: nothing depends on files and their order."""
    parts = list(parts)
    ids = [image_id for part in parts for image_id in part.ids]
    order = sorted(range(len(ids)), key=ids.__getitem__)
    columns = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])[order]
        for field in fields(PerImageResults)
        if field.name != "ids"
    }
    return PerImageResults(ids=[ids[at] for at in order], **columns)


def _of(ids: list[str], labels: np.ndarray, *columns: np.ndarray) -> PerImageResults:
    predicted, confidence, probability, rank = columns
    return PerImageResults(
        ids=ids,
        labels=np.asarray(labels).astype(np.int32),
        predicted=predicted.astype(np.int32),
        confidence=confidence.astype(np.float32),
        probability=probability.astype(np.float32),
        rank=rank.astype(np.int32),
    )


def _check(ids: Sequence[str], confidence: np.ndarray) -> None:
    """Refuses what is no probability; a NaN anywhere in a row is its best."""
    wrong = np.flatnonzero(~((confidence >= 0) & (confidence <= 1 + _ROUNDING)))
    if len(wrong):
        first = wrong[0]
        raise RunError(
            f"the best probability of {ids[first]!r} is {confidence[first]}, not from "
            f"0 to 1 ({len(wrong)} of {len(ids)} images of this batch). Predict again "
            "with a model whose loss was finite and that ends in a softmax."
        )
