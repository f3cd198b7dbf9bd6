"""PREDICTIONS → whole, or what is wrong with them: every byte and every row read."""

import contextlib
import hashlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.dataset import ledger, manifest
from pipeline.dataset.manifest import CLASSES, Dataset
from pipeline.dataset.shard_check import Problems
from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import WORK
from pipeline.system import child_process, console
from pipeline.system.errors import RunError, UnavailableError
from predictor.format import file_check, predictions_manifest, reader
from predictor.format.file_check import Task
from predictor.format.predictions_manifest import MANIFEST, REJECTS
from predictor.format.reader import DamagedFileError, Predictions

_TOLD = 20  # problems that are listed; the rest is counted
_MODEL = "model.json"  # of MODEL; trainer.model would import TensorFlow
_ADVICE = (
    "Restore the named files from a copy, or remove the folder and run the same `make "
    "predict` again."
)


def run(
    folder: AnyPath,
    *,
    dataset: AnyPath | None = None,
    model: AnyPath | None = None,
    workers: int = 1,
) -> None:
    """Reads all of PREDICTIONS, and prints that they are whole.

    Args:
        folder: PREDICTIONS.
        dataset: DATASET that they were made of; then ids are held to its records, and
            else to the checksum of ids that was noted when they were predicted.
        model: MODEL that they were made with.
        workers: processes; one file each at a time.

    Raises:
        RunError: they are incomplete, or not whole: the message lists what is wrong.
    """
    started = time.monotonic()
    made = reader.load(folder)
    loaded = manifest.load(dataset) if dataset else None
    problems = Problems(_TOLD)
    for line in (*_names(made), *_totals(made), *_origins(made, loaded, model)):
        problems.add(line)
    reports = child_process.each(
        file_check.check, _tasks(made, loaded, model), workers=workers, of="verify"
    )
    hashes: list[np.ndarray] = []
    with (
        console.progress(made.value["rows"], "verify", unit="row") as bar,
        contextlib.closing(reports),
    ):
        for report in reports:
            hashes.append(np.fromiter(map(_hash, report.ids), np.uint64))
            problems.extend(report.problems)
            bar.update(len(report.ids))
    for line in _repeated(made, hashes):
        problems.add(line)
    if problems.count:
        raise RunError(problems.told(f"PREDICTIONS {folder} are", _ADVICE))
    console.conclude(
        _summary(made, loaded, model, time.monotonic() - started),
        following=_following(made, loaded),
    )


def _following(made: Predictions, dataset: Dataset | None) -> str:
    """Returns the command that judges them, where DATASET has labels of their split."""
    split = made.value["split"]
    if not dataset or not any(manifest.class_counts(dataset, split)):
        return ""
    given = {"predictions": made.folder, "dataset": dataset.folder, "split": split}
    return console.command("predictor", "evaluate", **given)


def _names(made: Predictions) -> Iterator[str]:
    """Files are numbered from 0, say how many there are, and are all that is there."""
    count, extension = len(made.files), made.format.extension
    for index, entry in enumerate(made.files):
        name = predictions_manifest.shard_name(index, count, extension)
        if entry.file != name:
            yield f"{MANIFEST}: file {index} of {count} is {entry.file}, not {name}"
    known = {MANIFEST, *(entry.file for entry in made.files)}
    if made.value["images"]:
        known.add(REJECTS)
    for name in sorted(path.name for path in made.folder.iterdir()):
        if name == WORK:
            yield f"{name}: left by a run that was stopped; `make predict` removes it"
        elif name not in known:
            yield f"{name}: is no part of the predictions; remove it"


def _totals(made: Predictions) -> Iterator[str]:
    """The numbers of predictions.json that do not come to each other."""
    account = made.value["ledger"]
    rows = sum(entry.rows for entry in made.files)
    if rows != made.value["rows"]:
        yield f"{MANIFEST}: rows is {made.value['rows']}; those of its files are {rows}"
    if made.format.kind != "submission" and rows != account["predicted"]:
        yield (
            f"{MANIFEST}: ledger.predicted is {account['predicted']}; its files have "
            f"{rows} rows"
        )
    if account["examples"] != account["predicted"] + account["rejected"]:
        yield (
            f"{MANIFEST}: {account['examples']} examples are not "
            f"{account['predicted']} predicted + {account['rejected']} rejected"
        )
    if made.value["images"]:
        yield from _rejects(made, account["rejected"])


def _rejects(made: Predictions, promised: int) -> Iterator[str]:
    try:
        found = len(ledger.read_rejects(made.folder / REJECTS))
    except UnavailableError:  # says nothing about the file
        raise
    except RunError as error:
        yield str(error)
        return
    if found != promised:
        yield f"{REJECTS}: has {found} rows; {MANIFEST} promises {promised}"


def _origins(
    made: Predictions, dataset: Dataset | None, model: AnyPath | None
) -> Iterator[str]:
    """Says where they are not of what was given."""
    if dataset and dataset.fingerprint != made.value["dataset"]:
        yield (
            f"{MANIFEST}: dataset is {made.value['dataset']}; the fingerprint of "
            f"{dataset.folder} is {dataset.fingerprint}"
        )
    elif dataset:
        split = dataset.split(made.value["split"])
        examples = made.value["ledger"]["examples"]
        if examples != split.examples:
            yield (
                f"{MANIFEST}: ledger.examples is {examples}; {made.value['split']} has "
                f"{split.examples}"
            )
        if len(made.files) != len(split.shards) and made.format.kind != "submission":
            yield (
                f"{MANIFEST}: has {len(made.files)} files; {made.value['split']} has "
                f"{len(split.shards)} shards"
            )
    if model:
        described = _read_model(model)
        for name, found in (("model", "sha256"), ("classes", "classes")):
            if made.value[name] != described.get(found):
                yield (
                    f"{MANIFEST}: {name} is {made.value[name]}; {model / _MODEL} has "
                    f"{described.get(found)}"
                )


def _read_model(folder: AnyPath) -> dict[str, Any]:
    if not (folder / _MODEL).is_file():
        raise RunError(
            f"MODEL {folder} has no {_MODEL}: it does not exist, or is incomplete. "
            "Name the MODEL that predicted, or none."
        )
    return atomic.read_json(folder / _MODEL)


def _tasks(
    made: Predictions, dataset: Dataset | None, model: AnyPath | None
) -> list[Task]:
    classes = _classes(made, dataset, model)
    shards: list[Sequence[AnyPath] | None] = [None] * len(made.files)
    if dataset and dataset.fingerprint == made.value["dataset"]:
        paths = dataset.paths(made.value["split"])
        shards = [paths[at : at + 1] for at in range(len(made.files))]
        if made.format.kind == "submission":  # one file, of all of them
            shards = [paths] * len(made.files)
    return [
        Task(made, entry, of, classes)
        for entry, of in zip(made.files, shards, strict=True)
    ]


def _classes(
    made: Predictions, dataset: Dataset | None, model: AnyPath | None
) -> frozenset[str] | None:
    """The class names, where they are at hand: in DATASET, or in MODEL."""
    promised = made.value["classes"]
    if dataset and manifest.classes_entry(dataset.classes) == promised:
        return frozenset(dataset.classes)
    if model and _read_model(model).get("classes") == promised:
        return frozenset(manifest.read_classes(model / CLASSES, promised))
    return None


def _hash(image_id: str) -> int:
    digest = hashlib.blake2b(image_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _repeated(made: Predictions, hashes: Sequence[np.ndarray]) -> Iterator[str]:
    """Names ids that are there more than once, over all files.

    Only files whose ids share a hash are read again: a row takes 8 bytes of memory.
    """
    values, counts = np.unique(
        np.concatenate([np.empty(0, np.uint64), *hashes]), return_counts=True
    )
    twice = set(values[counts > 1].tolist())
    seen: dict[str, str] = {}
    for entry, own in zip(made.files, hashes, strict=True):
        if twice.isdisjoint(own.tolist()):
            continue
        ids = (image_id for part in reader.rows(made, entry) for image_id in part.ids)
        with contextlib.suppress(DamagedFileError):  # it is named already
            # Of a damaged file there may be fewer hashes than rows.
            for row, (key, image_id) in enumerate(zip(own, ids, strict=False), 1):
                if image_id in seen:
                    where = f"{entry.file}: row {row}, id {image_id!r}"
                    yield f"{where}: is in {seen[image_id]}, too"
                if int(key) in twice:
                    seen[image_id] = f"row {row} of {entry.file}"


def _summary(
    made: Predictions, dataset: Dataset | None, model: AnyPath | None, seconds: float
) -> str:
    account, rows = made.value["ledger"], made.value["rows"]
    held = {"the records of DATASET": dataset, "MODEL": model}
    against = " and ".join(what for what, given in held.items() if given)
    size = console.in_bytes(sum(entry.bytes for entry in made.files))
    return (
        f"PREDICTIONS {made.folder} are whole: {account['examples']} images = "
        f"{account['predicted']} predicted + {account['rejected']} rejected\n"
        f"  all {rows} rows in {len(made.files)} files ({size}) have the promised "
        "bytes, every id is there once, and every row is one of probabilities"
        f"{f'; held to {against}' if against else ''}\n"
        f"  {seconds:.1f} s, {rows / max(seconds, 1e-9):,.0f} rows/s"
    )
