"""PREDICTIONS → whole, or what is wrong with them: every byte and every row read."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c
import numpy as np

from pipeline import console, files, ledger, manifest, record
from pipeline.audit import Problems
from pipeline.console import RunError
from pipeline.manifest import Dataset
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


@dataclass
class _File:
    """A file, while it is read.

    Attributes:
        name: of the file.
        ids: so far, in order.
        problems: with it.
    """

    name: str
    ids: list[str] = field(default_factory=list)
    problems: Problems = field(default_factory=lambda: Problems(_TOLD_PER_FILE))

    def add(self, problem: str) -> None:
        """Adds a problem of the file."""
        self.problems.add(f"{self.name}: {problem}")


def run(
    folder: Path, *, dataset: Path | None = None, model: Path | None = None
) -> None:
    """Reads all of PREDICTIONS, and prints that they are whole.

    Args:
        folder: PREDICTIONS.
        dataset: DATASET that they were made of; then ids are held to its records, and
            else to the checksum of ids that was noted when they were predicted.
        model: MODEL that they were made with.

    Raises:
        RunError: they are incomplete, or not whole: the message lists what is wrong.
    """
    started = time.monotonic()
    made = reading.load(folder)
    loaded = manifest.load(dataset) if dataset else None
    problems = Problems(_TOLD)
    for line in (*_names(made), *_totals(made), *_origins(made, loaded, model)):
        problems.add(line)
    seen: dict[str, str] = {}
    with console.progress(made.value["rows"], "verify", unit="row") as bar:
        for number, entry in enumerate(made.files):
            found = _check(made, entry)
            bar.update(len(found.ids))
            _check_ids(found, entry, _promised(made, loaded, number), seen)
            problems.extend(found.problems)
    if problems.count:
        raise RunError(_complaint(folder, problems))
    print(_summary(made, loaded, model, time.monotonic() - started))


def _names(made: Predictions) -> Iterator[str]:
    """Files are numbered from 0, say how many there are, and are all that is there."""
    count, extension = len(made.files), made.format.extension
    for index, entry in enumerate(made.files):
        name = csv_shards.shard_name(index, count, extension)
        if entry.file != name:
            yield f"{MANIFEST}: file {index} of {count} is {entry.file}, not {name}"
    known = {MANIFEST, REJECTS, *(entry.file for entry in made.files)}
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
    if model:
        described = files.read_json(model / _MODEL)
        for name, found in (("model", "sha256"), ("classes", "classes")):
            if made.value[name] != described.get(found):
                yield (
                    f"{MANIFEST}: {name} is {made.value[name]}; {model / _MODEL} has "
                    f"{described.get(found)}"
                )


def _check(made: Predictions, entry: Entry) -> _File:
    """Reads a file once for its checksum and once for its rows."""
    found = _File(entry.file)
    try:
        crc32c = _crc32c(made.folder / entry.file)
        if crc32c != entry.crc32c:
            found.add(f"its CRC-32C is {crc32c}, {MANIFEST} promises {entry.crc32c}")
        for rows in reading.rows(made, entry):
            for row, problem in _faults(made, rows):
                number = len(found.ids) + row + 1
                found.add(f"row {number}, id {rows.ids[row]!r}: {problem}")
            found.ids += rows.ids
    except FileNotFoundError:
        found.add("is missing")
    except DamagedFileError as damaged:
        found.add(damaged.problem)
    return found


def _crc32c(path: Path) -> str:
    checksum = google_crc32c.Checksum()
    with path.open("rb") as file:
        while data := file.read(_CHUNK):
            checksum.update(data)
    digest: bytes = checksum.digest()
    return digest.hex()


def _faults(made: Predictions, rows: Rows) -> Iterator[tuple[int, str]]:
    """The row, from 0, and what is wrong with its probabilities."""
    values = rows.probabilities
    within = ((values >= 0) & (values <= 1)).all(axis=1)  # NaN is not
    for row in np.flatnonzero(~within):
        odd = values[row][~((values[row] >= 0) & (values[row] <= 1))][0]
        yield int(row), f"{odd} is no probability, which is from 0 to 1"
    sums = values.sum(axis=1, dtype=np.float64)
    whole = made.format.kind == "probabilities"
    for row in np.flatnonzero(within & (sums > 1 + _TOLERANCE)):
        yield int(row), f"its probabilities sum to {sums[row]:.6g}, more than 1"
    if whole:
        for row in np.flatnonzero(within & (sums < 1 - _TOLERANCE)):
            yield int(row), f"its probabilities sum to {sums[row]:.6g}, less than 1"
    elif rows.classes:
        yield from _rank_faults(rows.classes, values)


def _rank_faults(
    classes: Sequence[Sequence[str]], values: np.ndarray
) -> Iterator[tuple[int, str]]:
    """Of rows of the best classes."""
    rises = np.any(np.diff(values, axis=1) > 0, axis=1, keepdims=True)
    for row, names in enumerate(classes):
        if rises[row, 0]:
            yield row, "its probabilities do not descend"
        if len(set(names)) < len(names):
            yield row, "it names a class twice"


def _promised(
    made: Predictions, dataset: Dataset | None, number: int
) -> list[str] | None:
    """The ids of an input shard; None where they are not at hand, or not comparable."""
    if not dataset or dataset.fingerprint != made.value["dataset"]:
        return None
    if made.format.kind == "submission":  # one file, with the ids of the sample
        return None
    paths = dataset.paths(made.value["split"])
    if number >= len(paths):
        return []
    return [stored.record.id for stored in record.read(paths[number])]


def _check_ids(
    found: _File, entry: Entry, promised: list[str] | None, seen: dict[str, str]
) -> None:
    """Every id once, and where its input shard has it."""
    for row, image_id in enumerate(found.ids, start=1):
        if image_id in seen:
            found.add(f"row {row}, id {image_id!r}: is in {seen[image_id]}, too")
        seen[image_id] = found.name
    if promised is not None and promised != found.ids:
        _compare(found, promised)
    digest = hashlib.sha256()
    for image_id in found.ids:
        digest.update(image_id.encode() + b"\0")
    if digest.hexdigest() != entry.ids_sha256 and not found.problems.count:
        found.add("its ids are not those that were predicted")


def _compare(found: _File, promised: list[str]) -> None:
    """Names what differs from the input shard."""
    here, there = set(found.ids), set(promised)
    for image_id in promised:
        if image_id not in here:
            found.add(f"id {image_id!r} of the input shard is missing")
    for row, image_id in enumerate(found.ids, start=1):
        if image_id not in there:
            found.add(f"row {row}, id {image_id!r}: the input shard has no such id")
    if here == there:
        found.add("its rows are not in the order of the input shard")


def _complaint(folder: Path, problems: Problems) -> str:
    problem = "problem" if problems.count == 1 else "problems"
    lines = [f"PREDICTIONS {folder} are not whole, {problems.count} {problem}:"]
    lines += [f"  {line}" for line in problems.lines]
    if more := problems.count - len(problems.lines):
        lines.append(f"  … and {more} more")
    lines.append(
        "Restore the named files from a copy, or remove the folder and run the same "
        "`make predict` again."
    )
    return "\n".join(lines)


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
