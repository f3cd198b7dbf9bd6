"""The CSVs of an evaluation."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from pipeline.storage import atomic
from predictor.evaluation.results import Evaluation

CLASSES, CONFUSIONS, MISTAKES = "classes.csv", "confusions.csv", "mistakes.csv"
_MOST_CONFUSIONS = 1_000
_MOST_MISTAKES = 10_000


def write(folder: Path, evaluation: Evaluation) -> None:
    """Commits classes.csv, confusions.csv and mistakes.csv."""
    for name, lines in (
        (CLASSES, _classes(evaluation)),
        (CONFUSIONS, _confusions(evaluation)),
        (MISTAKES, _mistakes(evaluation)),
    ):
        with atomic.commit(folder / name) as file:
            file.writelines(line.encode() for line in map(atomic.csv_line, lines))


def _classes(evaluation: Evaluation) -> Iterator[Iterable[str]]:
    """A line for each class; an empty field is not known, or there is none."""
    found, frequency = evaluation.per_class, evaluation.frequency
    yield (
        *("class", "train_images", "images", "predicted", "true_positives"),
        *("precision", "recall", "f1"),
    )
    shares = zip(found.precision, found.recall, found.f1, strict=True)
    for number, (name, row) in enumerate(zip(evaluation.classes, shares, strict=True)):
        train = "" if frequency is None else str(frequency[number])
        counts = (str(column[number]) for column in found)
        yield (name, train, *counts, *map(_text, row))


def _confusions(evaluation: Evaluation) -> Iterator[Iterable[str]]:
    """Pairs, those of the most images first."""
    yield ("label", "predicted", "count", "share")
    images, names = evaluation.per_class.images, evaluation.classes
    for label, predicted, count in evaluation.confusions[:_MOST_CONFUSIONS]:
        share = _text(count / images[label])
        yield (names[label], names[predicted], str(count), share)


def _mistakes(evaluation: Evaluation) -> Iterator[Iterable[str]]:
    """Images, the worst mistakes first."""
    yield ("id", "label", "predicted", "probability", "probability_of_label")
    outcomes, names = evaluation.outcomes, evaluation.classes
    for at in evaluation.mistakes[:_MOST_MISTAKES]:
        yield (
            outcomes.ids[at],
            names[outcomes.labels[at]],
            names[outcomes.predicted[at]],
            _text(outcomes.confidence[at]),
            _text(outcomes.probability[at]),
        )


def _text(value: np.floating) -> str:
    """The shortest text that reads back as the same number."""
    return "" if np.isnan(value) else str(value)
