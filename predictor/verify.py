"""PREDICTIONS → whole, or what is wrong with them: every byte and every row read."""

import contextlib
import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import google_crc32c
import numpy as np

from pipeline import audit, console, files, ledger, manifest, pool, record
from pipeline.audit import Problems
from pipeline.console import RunError
from pipeline.manifest import CLASSES, Dataset
from pipeline.workfolder import WORK
from predictor import csv_shards, reading
from predictor.csv_shards import MANIFEST, REJECTS, Entry
from predictor.reading import DamagedFileError, Predictions, Rows

# A sum of float32 may be off by 2**-24 for each of its terms: by 9e-4 for 15,000.
_TOLERANCE = 1e-3
_TOLD = 20  # problems that are listed; the rest is counted
_TOLD_PER_FILE = 5  # so that one bad file leaves room for the others
_CHUNK = 1 << 22  # bytes
_MODEL = "model.json"  # of MODEL; trainer.model would import TensorFlow
_ADVICE = (
    "Restore the named files from a copy, or remove the folder and run the same `make "
    "predict` again."
)


@dataclass(frozen=True)
class Task:
    """A file and all that it is held to.

    Attributes:
        made: PREDICTIONS.
        entry: what predictions.json says of the file.
        shards: of DATASET, whose images it is of; None where they are not at hand.
        classes: of the model; None where they are not known.
    """

    made: Predictions
    entry: Entry
    shards: Sequence[Path] | None
    classes: frozenset[str] | None


@dataclass
class Report:
    """What a file was found to be.

    Attributes:
        entry: what predictions.json says of it.
        ids: in order.
        silent: the rows, from 1, that know nothing, as those of a submission may.
        problems: with it.
        whole: every row was read.
    """

    entry: Entry
    ids: list[str] = field(default_factory=list)
    silent: set[int] = field(default_factory=set)
    problems: Problems = field(default_factory=lambda: Problems(_TOLD_PER_FILE))
    whole: bool = False

    def add(self, problem: str) -> None:
        """Adds a problem of the file."""
        self.problems.add(f"{self.entry.file}: {problem}")


def run(
    folder: Path,
    *,
    dataset: Path | None = None,
    model: Path | None = None,
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
    made = reading.load(folder)
    loaded = manifest.load(dataset) if dataset else None
    problems = Problems(_TOLD)
    for line in (*_names(made), *_totals(made), *_origins(made, loaded, model)):
        problems.add(line)
    reports = pool.each(
        check, _tasks(made, loaded, model), workers=workers, of="verify"
    )
    seen: dict[str, str] = {}
    with (
        console.progress(made.value["rows"], "verify", unit="row") as bar,
        contextlib.closing(reports),
    ):
        for report in reports:
            _find_repeated(report, seen)
            problems.extend(report.problems)
            bar.update(len(report.ids))
    if problems.count:
        raise RunError(problems.told(f"PREDICTIONS {folder} are", _ADVICE))
    print(_summary(made, loaded, model, time.monotonic() - started))


def _names(made: Predictions) -> Iterator[str]:
    """Files are numbered from 0, say how many there are, and are all that is there."""
    count, extension = len(made.files), made.format.extension
    for index, entry in enumerate(made.files):
        name = csv_shards.shard_name(index, count, extension)
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
    except RunError as error:
        yield str(error)
        return
    if found != promised:
        yield f"{REJECTS}: has {found} rows; {MANIFEST} promises {promised}"


def _origins(
    made: Predictions, dataset: Dataset | None, model: Path | None
) -> Iterator[str]:
    """Where they are not of what was given."""
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


def _read_model(folder: Path) -> dict[str, Any]:
    if not (folder / _MODEL).is_file():
        raise RunError(
            f"MODEL {folder} has no {_MODEL}: it does not exist, or is incomplete. "
            "Name the MODEL that predicted, or none."
        )
    return files.read_json(folder / _MODEL)


def _tasks(
    made: Predictions, dataset: Dataset | None, model: Path | None
) -> list[Task]:
    classes = _classes(made, dataset, model)
    shards: list[Sequence[Path] | None] = [None] * len(made.files)
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
    made: Predictions, dataset: Dataset | None, model: Path | None
) -> frozenset[str] | None:
    """The class names, where they are at hand: in DATASET, or in MODEL."""
    promised = made.value["classes"]
    if dataset and manifest.classes_entry(dataset.classes) == promised:
        return frozenset(dataset.classes)
    if model and _read_model(model).get("classes") == promised:
        return frozenset(manifest.read_classes(model / CLASSES, promised))
    return None


def check(task: Task) -> Report:
    """Reads a file once for its checksum and once for its rows."""
    report = Report(task.entry)
    path = task.made.folder / task.entry.file
    try:
        audit.length_of(path)  # refuses what is no file; `reading` compares it
        crc32c = _crc32c(path)
        if crc32c != task.entry.crc32c:
            promised = task.entry.crc32c
            report.add(f"its CRC-32C is {crc32c}, {MANIFEST} promises {promised}")
        for rows in reading.rows(task.made, task.entry):
            _add_rows(report, rows, task)
        report.whole = True
    except FileNotFoundError:
        report.add("is missing")
    except OSError as error:
        report.add(f"cannot be read: {error.strerror}")
    except DamagedFileError as damaged:
        report.add(damaged.problem)
    if report.whole:
        _check_ids(report, task)
    return report


def _add_rows(report: Report, rows: Rows, task: Task) -> None:
    first = len(report.ids) + 1
    for row, problem in _faults(task, rows):
        report.add(f"row {first + row}, id {rows.ids[row]!r}: {problem}")
    report.ids += rows.ids
    report.silent.update(
        row for row, names in enumerate(rows.classes or (), start=first) if not names
    )


def _crc32c(path: Path) -> str:
    checksum = google_crc32c.Checksum()
    with path.open("rb") as file:
        while data := file.read(_CHUNK):
            checksum.update(data)
    digest: bytes = checksum.digest()
    return digest.hex()


def _faults(task: Task, rows: Rows) -> Iterator[tuple[int, str]]:
    """The row, from 0, and what is wrong with it."""
    values = rows.probabilities
    within = ((values >= 0) & (values <= 1)).all(axis=1)  # NaN is not
    for row in np.flatnonzero(~within):
        odd = values[row][~((values[row] >= 0) & (values[row] <= 1))][0]
        yield int(row), f"{odd} is no probability, which is from 0 to 1"
    sums = values.sum(axis=1, dtype=np.float64)
    for row in np.flatnonzero(within & (sums > 1 + _TOLERANCE)):
        yield int(row), f"its probabilities sum to {sums[row]:.6g}, more than 1"
    if rows.classes is None:
        for row in np.flatnonzero(within & (sums < 1 - _TOLERANCE)):
            yield int(row), f"its probabilities sum to {sums[row]:.6g}, less than 1"
    else:
        yield from _rank_faults(rows.classes, values, task.classes)


def _rank_faults(
    classes: Sequence[Sequence[str]], values: np.ndarray, known: frozenset[str] | None
) -> Iterator[tuple[int, str]]:
    """Of rows of the best classes."""
    rises = np.any(np.diff(values, axis=1) > 0, axis=1)
    for row, names in enumerate(classes):
        if rises[row]:
            yield row, "its probabilities do not descend"
        if len(set(names)) < len(names):
            yield row, "it names a class twice"
        if known is not None and (odd := [x for x in names if x not in known]):
            yield row, f"it names {odd[0]!r}, which is no class of MODEL"


def _check_ids(report: Report, task: Task) -> None:
    """Holds them to the records where these are at hand; else to their checksum."""
    before = report.problems.count
    if task.shards is not None:
        promised = [image_id for path in task.shards for image_id in _ids(path)]
        if task.made.format.kind == "submission":
            _compare_stems(report, promised)
        elif promised != report.ids:
            _compare(report, promised)
    text = b"".join(image_id.encode() + b"\0" for image_id in report.ids)
    digest = hashlib.sha256(text).hexdigest()
    if digest != report.entry.ids_sha256 and report.problems.count == before:
        report.add("its ids are not those that were predicted")


def _ids(shard: Path) -> Iterator[str]:
    try:
        for stored in record.read(shard):
            yield stored.record.id
    except record.BadRecordError as error:
        raise RunError(
            f"shard {shard} is damaged ({error}): predictions cannot be held to it. "
            "`make verify DATASET=` says more."
        ) from error


def _compare(report: Report, promised: list[str]) -> None:
    """Names what differs from the input shard."""
    here, there = set(report.ids), set(promised)
    for image_id in promised:
        if image_id not in here:
            report.add(f"id {image_id!r} of the input shard is missing")
    for row, image_id in enumerate(report.ids, start=1):
        if image_id not in there:
            report.add(f"row {row}, id {image_id!r}: the input shard has no such id")
    if here == there and len(report.ids) == len(promised):
        report.add("its rows are not in the order of the input shard")


def _compare_stems(report: Report, promised: list[str]) -> None:
    """A submission knows of an id where the split has an image of that stem."""
    stems = {PurePosixPath(image_id).stem for image_id in promised}
    for row, image_id in enumerate(report.ids, start=1):
        if image_id in stems and row in report.silent:
            report.add(f"row {row}, id {image_id!r}: is empty, and the split has it")
        elif image_id not in stems and row not in report.silent:
            report.add(f"row {row}, id {image_id!r}: the split has no such image")


def _find_repeated(report: Report, seen: dict[str, str]) -> None:
    """Every id once, over all files; adds them to those that were seen."""
    for row, image_id in enumerate(report.ids, start=1):
        if image_id in seen:
            report.add(f"row {row}, id {image_id!r}: is in {seen[image_id]}, too")
        seen[image_id] = f"row {row} of {report.entry.file}"


def _summary(
    made: Predictions, dataset: Dataset | None, model: Path | None, seconds: float
) -> str:
    account, rows = made.value["ledger"], made.value["rows"]
    held = {"the records of DATASET": dataset, "MODEL": model}
    against = " and ".join(what for what, given in held.items() if given)
    size = console.in_bytes(sum(entry.bytes for entry in made.files))
    return (
        f"PREDICTIONS {made.folder} are whole: {account['examples']} images = "
        f"{account['predicted']} predicted + {account['rejected']} rejected. All "
        f"{rows} rows in {len(made.files)} files ({size}) have the promised bytes, "
        "every id is there once, and every row is one of probabilities"
        f"{f'; held to {against}' if against else ''}. "
        f"{seconds:.1f} s, {rows / max(seconds, 1e-9):.0f} rows/s"
    )
