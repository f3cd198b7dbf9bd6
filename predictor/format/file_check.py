"""Files of predictions, held to what predictions.json and DATASET promise of them."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import google_crc32c
import numpy as np

from pipeline.dataset import record, shard_check
from pipeline.dataset.shard_check import Problems
from pipeline.storage.object_paths import AnyPath
from pipeline.system import io_errors
from pipeline.system.errors import RunError
from predictor.format import reader, submission
from predictor.format.predictions_manifest import MANIFEST, Entry
from predictor.format.reader import DamagedFileError, Predictions
from predictor.format.row_batch import RowBatch, is_probability

# A sum of float32 may be off by 2**-24 for each of its terms: by 9e-4 for 15,000.
_TOLERANCE = 1e-3
_TOLD_PER_FILE = 5  # so that one bad file leaves room for the others
_CHUNK = 1 << 22  # bytes


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
    shards: Sequence[AnyPath] | None
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


def check(task: Task) -> Report:
    """Reads a file once for its checksum and once for its rows.

    Raises:
        UnavailableError: it cannot be read now, which says nothing about it.
    """
    return io_errors.insist(task.made.folder / task.entry.file, lambda: _check(task))


def _check(task: Task) -> Report:
    report = Report(task.entry)
    path = task.made.folder / task.entry.file
    try:
        shard_check.length_of(path)  # refuses what is no file; `reading` compares it
        crc32c = _crc32c(path)
        if crc32c != task.entry.crc32c:
            promised = task.entry.crc32c
            report.add(f"its CRC-32C is {crc32c}, {MANIFEST} promises {promised}")
        for rows in reader.rows(task.made, task.entry):
            _add_rows(report, rows, task)
        report.whole = True
    except FileNotFoundError:
        report.add("is missing")
    except OSError as error:
        if not io_errors.is_about_file(error):
            raise
        report.add(f"cannot be read: {error.strerror}")
    except DamagedFileError as damaged:
        report.add(damaged.problem)
    if report.whole:
        _check_ids(report, task)
    return report


def _add_rows(report: Report, rows: RowBatch, task: Task) -> None:
    first = len(report.ids) + 1
    for row, problem in _faults(task, rows):
        report.add(f"row {first + row}, id {rows.ids[row]!r}: {problem}")
    report.ids += rows.ids
    report.silent.update(
        row for row, names in enumerate(rows.classes or (), start=first) if not names
    )


def _crc32c(path: AnyPath) -> str:
    checksum = google_crc32c.Checksum()
    with path.open("rb") as file:
        while data := file.read(_CHUNK):
            checksum.update(data)
    digest: bytes = checksum.digest()
    return digest.hex()


def _faults(task: Task, rows: RowBatch) -> Iterator[tuple[int, str]]:
    """The row, from 0, and what is wrong with it."""
    values = rows.probabilities
    good = is_probability(values)
    within = good.all(axis=1)
    for row in np.flatnonzero(~within):
        odd = values[row][~good[row]][0]
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
    """Finds the faults of rows of the best classes."""
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


def _ids(shard: AnyPath) -> Iterator[str]:
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
    """Holds rows of a submission to the images of the split that they belong to."""
    rows = frozenset(report.ids)
    known = {submission.row_id(image_id, rows) for image_id in promised}
    for row, image_id in enumerate(report.ids, start=1):
        if image_id in known and row in report.silent:
            report.add(f"row {row}, id {image_id!r}: is empty, and the split has it")
        elif image_id not in known and row not in report.silent:
            report.add(f"row {row}, id {image_id!r}: the split has no such image")
