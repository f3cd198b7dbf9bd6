"""How good predictions are, from the results per image that are kept.

Images without a prediction are labelled images that no measure of ranks forgives: they
count as wrong. Distractors, which show none of the classes, count in `gap` alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from predictor.evaluation.per_image import NONE, PerImageResults

LEAST = 1e-7  # probability in a logarithm: that of keras.losses
BINS = 15  # of the calibration: arXiv:1706.04599, section 4
EDGES = (0, 5, 20, 100, 500, 2_000)  # most images of a class, bucket by bucket


def gap(outcomes: PerImageResults) -> float | None:
    """Global average precision, or micro average precision, of the best classes.

    As Kaggle's Google Landmark Recognition defines it: of all N predictions, sorted by
    confidence, GAP = 1/M Σ P(i) rel(i), where M is the number of images that show a
    class, P(i) the precision among the first i, and rel(i) 1 if the i-th is right,
    else 0. Equal confidences are sorted by id, as text.

    Returns:
        From 0 to 1; None where no image is labelled.
    """
    images = np.count_nonzero(outcomes.labelled)
    answered = outcomes.answered
    order = np.argsort(-outcomes.confidence[answered], kind="stable")
    right = outcomes.correct[answered][order]
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    return float(precision[right].sum() / images) if images else None


def hits(outcomes: PerImageResults, n: int) -> np.ndarray | None:
    """bool: the label is among the n best; None where that is not known of all."""
    behind = outcomes.rank[outcomes.labelled & (outcomes.rank < 0)]
    if (-behind < n).any():
        return None
    return outcomes.labelled & (outcomes.rank > 0) & (outcomes.rank <= n)


def accuracy(outcomes: PerImageResults, n: int) -> float | None:
    """Share of the labelled images whose label is among the n best, if it is known."""
    right = hits(outcomes, n)
    return None if right is None else _mean(right[outcomes.labelled])


def log_loss(outcomes: PerImageResults) -> float | None:
    """Mean of -ln of the label's probability, where that is at least LEAST.

    Over images that have a prediction and whose class was there to be predicted; None
    where it is not known of one of them.
    """
    if (outcomes.labelled & (outcomes.rank < 0)).any():
        return None
    own = outcomes.probability[outcomes.labelled].astype(np.float64)
    own = own[~np.isnan(own)]
    return _mean(-np.log(np.clip(own, LEAST, 1)))


class PerClass(NamedTuple):
    """Counts of every class, among the labelled images: int64[classes].

    Attributes:
        images: that show it.
        predicted: that it was predicted of.
        hits: both.
    """

    images: np.ndarray
    predicted: np.ndarray
    hits: np.ndarray

    @property
    def precision(self) -> np.ndarray:
        """float64; NaN where it is never predicted."""
        return _ratio(self.hits, self.predicted)

    @property
    def recall(self) -> np.ndarray:
        """float64; NaN where no image shows it."""
        return _ratio(self.hits, self.images)

    @property
    def f1(self) -> np.ndarray:
        """float64, of precision and recall; NaN where there is neither."""
        return _ratio(2 * self.hits, self.images + self.predicted)


def per_class(outcomes: PerImageResults, classes: int) -> PerClass:
    """Counts images, predictions and hits of every class."""
    labelled = outcomes.labelled

    def count(numbers: np.ndarray, which: np.ndarray) -> np.ndarray:
        return np.bincount(numbers[which], minlength=classes)

    return PerClass(
        images=count(outcomes.labels, labelled),
        predicted=count(outcomes.predicted, labelled & outcomes.answered),
        hits=count(outcomes.labels, outcomes.correct),
    )


def confusions(outcomes: PerImageResults) -> np.ndarray:
    """int64[pairs, 3]: label, another class that was predicted, images; most first.

    Pairs of as many images are in the order of the classes.
    """
    wrong = outcomes.labelled & outcomes.answered & ~outcomes.correct
    pairs = np.stack([outcomes.labels[wrong], outcomes.predicted[wrong]], axis=1)
    found, counts = np.unique(pairs.astype(np.int64), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return np.column_stack([found, counts])[order]


def mistakes(outcomes: PerImageResults) -> np.ndarray:
    """Positions of the labelled images that were predicted wrong, the worst first.

    The worst are those of the greatest confidence; of equal ones, of the least
    probability of the label where it is known, then by id.
    """
    (wrong,) = np.nonzero(outcomes.labelled & outcomes.answered & ~outcomes.correct)
    own = np.nan_to_num(outcomes.probability[wrong])
    return wrong[np.lexsort((own, -outcomes.confidence[wrong]))]


@dataclass(frozen=True)
class Calibration:
    """How far a probability is the share of right answers.

    Attributes:
        images: int64[BINS], by confidence: of bin m, above (m - 1) / BINS, up to
            m / BINS.
        confidence, accuracy: float64[BINS], their means; NaN where a bin is empty.
        error: expected calibration error, the mean of |accuracy - confidence| over the
            images.
    """

    images: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float | None


def calibration(outcomes: PerImageResults) -> Calibration:
    """Of the labelled images with a prediction, by their confidence.

    Expected calibration error as in Guo et al., On Calibration of Modern Neural
    Networks, 2017 (arXiv:1706.04599), equation 3, with bins of equal width.
    """
    which = outcomes.labelled & outcomes.answered
    confidence = outcomes.confidence[which].astype(np.float64)
    right = outcomes.correct[which]
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    images = np.bincount(bins, minlength=BINS)
    sums = np.bincount(bins, confidence, BINS), np.bincount(bins, right, BINS)
    error = float(np.abs(sums[0] - sums[1]).sum() / len(bins)) if len(bins) else None
    return Calibration(images, _ratio(sums[0], images), _ratio(sums[1], images), error)


class Bucket(NamedTuple):
    """Classes of about as many images.

    Attributes:
        least, most: images of a class; None where there is no most.
        classes: how many.
        images: labelled ones that show these classes.
        top_1, top_5: share of them whose label is the best, or among the five best;
            None without images, or where it is not known.
    """

    least: int
    most: int | None
    classes: int
    images: int
    top_1: float | None
    top_5: float | None


def buckets(outcomes: PerImageResults, frequency: np.ndarray) -> list[Bucket]:
    """Accuracy by the frequency of the class; buckets without a class are left out.

    Args:
        outcomes: of the images.
        frequency: int[classes], by which a class belongs to a bucket of EDGES.
    """
    of_class = np.searchsorted(EDGES, frequency)
    of_image = np.where(outcomes.labelled, of_class[outcomes.labels], NONE)
    right = {n: hits(outcomes, n) for n in (1, 5)}
    lows = (0, *(edge + 1 for edge in EDGES))
    made = []
    for bucket, limits in enumerate(zip(lows, (*EDGES, None), strict=True)):
        classes, which = int((of_class == bucket).sum()), of_image == bucket
        shares = (None if row is None else _mean(row[which]) for row in right.values())
        if classes:
            made.append(Bucket(*limits, classes, int(which.sum()), *shares))
    return made


def coverage(outcomes: PerImageResults, points: Sequence[float]) -> np.ndarray:
    """float64[points]: accuracy of the most confident share of the labelled images.

    At 1, of all that have a prediction; NaN where there is none.
    """
    which = outcomes.labelled & outcomes.answered
    order = np.argsort(-outcomes.confidence[which], kind="stable")
    right = np.cumsum(outcomes.correct[which][order])
    if not len(right):
        return np.full(len(points), np.nan)
    images = np.maximum(1, np.ceil(np.asarray(points) * len(right))).astype(int)
    return right[images - 1] / images


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where there is nothing."""
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole != 0)
