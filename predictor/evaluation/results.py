"""All that was measured: evaluation.json, three CSVs, and what the words in it mean."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from pipeline.storage import atomic
from predictor.evaluation import metrics
from predictor.evaluation.metrics import BINS, Bucket

VERSION = 2
FILE = "evaluation.json"
CLASSES, CONFUSIONS, MISTAKES = "classes.csv", "confusions.csv", "mistakes.csv"
_TOLD = 5  # ids of those that do not match

DEFINITIONS = {
    "top_1": "share of the labelled images whose most probable class is the label; of "
    "equal probabilities the class that comes first. An image without a prediction "
    "is wrong; of several labels the one counts that the model ranks best",
    "top_5": "share of the labelled images whose label is among the five most probable "
    "classes. An image without a prediction is wrong",
    "gap": "global average precision, as Kaggle's Google Landmark Recognition has it: "
    "1/M Σ P(i) rel(i) over all predictions by falling confidence, equal ones by id; M "
    "is the number of images that show a class of training, with a prediction or not. "
    "Distractors count here, and nowhere else",
    "log_loss": "mean of -ln of the label's probability, which is at least "
    f"{metrics.LEAST}, so that one image adds {-np.log(metrics.LEAST):.1f} at most. "
    "An image without a prediction, or of a class that the model has not, adds that",
    "macro_precision": "mean precision of the classes that have images or were "
    "predicted, 0 for one that was never predicted: as scikit-learn, average=macro",
    "macro_recall": "mean recall of the classes that have images or were predicted, 0 "
    "for one without images: as scikit-learn, average=macro",
    "macro_f1": "mean F1 of the classes that have images or were predicted: as "
    "scikit-learn, average=macro",
    "balanced_accuracy": "mean recall of the classes that have images",
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
        images: the table of images; see image_table.ImageTable.
        frequency: int64[classes], training images of each class; None where nothing
            tells.
    """

    title: str
    source: Mapping[str, Any]
    classes: tuple[str, ...]
    known: int
    images: pd.DataFrame
    frequency: np.ndarray | None

    @cached_property
    def per_class(self) -> pd.DataFrame:
        """See metrics.per_class; with `class` and `train_images` before these."""
        found = metrics.per_class(self.images, len(self.classes))
        found.insert(0, "class", self.classes)
        found.insert(1, "train_images", self.frequency)
        return found

    @cached_property
    def calibration(self) -> pd.DataFrame:
        """See metrics.calibration."""
        return metrics.calibration(self.images)

    @cached_property
    def confusions(self) -> pd.DataFrame:
        """See metrics.confusions; with names of classes."""
        return self._named(metrics.confusions(self.images))

    @cached_property
    def mistakes(self) -> pd.DataFrame:
        """See metrics.mistakes; with names of classes."""
        return self._named(metrics.mistakes(self.images))

    @cached_property
    def buckets(self) -> list[Bucket]:
        """Groups classes by training images; where not known, by evaluated ones."""
        counts = self.per_class["images"].to_numpy()
        return metrics.buckets(
            self.images, counts if self.frequency is None else self.frequency
        )

    @cached_property
    def never_predicted(self) -> pd.DataFrame:
        """The classes that no image was predicted as; those of most images first."""
        never = self.per_class[self.per_class["predicted"] == 0]
        return never.sort_values("images", ascending=False, kind="stable")

    @cached_property
    def unknown_class(self) -> int | None:
        """Labelled images whose class the model has not; None: nothing tells."""
        return int((self.images["label"] >= self.known).sum()) if self.known else None

    @cached_property
    def totals(self) -> dict[str, float | None]:
        """The totals; see DEFINITIONS."""
        table, found = self.images, self.per_class
        seen = found[found["images"] > 0]
        return {
            "top_1": metrics.accuracy(table, 1),
            "top_5": metrics.accuracy(table, 5),
            "gap": metrics.gap(table, self.known),
            "log_loss": metrics.log_loss(table),
            "macro_precision": metrics.macro(found, "precision"),
            "macro_recall": metrics.macro(found, "recall"),
            "macro_f1": metrics.macro(found, "f1"),
            "balanced_accuracy": float(seen["recall"].mean()),
            "calibration_error": metrics.calibration_error(self.calibration),
            "commonest_class": float(seen["images"].max() / seen["images"].sum()),
        }

    @cached_property
    def counts(self) -> dict[str, int | None]:
        """Returns the counts of images."""
        listed = self.images["_merge"] != "right_only"
        labelled = int(self.images["labelled"].sum())
        return {
            "labelled": labelled,
            "distractors": int(listed.sum()) - labelled,
            "mistakes": len(self.mistakes),
            "without_prediction": len(self.without_prediction),
            "without_label": len(self.without_label),
            "unknown_class": self.unknown_class,
        }

    @property
    def without_prediction(self) -> list[str]:
        """Ids of labels."""
        return self.images["id"][self.images["_merge"] == "left_only"].tolist()

    @property
    def without_label(self) -> list[str]:
        """Ids of predictions."""
        return self.images["id"][self.images["_merge"] == "right_only"].tolist()

    def to_json(self) -> dict[str, Any]:
        """Returns the content of evaluation.json; what is not known is null."""
        images, never = self.per_class["images"], self.never_predicted
        bins = self.calibration.astype(object).where(self.calibration.notna(), None)
        return {
            "version": VERSION,
            "source": dict(self.source),
            "images": self.counts,
            "first_without_prediction": self.without_prediction[:_TOLD],
            "first_without_label": self.without_label[:_TOLD],
            "classes": {
                "count": len(self.classes),
                "with_images": int((images > 0).sum()),
                "never_predicted": len(never),
                "never_predicted_with_images": int((never["images"] > 0).sum()),
            },
            "metrics": self.totals,
            "by_frequency": {
                "of": "evaluated images" if self.frequency is None else "train images",
                "buckets": [bucket._asdict() for bucket in self.buckets],
            },
            "calibration": bins.to_dict("records"),
            "definitions": DEFINITIONS,
        }

    def csvs(self) -> dict[str, bytes]:
        """Returns the CSVs by name; an empty field is not known, or there is none."""
        columns = {"confidence": "probability", "probability": "probability_of_label"}
        mistakes = self.mistakes.rename(columns=columns)
        names = ["id", "label", "predicted", *columns.values()]
        return {
            CLASSES: _csv(self.per_class),
            CONFUSIONS: _csv(self.confusions),
            MISTAKES: _csv(mistakes[names]),
        }

    def _named(self, found: pd.DataFrame) -> pd.DataFrame:
        """Returns a table with names of classes in place of their numbers."""
        names = np.array(self.classes, object)
        return found.assign(
            label=names[found["label"]], predicted=names[found["predicted"]]
        )


def _csv(found: pd.DataFrame) -> bytes:
    """Returns text whose numbers are the shortest that read back as the same.

    Not DataFrame.to_csv, which leaves a carriage return in a name without quotes.
    """
    columns = (
        ["" if pd.isna(value) else str(value) for value in found[name].to_numpy()]
        for name in found
    )
    rows = zip(*columns, strict=True)
    lines = map(atomic.csv_line, (found.columns, *rows))
    return "".join(lines).encode()
