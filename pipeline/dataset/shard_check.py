"""Shards, held to what dataset.json promises of them, in as many processes as asked."""

import hashlib
import stat
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace

import simplejpeg

from pipeline.dataset import record
from pipeline.dataset.manifest import MANIFEST, UNLABELLED, ImageContract, Shard
from pipeline.dataset.record import BadRecordError, Digest, Record
from pipeline.storage.object_paths import AnyPath
from pipeline.system import child_process, io_errors

# Per id: 10 MB for 1.2 million, of which any two collide with a probability of 4e-8.
DIGEST = 8
_TOLD_PER_SHARD = 5  # so that one bad shard leaves room for the others


@dataclass
class Problems:
    """The first `keep` problems in words, one line each, and how many there are."""

    keep: int
    lines: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, line: str) -> None:
        """Adds one; line breaks in names must not make it two."""
        self.count += 1
        if len(self.lines) < self.keep:
            self.lines.append(line.replace("\n", "\\n").replace("\r", "\\r"))

    def extend(self, other: "Problems") -> None:
        """Adds those of another list, also the ones that it did not keep."""
        self.lines += other.lines[: self.keep - len(self.lines)]
        self.count += other.count

    def told(self, of: str, advice: str) -> str:
        """All that is known: what is not whole, the problems, what to do."""
        problem = "problem" if self.count == 1 else "problems"
        lines = [f"{of} not whole, {self.count} {problem}:"]
        lines += [f"  {line}" for line in self.lines]
        if more := self.count - len(self.lines):
            lines.append(f"  … and {more} more")
        return "\n".join([*lines, advice])


@dataclass(frozen=True)
class Task:
    """A shard and all that is promised of it.

    Attributes:
        folder: DATASET.
        split: of the shard.
        shard: its name, records, length and SHA-256.
        image: the image contract.
        labels: how many classes there are.
        classes: their names; None where classes.txt cannot be trusted.
    """

    folder: AnyPath
    split: str
    shard: Shard
    image: ImageContract
    labels: int
    classes: tuple[str, ...] | None


@dataclass
class Report:
    """What a shard was found to be.

    Attributes:
        task: what was asked.
        problems: what is wrong with it.
        written: records by class name ("" where unlabelled).
        ids: DIGEST bytes of a hash of every id, in order.
        whole: every record was read.
    """

    task: Task
    problems: Problems = field(default_factory=lambda: Problems(_TOLD_PER_SHARD))
    written: Counter[str] = field(default_factory=Counter)
    ids: bytearray = field(default_factory=bytearray)
    whole: bool = False

    def add(self, problem: str) -> None:
        """Adds a problem of the shard."""
        self.problems.add(f"{self.task.shard.file}: {problem}")


def check_all(tasks: Sequence[Task], *, workers: int) -> Generator[Report, None, None]:
    """Yields the reports of all shards, in order; to be closed when it is left early.

    Raises:
        RunError: one of the processes was killed.
    """
    return child_process.each(check, tasks, workers=workers, of="verify")


def check(task: Task) -> Report:
    """Reads a shard once, for its checksum and its records.

    Raises:
        UnavailableError: it cannot be read now, which says nothing about it.
    """
    path = task.folder / task.shard.file
    try:
        return io_errors.insist(path, lambda: _check(task))
    except FileNotFoundError:
        problem = "is missing"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    report = Report(task)
    report.add(problem)
    return report


def _check(task: Task) -> Report:
    path, shard = task.folder / task.shard.file, task.shard
    length, digest = length_of(path), hashlib.sha256()
    records = Report(task)
    try:
        _check_records(records, digest)
        records.whole = True
    except BadRecordError as bad:
        records.add(f"{_place(bad)}: {bad.reason}; what follows it was not read")
    # The file comes first: its records are the consequence.
    report = replace(records, problems=Problems(_TOLD_PER_SHARD))
    if length != shard.bytes:
        report.add(f"has {length} bytes, {MANIFEST} promises {shard.bytes}")
    elif (found := digest.hexdigest()) != shard.sha256:
        report.add(f"its sha256 is {found}, {MANIFEST} promises {shard.sha256}")
    report.problems.extend(records.problems)
    return report


def length_of(path: AnyPath) -> int:
    """The bytes of a file.

    Raises:
        OSError: there is none, or something else; to open a pipe would wait for ever.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(0, "it is no regular file")
    return status.st_size


def _check_records(report: Report, digest: Digest) -> None:
    """Reads every record; one is in memory at a time. All bytes go to the digest."""
    task = report.task
    for number, _, stored in record.read(task.folder / task.shard.file, digest):
        report.written[stored.text] += 1
        report.ids += hashlib.blake2b(stored.id.encode(), digest_size=DIGEST).digest()
        for fault in _faults(stored, task):
            report.add(f"record {number}, id {stored.id!r}: {fault}")
    if (found := report.written.total()) != task.shard.examples:
        report.add(f"has {found} records, {MANIFEST} promises {task.shard.examples}")


def _faults(stored: Record, task: Task) -> Iterator[str]:
    """Yields in words what a record has that its dataset does not promise."""
    image, labels = task.image, task.labels
    if stored.format != image.format:
        yield f"its format is {stored.format!r}, not {image.format!r}"
    if (stored.height, stored.width) != (image.height, image.width):
        yield (
            f"it says {stored.height}x{stored.width}, {MANIFEST} promises "
            f"{image.height}x{image.width} (height x width)"
        )
    if not UNLABELLED <= stored.label < labels:
        yield f"its label {stored.label} is not from {UNLABELLED} to {labels - 1}"
    elif (stored.label == UNLABELLED) != (stored.text == ""):
        yield (
            f"its label is {stored.label} and its class {stored.text!r}; only "
            f"{UNLABELLED} goes with no class"
        )
    elif task.classes and stored.text and stored.text != task.classes[stored.label]:
        name = task.classes[stored.label]
        yield f"its label {stored.label} is {name!r}, its class {stored.text!r}"
    if fault := _jpeg_fault(stored.encoded, image):
        yield fault


def _jpeg_fault(encoded: bytes, image: ImageContract) -> str | None:
    """Decodes a JPEG, but only one of the right size: a header can promise any."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(encoded)
        if (height, width) == (image.height, image.width):
            simplejpeg.decode_jpeg(encoded)
            return None
    except ValueError as error:
        return f"its image cannot be decoded: {' '.join(str(error).split())}"
    return (
        f"its image is {height}x{width}, {MANIFEST} promises "
        f"{image.height}x{image.width} (height x width)"
    )


def _place(bad: BadRecordError) -> str:
    """Says where a record is, and its id as far as that can still be read."""
    place = f"record {bad.number} at byte {bad.offset}"
    try:
        return f"{place}, id {record.decode(bad.payload).id!r}"
    except ValueError:
        return place
