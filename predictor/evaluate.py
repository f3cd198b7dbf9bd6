"""How good predictions are: totals, tables, and a page to look at."""

import contextlib
from pathlib import Path

from pipeline.storage import atomic, folder_lock
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import WORK
from pipeline.system import console, resources
from pipeline.system.errors import RunError
from predictor.evaluation import page, results, source
from predictor.evaluation.image_table import ImageTable
from predictor.evaluation.labels import ClassIndex, Labels, read_labels
from predictor.evaluation.results import Evaluation
from predictor.evaluation.source import EvaluationSource
from trainer.training.interruptions import StopSignal

_FILES = (
    *(results.CLASSES, results.CONFUSIONS, results.MISTAKES),
    *(page.FILE, results.FILE),
)
_FIRST = 2  # totals in the first line: top 1 and top 5
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
            damaged; or the folder has files of others.
        KeyboardInterrupt: SIGINT or SIGTERM.
    """
    resources.limit_arenas()
    with folder_lock.held(output):
        _refuse_files_of_others(output)
        given = source.load(
            dataset=dataset,
            model=model,
            split=split,
            predictions=predictions,
            labelled=bool(labels),
        )
        console.say(f"EVALUATION {output}: {given.images:,} images. {given.title}")
        known = given.classes()
        classes = ClassIndex(known)
        table = _collect(
            given,
            classes,
            read_labels(labels, classes) if labels else None,
            batch_size=batch_size,
            virtual_devices=virtual_devices,
            cpu=cpu,
        )
        found = Evaluation(
            title=given.title,
            source={
                **given.source,
                "labels": atomic.sha256(labels) if labels else None,
            },
            classes=classes.names,
            known=len(known),
            images=table.joined(),
            frequency=given.frequency(classes.names),
        )
        _refuse_other_classes(found)
        _write(output, found, page.html(found, table.pictures))
        console.conclude(_in_words(found, output), following=_following(given))


def _collect(
    given: EvaluationSource,
    classes: ClassIndex,
    labels: Labels | None,
    *,
    batch_size: int,
    virtual_devices: int | None,
    cpu: bool,
) -> ImageTable:
    """Predicts or reads all images, a part at a time in memory."""
    if labels is None:
        given.check_labels()
    table = ImageTable(classes, labels)
    parts = given.parts(batch_size=batch_size, virtual_devices=virtual_devices, cpu=cpu)
    # TensorFlow would make errors of its own of what interrupts it.
    with (
        StopSignal() as stop,
        stop.put_off(),
        contextlib.closing(parts),
        console.progress(given.images, "evaluate") as bar,
    ):
        for part in parts:
            if stop.requested:
                raise KeyboardInterrupt
            table.add(part)
            bar.update(len(part[0].ids))
    return table


def _refuse_files_of_others(output: Path) -> None:
    """Refuses a folder whose files of the same names no evaluation has written."""
    there = {path.name for path in output.iterdir()}
    if WORK in there:  # left by an evaluation that was killed while it wrote
        return
    file = output / results.FILE
    if file.is_file() and {"metrics", "version"} <= atomic.read_json(file).keys():
        return
    if others := [name for name in _FILES if name in there]:
        raise RunError(
            f"{output.absolute()} has a file {others[0]!r} that no evaluation wrote. "
            "It would be replaced: name another folder (--evaluation), or remove it."
        )


def _refuse_other_classes(found: Evaluation) -> None:
    """Refuses labels that are all strange to the model: they are of another list."""
    labelled = found.images[found.images["labelled"]]
    answered = found.images[found.images["_merge"] == "both"]
    if found.known:
        strange = found.unknown_class == len(labelled)
    else:
        strange = not answered["predicted"].isin(labelled["label"]).any()
    if strange:
        label, predicted = labelled["label"].iloc[0], answered["predicted"].iloc[0]
        raise RunError(
            f"none of the {len(labelled)} labels names a class of the model: one is "
            f"{found.classes[label]!r}, and a prediction is "
            f"{found.classes[predicted]!r}. Give labels by the names of classes.txt."
        )


def _write(output: Path, found: Evaluation, text: str) -> None:
    """Commits the files; evaluation.json comes last, and an earlier one goes first."""
    work = output / WORK  # tells a killed evaluation from files of others
    work.mkdir(parents=True, exist_ok=True)
    folder_lock.remove_scratch(work)
    (output / results.FILE).unlink(missing_ok=True)
    for name, content in {**found.csvs(), page.FILE: text.encode()}.items():
        with atomic.commit(output / name, scratch=work) as file:
            file.write(content)
    atomic.write_json(output / results.FILE, found.to_json(), scratch=work)
    atomic.remove_tree(work)


def _in_words(found: Evaluation, output: Path) -> str:
    """The totals, and what is odd."""
    totals = [
        f"{name.replace('_', ' ')} {'not known' if value is None else f'{value:.4f}'}"
        for name, value in found.totals.items()
    ]
    odd = (
        f", {found.counts[name]} {name.replace('_', ' ')}"
        for name in _ODD
        if found.counts[name]
    )
    return (
        f"EVALUATION {output} is complete: {found.counts['labelled']} labelled images"
        f"{''.join(odd)}; {', '.join(totals[:_FIRST])}\n"
        f"  {', '.join(totals[_FIRST:])}\n"
        f"  look at {output / page.FILE}"
    )


def _following(given: EvaluationSource) -> str:
    """Returns the command that comes after MODEL was judged."""
    if given.predictions:
        return ""
    model, dataset = given.given
    return console.command(
        "predictor", "predict", model=model, dataset=dataset.folder, predictions=None
    )
