"""evaluation.json: all that was measured, and what the words in it mean."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from predictor.evaluation import metrics
from predictor.evaluation.label_join import JoinedPredictions
from predictor.evaluation.metrics import BINS, Bucket, Calibration, PerClass
from predictor.evaluation.per_image import PerImageResults

VERSION = 1
FILE = "evaluation.json"
CURVE = tuple(n / 50 for n in range(1, 51))  # shares of the images, for `coverage`
_TOLD = 5  # ids of those that do not match

DEFINITIONS = {
    "top_1": "share of the labelled images whose most probable class is the label; of "
    "equal probabilities the class that comes first. An image without a prediction "
    "is wrong",
    "top_5": "share of the labelled images whose label is among the five most probable "
    "classes. An image without a prediction is wrong",
    "gap": "global average precision, as Kaggle's Google Landmark Recognition has it: "
    "1/M Σ P(i) rel(i) over all predictions by falling confidence, equal ones by id; M "
    "is the number of labelled images, with a prediction or not. Distractors count "
    "here, and nowhere else",
    "log_loss": f"mean of -ln of the label's probability, of at least {metrics.LEAST}; "
    "of the images that have a prediction, and whose class is one of the model's",
    "macro_precision": "mean precision of the classes that were predicted",
    "macro_recall": "mean recall of the classes that have images",
    "macro_f1": "mean F1 of the classes that were predicted or have images",
    "calibration_error": "expected calibration error (Guo et al. 2017, "
    f"arXiv:1706.04599): mean of |accuracy - confidence| over {BINS} bins of equal "
    "width, weighted by images",
    "commonest_class": "share of the commonest label: top 1 of who always says it",
    "precision": "share of the labelled images predicted as a class that show it",
    "recall": "share of the images of a class that were predicted as it",
    "distractor": "an image that shows none of the classes: its label is empty",
}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything measured.

    Attributes:
        title: what was evaluated, in a few words.
        source: fingerprints of what went in.
        classes: names, by number.
        known: how many of these, the first, the model is known to have.
        matched: what was evaluated.
        frequency: int64[classes], training images of each class; None where nothing
            tells.
    """

    title: str
    source: Mapping[str, Any]
    classes: tuple[str, ...]
    known: int
    matched: JoinedPredictions
    frequency: np.ndarray | None

    @property
    def outcomes(self) -> PerImageResults:
        """Of every image."""
        return self.matched.outcomes

    @cached_property
    def per_class(self) -> PerClass:
        """Counts by class."""
        return metrics.per_class(self.outcomes, len(self.classes))

    @cached_property
    def calibration(self) -> Calibration:
        """By confidence."""
        return metrics.calibration(self.outcomes)

    @cached_property
    def confusions(self) -> np.ndarray:
        """See metrics.confusions."""
        return metrics.confusions(self.outcomes)

    @cached_property
    def mistakes(self) -> np.ndarray:
        """See metrics.mistakes."""
        return metrics.mistakes(self.outcomes)

    @cached_property
    def buckets(self) -> list[Bucket]:
        """By training images of the class, or else by evaluated ones."""
        told = self.frequency
        return metrics.buckets(
            self.outcomes, self.per_class.images if told is None else told
        )

    @cached_property
    def coverage(self) -> np.ndarray:
        """See metrics.coverage, at CURVE."""
        return metrics.coverage(self.outcomes, CURVE)

    @cached_property
    def never_predicted(self) -> np.ndarray:
        """Numbers of classes, those with the most images first."""
        (never,) = np.nonzero(self.per_class.predicted == 0)
        return never[np.argsort(-self.per_class.images[never], kind="stable")]

    @cached_property
    def unknown_class(self) -> int | None:
        """Labelled images whose class the model has not; None: nothing tells."""
        return int((self.outcomes.labels >= self.known).sum()) if self.known else None

    @cached_property
    def totals(self) -> dict[str, float | None]:
        """The totals; see DEFINITIONS."""
        images = self.per_class.images
        return {
            "top_1": metrics.accuracy(self.outcomes, 1),
            "top_5": metrics.accuracy(self.outcomes, 5),
            "gap": metrics.gap(self.outcomes),
            "log_loss": metrics.log_loss(self.outcomes),
            "macro_precision": _mean(self.per_class.precision),
            "macro_recall": _mean(self.per_class.recall),
            "macro_f1": _mean(self.per_class.f1),
            "calibration_error": self.calibration.error,
            "commonest_class": float(images.max() / images.sum()),
        }

    @cached_property
    def counts(self) -> dict[str, int | None]:
        """Of images."""
        outcomes = self.outcomes
        labelled = int(outcomes.labelled.sum())
        return {
            "labelled": labelled,
            "distractors": len(outcomes.ids) - labelled,
            "mistakes": len(self.mistakes),
            "without_prediction": len(self.matched.without_prediction),
            "without_label": len(self.matched.without_label),
            "unknown_class": self.unknown_class,
        }

    def to_json(self) -> dict[str, Any]:
        """The content of evaluation.json; what is not known is null."""
        images, never = self.per_class.images, self.never_predicted
        return {
            "version": VERSION,
            "source": dict(self.source),
            "images": self.counts,
            "first_without_prediction": self.matched.without_prediction[:_TOLD],
            "first_without_label": self.matched.without_label[:_TOLD],
            "classes": {
                "count": len(self.classes),
                "with_images": int((images > 0).sum()),
                "never_predicted": len(never),
                "never_predicted_with_images": int((images[never] > 0).sum()),
            },
            "metrics": self.totals,
            "by_frequency": {
                "of": "evaluated images" if self.frequency is None else "train images",
                "buckets": [bucket._asdict() for bucket in self.buckets],
            },
            "calibration": _bins(self.calibration),
            "coverage": [
                {"share": share, "accuracy": _number(accuracy)}
                for share, accuracy in zip(CURVE, self.coverage, strict=True)
            ],
            "definitions": DEFINITIONS,
        }


def _bins(found: Calibration) -> list[dict[str, Any]]:
    columns = zip(found.images, found.confidence, found.accuracy, strict=True)
    return [
        {
            "above": number / BINS,
            "up_to": (number + 1) / BINS,
            "images": int(images),
            "confidence": _number(confidence),
            "accuracy": _number(accuracy),
        }
        for number, (images, confidence, accuracy) in enumerate(columns)
    ]


def _mean(values: np.ndarray) -> float | None:
    """Of those that are known."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
