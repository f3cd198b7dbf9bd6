"""How good predictions are: totals, tables, and a page to look at."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pipeline.storage import atomic, folder_lock
from pipeline.storage.object_paths import AnyPath
from pipeline.system import resources
from pipeline.system.console import progress
from pipeline.system.errors import RunError
from predictor.evaluation import labels as truth
from predictor.evaluation import results, source, tables
from predictor.evaluation.label_join import match
from predictor.evaluation.labels import ClassIndex, Labels
from predictor.evaluation.results import Evaluation
from predictor.evaluation.source import EvaluationSource
from predictor.format.row_batch import RowBatch
from predictor.page import evaluation_page, thumbnails

_ODD = ("distractors", "without_prediction", "without_label", "unknown_class")


def run(
    output: Path,
    *,
    dataset: AnyPath | None,
    model: AnyPath | None,
    split: str,
    predictions: AnyPath | None,
    labels: AnyPath | None,
    batch_size: int = 64,
    virtual_devices: int | None = None,
    cpu: bool = False,
) -> None:
    """Writes evaluation.json, three CSVs and evaluation.html, and says the totals.

    Args:
        output: folder of these; an earlier evaluation in it is replaced.
        dataset: DATASET. With MODEL, its split is predicted. With PREDICTIONS it has
            the labels, unless these are given, the pictures, and the numbers of
            training images.
        model: MODEL; with PREDICTIONS not needed, but held to be theirs.
        split: of the dataset.
        predictions: PREDICTIONS, in place of predicting.
        labels: a CSV `id,label`, in place of the labels of the dataset. A label that
            has no prediction counts as wrong; a prediction that has none, nowhere.
        batch_size: global, over all replicas.
        virtual_devices, cpu: see distribution.strategy.

    Raises:
        UsageError: there is nothing to evaluate, or nothing to hold it to.
        RunError: the images are not labelled, what was given does not fit, or is
            damaged.
    """
    resources.limit_arenas()
    with folder_lock.held(output):
        given = source.load(
            dataset=dataset,
            model=model,
            split=split,
            predictions=predictions,
            labelled=bool(labels),
        )
        classes = given.classes()
        numbers = ClassIndex(classes)
        told = _truth(given, labels, numbers)
        rows = given.rows(
            batch_size=batch_size, virtual_devices=virtual_devices, cpu=cpu
        )
        with progress(given.images, "evaluate") as bar:
            matched = match(_counted(rows, bar), told, numbers)
        found = Evaluation(
            title=given.title,
            source={
                **given.source,
                "labels": atomic.sha256(labels) if labels else None,
            },
            classes=numbers.names,
            known=len(classes),
            matched=matched,
            frequency=given.frequency(numbers.names),
        )
        _refuse_other_classes(found)
        _write(output, found, _pictures(given, found))
        print(_in_words(found, output))


def _truth(
    given: EvaluationSource, labels: AnyPath | None, numbers: ClassIndex
) -> Labels:
    if labels:
        return truth.of_csv(labels, numbers)
    assert given.dataset
    return truth.of_split(given.dataset, given.split, numbers)


def _counted(rows: Iterator[RowBatch], bar: tqdm) -> Iterator[RowBatch]:
    for part in rows:
        yield part
        bar.update(len(part.ids))


def _refuse_other_classes(found: Evaluation) -> None:
    """Labels that are all strange to the model are those of another list."""
    outcomes, labelled = found.outcomes, found.counts["labelled"]
    labels = outcomes.labels[outcomes.labelled]
    predicted = outcomes.predicted[outcomes.answered]
    if found.known:
        strange = found.unknown_class == labelled
    else:
        strange = not np.isin(predicted, labels).any()
    if strange:
        raise RunError(
            f"none of the {labelled} labels names a class of the model: one is "
            f"{found.classes[labels[0]]!r}, and a prediction is "
            f"{found.classes[predicted[0]]!r}. Give labels by the names of classes.txt."
        )


def _pictures(given: EvaluationSource, found: Evaluation) -> dict[str, bytes]:
    """Of the worst mistakes."""
    if not given.predicted:
        return {}
    return thumbnails.of(given.predicted, given.split, evaluation_page.worst(found))


def _write(output: Path, found: Evaluation, pictures: Mapping[str, bytes]) -> None:
    """Commits the files; evaluation.json comes last, and an earlier one goes first."""
    output.mkdir(parents=True, exist_ok=True)
    folder_lock.remove_scratch(output)
    (output / results.FILE).unlink(missing_ok=True)
    tables.write(output, found)
    atomic.write_text(
        output / evaluation_page.FILE, evaluation_page.html(found, pictures)
    )
    atomic.write_json(output / results.FILE, found.to_json())


def _in_words(found: Evaluation, output: Path) -> str:
    """The totals, and what is odd."""
    totals = (
        f"{name.replace('_', ' ')} {'not known' if value is None else f'{value:.4f}'}"
        for name, value in found.totals.items()
    )
    odd = (
        f", {found.counts[name]} {name.replace('_', ' ')}"
        for name in _ODD
        if found.counts[name]
    )
    return (
        f"{', '.join(totals)}\n"
        f"EVALUATION {output}: {found.counts['labelled']} labelled images"
        f"{''.join(odd)}; look at {output / evaluation_page.FILE}"
    )
