"""Every prediction meets its label, by the id of the image."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from pipeline.system.errors import RunError
from predictor.evaluation import per_image as outcomes
from predictor.evaluation.labels import ClassIndex, Labels
from predictor.evaluation.per_image import PerImageResults
from predictor.format.row_batch import RowBatch


class JoinedPredictions(NamedTuple):
    """What was evaluated, and what could not be.

    Attributes:
        outcomes: of every image that has a label or is a distractor; of a distractor
            only where it has a prediction.
        without_prediction: ids of labels, among `outcomes`.
        without_label: ids of predictions, not among them.
    """

    outcomes: PerImageResults
    without_prediction: list[str]
    without_label: list[str]


def match(
    rows: Iterable[RowBatch], truth: Labels, numbers: ClassIndex
) -> JoinedPredictions:
    """Reduces every row to its outcome, one part in memory at a time.

    Args:
        rows: of all files, in any order.
        truth: the labels.
        numbers: of classes, those of the columns first.

    Raises:
        RunError: an id or a label has two predictions, or no label has one.
    """
    matching = _Join(truth, numbers)
    parts = [matching.part(part) for part in rows]
    missing = [
        image_id
        for image_id, label in truth.labels.items()
        if label != outcomes.NONE and image_id not in matching.taken
    ]
    labels = np.array([truth.labels[image_id] for image_id in missing], np.int32)
    parts.append(outcomes.without_prediction(missing, labels))
    joined = outcomes.join(parts)
    if not (joined.labelled & joined.answered).any():
        raise RunError(_nothing(matching, truth))
    return JoinedPredictions(joined, sorted(missing), sorted(matching.without_label))


class _Join:
    """What the parts of a run have in common.

    Attributes:
        taken: the id of the prediction by the id of its label.
        without_label: ids of predictions.
    """

    def __init__(self, truth: Labels, numbers: ClassIndex) -> None:
        self._truth = truth
        self._numbers = numbers
        self.taken: dict[str, str] = {}
        self.without_label: list[str] = []

    def part(self, rows: RowBatch) -> PerImageResults:
        """The outcomes of the rows that have a label."""
        kept, ids, labels = [], [], []
        for row, image_id in enumerate(rows.ids):
            if rows.classes is not None and not rows.classes[row]:
                continue  # a submission that says nothing of this image
            if (key := self._truth.key(image_id)) is None:
                self.without_label.append(image_id)
                continue
            self._take(key, image_id)
            kept.append(row)
            ids.append(image_id)
            labels.append(self._truth.labels[key])
        whole = len(kept) == len(rows.ids)
        probabilities = rows.probabilities if whole else rows.probabilities[kept]
        if rows.classes is None:
            return outcomes.of_probabilities(ids, np.array(labels, int), probabilities)
        ranked = [[self._numbers.of(name) for name in rows.classes[at]] for at in kept]
        shaped = np.array(ranked, int).reshape(probabilities.shape)
        return outcomes.of_ranked(ids, np.array(labels, int), shaped, probabilities)

    def _take(self, key: str, image_id: str) -> None:
        if key in self.taken:
            raise RunError(
                f"the label of {key!r} has two predictions, of {self.taken[key]!r} and "
                f"of {image_id!r}. An image is predicted once: remove one of them, or "
                "predict again."
            )
        self.taken[key] = image_id


def _nothing(matching: _Join, truth: Labels) -> str:
    there = next(iter(matching.without_label), None)
    return (
        f"none of the {len(truth.labels)} ids of labels, such as "
        f"{next(iter(truth.labels))!r}, is that of one of the "
        f"{len(matching.without_label) + len(matching.taken)} images predicted"
        + (f", such as {there!r}" if there is not None else " with a label")
        + ". Give the labels of these images, or predict those."
    )
