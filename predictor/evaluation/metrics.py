"""How good predictions are, from the table of images: see per_image.results.

Images without a prediction are wrong by every measure. Distractors, which show none of
the classes, count in `gap` alone.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.dataset import class_frequency
from pipeline.dataset.class_frequency import LIMITS, Limits

LEAST = 1e-7  # probability in a logarithm: that of keras.losses
BINS = 15  # of the calibration: arXiv:1706.04599, section 4


def gap(table: pd.DataFrame, known: int) -> float | None:
    """Returns the global average precision, or micro average precision, at 1.

    As Kaggle's Google Landmark Recognition defines it: of all N predictions, sorted by
    confidence, GAP = 1/M Σ P(i) rel(i), where M is the number of images that show a
    class of training, P(i) the precision among the first i, and rel(i) 1 if the i-th is
    right, else 0. Equal confidences are sorted by id, as text. Predictions of images
    that are not in the list of labels are left out.

    Args:
        table: sorted by id.
        known: the first so many classes are those of training; 0: nothing tells which,
            and all are taken for that.

    Returns:
        From 0 to 1; None where no image shows a class of training.
    """
    shows_one = table["labelled"] & ((table["label"] < known) | (not known))
    listed = table[table["answered"] & (table["_merge"] != "right_only")]
    listed = listed.sort_values("confidence", ascending=False, kind="stable")
    right = listed["correct"].to_numpy()
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    images = int(shows_one.sum())
    return float(precision[right].sum() / images) if images else None


def hits(table: pd.DataFrame, n: int) -> pd.Series | None:
    """Returns whether the label is among the n best; None where one is not known."""
    behind = table["rank"][table["labelled"] & (table["rank"] < 0)]
    return None if (-behind < n).any() else table["rank"].between(1, n)


def accuracy(table: pd.DataFrame, n: int) -> float | None:
    """Returns the share of labelled images whose label is among the n best."""
    right = hits(table, n)
    return None if right is None else _mean(right[table["labelled"]])


def log_loss(table: pd.DataFrame) -> float | None:
    """Returns the mean of -ln of the label's probability, clipped to LEAST.

    The probability is 0 without a prediction, and for a class that the model has not:
    leaving images out makes nothing better. None where it is not known of one of them.
    """
    labelled = table[table["labelled"]]
    if (labelled["rank"] < 0).any():
        return None
    own = labelled["probability"].fillna(0).astype(np.float64)
    return _mean(-np.log(own.clip(LEAST, 1)))


def per_class(table: pd.DataFrame, classes: int) -> pd.DataFrame:
    """Counts the labelled images of every class.

    Returns:
        A row for each class: images (that show it), predicted (as it), true_positives
        (both), and precision, recall and f1, NaN where there is nothing to divide by.
    """
    labelled = table[table["labelled"]]

    def count(column: str, which: str) -> np.ndarray:
        return np.bincount(labelled[column][labelled[which]], minlength=classes)

    found = pd.DataFrame(
        {
            "images": count("label", "labelled"),
            "predicted": count("predicted", "answered"),
            "true_positives": count("label", "correct"),
        }
    )
    right = found["true_positives"]
    return found.assign(
        precision=right / found["predicted"],
        recall=right / found["images"],
        f1=2 * right / (found["images"] + found["predicted"]),
    )


def macro(found: pd.DataFrame, column: str) -> float | None:
    """Returns a mean over classes that have images or were predicted.

    What cannot be divided counts as 0: as scikit-learn, average="macro".

    Args:
        found: of per_class.
        column: precision, recall or f1.
    """
    there = (found["images"] > 0) | (found["predicted"] > 0)
    return _mean(found[column][there].fillna(0))


def confusions(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the pairs of a label and another class that was predicted.

    Returns:
        label, predicted, count, and share (of the images of the label); most images
        first, pairs of as many in the order of the classes.
    """
    labelled = table[table["labelled"]]
    wrong = labelled[labelled["answered"] & ~labelled["correct"]]
    pairs = wrong.groupby(["label", "predicted"]).size().reset_index(name="count")
    of_label = labelled.groupby("label").size()
    pairs["share"] = pairs["count"] / pairs["label"].map(of_label)
    return pairs.sort_values("count", ascending=False, kind="stable", ignore_index=True)


def mistakes(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of labelled images that were predicted wrong, the worst first.

    The worst are those of the greatest confidence; of equal ones, of the least
    probability of the label where it is known, then by id.
    """
    wrong = table[table["labelled"] & table["answered"] & ~table["correct"]]
    return (
        wrong.assign(own=wrong["probability"].fillna(0))
        .sort_values(["confidence", "own", "id"], ascending=[False, True, True])
        .drop(columns="own")
    )


def calibration(table: pd.DataFrame) -> pd.DataFrame:
    """Compares confidence and accuracy of labelled images with a prediction.

    Returns:
        BINS rows: `above` and `up_to`, the limits of the confidence; images;
        confidence and accuracy, their means, NaN in an empty bin.
    """
    found = table[table["labelled"] & table["answered"]]
    confidence = found["confidence"].astype(np.float64)
    bins = (np.ceil(confidence * BINS) - 1).clip(0, BINS - 1).astype(int)
    by_bin = found.assign(confidence=confidence).groupby(bins)
    edges = np.arange(BINS + 1) / BINS
    means = by_bin.agg(
        images=("id", "size"),
        confidence=("confidence", "mean"),
        accuracy=("correct", "mean"),
    ).reindex(range(BINS))
    means["images"] = means["images"].fillna(0).astype(int)
    means.insert(0, "above", edges[:-1])
    means.insert(1, "up_to", edges[1:])
    return means


def calibration_error(bins: pd.DataFrame) -> float | None:
    """Returns the expected calibration error: mean |accuracy - confidence|.

    Guo et al., On Calibration of Modern Neural Networks, 2017 (arXiv:1706.04599),
    equation 3, with bins of equal width. None without an image.
    """
    images = bins["images"].sum()
    gaps = (bins["accuracy"] - bins["confidence"]).abs() * bins["images"]
    return float(gaps.sum() / images) if images else None


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

    @property
    def in_words(self) -> str:
        """The limits: `0`, `6-20`, `> 2,000`."""
        return Limits(self.least, self.most).in_words


def buckets(table: pd.DataFrame, frequency: np.ndarray) -> list[Bucket]:
    """Returns the accuracy by frequency of the class, of buckets that have classes.

    Args:
        table: of the images.
        frequency: int[classes], by which a class belongs to one of LIMITS.
    """
    of_class = class_frequency.bucket_of(frequency)
    labelled = table[table["labelled"]]
    of_image = of_class[labelled["label"]]
    right = [hits(labelled, 1), hits(labelled, 5)]
    made = []
    for bucket, limits in enumerate(LIMITS):
        classes, which = int((of_class == bucket).sum()), of_image == bucket
        shares = (None if found is None else _mean(found[which]) for found in right)
        if classes:
            made.append(Bucket(*limits, classes, int(which.sum()), *shares))
    return made


def _mean(values: pd.Series) -> float | None:
    return float(values.mean()) if len(values) else None
