"""DATASET → whole, or what is wrong with it: every byte read, every image decoded."""

import contextlib
import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.dataset import closing_summary, ledger, manifest, record, shard_check
from pipeline.dataset.ledger import Counts, Ledger, Reject
from pipeline.dataset.manifest import (
    CLASSES,
    MANIFEST,
    REJECTS,
    SPLITS,
    ImageContract,
    Shard,
    ShardName,
    Split,
)
from pipeline.dataset.shard_check import Problems, Report, Task
from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import WORK
from pipeline.system import console
from pipeline.system.errors import RunError, UnavailableError

_TOLD = 20  # problems that are listed; the rest is counted
_ADVICE = (
    "Restore the named files from a copy, or make the dataset again with `make shards` "
    "and ARGS=--overwrite."
)


@dataclass(frozen=True)
class Promise:
    """What dataset.json says.

    Attributes:
        folder: DATASET.
        value: all of it.
        image: the image contract.
        labels: how many classes there are.
        splits: by name.
        examples: records of all shards.
        written: records by (split, class name), of the ledger.
    """

    folder: AnyPath
    value: Mapping[str, Any]
    image: ImageContract
    labels: int
    splits: Mapping[str, Split]
    examples: int
    written: Counts

    @property
    def shards(self) -> list[Shard]:
        """The shards of all splits, in order."""
        return [shard for split in self.splits.values() for shard in split.shards]


@dataclass
class Findings:
    """What the files are.

    Attributes:
        problems: all that is wrong.
        written: records by (split, class name).
        ids: (shard, `Report.ids`) of every shard, by split.
        unread: splits with records that could not be read.
    """

    problems: Problems = field(default_factory=lambda: Problems(_TOLD))
    written: Counts = field(default_factory=Counter)
    ids: dict[str, list[tuple[str, bytes]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    unread: set[str] = field(default_factory=set)

    def add(self, lines: Iterable[str]) -> None:
        """Adds problems."""
        for line in lines:
            self.problems.add(line)

    def fold(self, report: Report) -> None:
        """Adds what was found of one shard."""
        split = report.task.split
        self.problems.extend(report.problems)
        for name, count in report.written.items():
            self.written[split, name] += count
        self.ids[split].append((report.task.shard.file, bytes(report.ids)))
        if not report.whole:
            self.unread.add(split)


def run(dataset: AnyPath, *, workers: int) -> None:
    """Reads all of a dataset, and prints that it is whole.

    Args:
        dataset: the folder.
        workers: processes; one shard each at a time.

    Raises:
        RunError: it is incomplete, or not whole: the message lists what is wrong.
    """
    started = time.monotonic()
    promise = _read_promise(dataset)
    findings = Findings()
    findings.add(_misnamed(promise))
    findings.add(_strays(promise))
    classes, rejects = _read_lists(promise, findings)
    reports = shard_check.check_all(_tasks(promise, classes), workers=workers)
    with (
        console.progress(promise.examples, "verify") as bar,
        contextlib.closing(reports),
    ):
        for report in reports:
            findings.fold(report)
            bar.update(report.task.shard.examples)
    for split, ids in findings.ids.items():
        findings.add(_repeated(dataset, split, ids))
    if rejects is not None:
        findings.add(_imbalances(promise, findings, rejects))
    if findings.problems.count:
        raise RunError(findings.problems.told(f"DATASET {dataset} is", _ADVICE))
    console.conclude(
        _summary(promise, time.monotonic() - started),
        following=closing_summary.following(dataset, promise.value),
    )


def _read_promise(folder: AnyPath) -> Promise:
    value = manifest.read(folder)
    if unfinished := manifest.unfinished_addition(folder):
        raise RunError(unfinished)
    try:
        if strange := value["splits"].keys() - set(SPLITS):
            raise ValueError(f"splits {strange} are none of {SPLITS}")
        splits = manifest.read_splits(value)
        return Promise(
            folder=folder,
            value=value,
            image=ImageContract(**value["image"]),
            labels=int(value["classes"]["count"]),
            splits=splits,
            examples=sum(s.examples for part in splits.values() for s in part.shards),
            written=Counter(
                {
                    (split, name): int(counts["written"])
                    for split, entry in value["ledger"]["splits"].items()
                    for name, counts in entry["classes"].items()
                }
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{folder / MANIFEST} is damaged: {type(error).__name__}: {error}. Restore "
            "it, or make the dataset again with `make shards`."
        ) from error


def _misnamed(promise: Promise) -> Iterator[str]:
    """The shards of a generation are numbered from 0, and say how many they are."""
    for split, entry in promise.splits.items():
        generations = [_generation(shard.file) for shard in entry.shards]
        for generation, count in sorted(Counter(generations).items()):
            files = [
                shard.file
                for shard, of in zip(entry.shards, generations, strict=True)
                if of == generation
            ]
            for index, file in enumerate(files):
                name = str(ShardName(split, index, count, generation))
                if file != name:
                    yield (
                        f"{MANIFEST}: shard {index} of the {count} of {split} is "
                        f"{file}, not {name}"
                    )


def _generation(file: str) -> int:
    """Returns the generation of a shard; 0 for a name that is none."""
    try:
        return ShardName.parse(file).generation
    except ValueError:
        return 0


def _strays(promise: Promise) -> Iterator[str]:
    """A finished DATASET holds the named files and no others."""
    known = {MANIFEST, CLASSES, REJECTS, *_digests(promise)}
    known |= {shard.file for shard in promise.shards}
    for name in sorted(path.name for path in promise.folder.iterdir()):
        if name == WORK:
            yield f"{name}: left by a run that was stopped; `make shards` removes it"
        elif name not in known:
            yield f"{name}: is no part of the dataset; remove it"


def _read_lists(
    promise: Promise, findings: Findings
) -> tuple[tuple[str, ...] | None, list[Reject] | None]:
    """Reads classes.txt and rejects.csv; None in place of one that is damaged."""
    classes = rejects = None
    try:
        entry = promise.value["classes"]
        classes = manifest.read_classes(promise.folder / CLASSES, entry)
    except UnavailableError:  # says nothing about the file
        raise
    except RunError as error:
        findings.add([str(error)])
    try:
        rejects = ledger.read_rejects(promise.folder / REJECTS)
    except UnavailableError:
        raise
    except RunError as error:
        findings.add([str(error)])
    findings.add(_changed_lists(promise))
    return classes, rejects


def _digests(promise: Promise) -> dict[str, str]:
    """The SHA-256 of each list beside the shards; none were kept before 0.2."""
    digests: dict[str, str] = promise.value.get("files", {})
    return digests


def _changed_lists(promise: Promise) -> Iterator[str]:
    """Lists beside the shards that are not the ones that were written."""
    for name, wanted in _digests(promise).items():
        path = promise.folder / name
        if name == CLASSES or (name == REJECTS and not path.is_file()):
            continue  # it was named already
        found = atomic.sha256(path) if path.is_file() else "of no file"
        if found != wanted:
            yield f"{name}: its sha256 is {found}, {MANIFEST} promises {wanted}"


def _tasks(promise: Promise, classes: tuple[str, ...] | None) -> list[Task]:
    return [
        Task(promise.folder, split, shard, promise.image, promise.labels, classes)
        for split, entry in promise.splits.items()
        for shard in entry.shards
    ]


def _repeated(
    folder: AnyPath, split: str, ids: list[tuple[str, bytes]]
) -> Iterator[str]:
    """Ids that a split has more than once; reads the first few again to name them."""
    digests = np.frombuffer(b"".join(part for _, part in ids), np.uint64)
    starts = np.cumsum([0] + [len(part) // shard_check.DIGEST for _, part in ids])
    order = np.argsort(digests, kind="stable")  # equal ones keep their order
    (repeats,) = np.nonzero(digests[order[1:]] == digests[order[:-1]])
    for told, at in enumerate(repeats):
        file, number = _locate(order[at + 1], starts, ids)
        first, first_number = _locate(order[at], starts, ids)
        name = f", id {_id_at(folder / file, number)!r}" if told < _TOLD else ""
        yield (
            f"{file}: record {number}{name}: its id is that of record {first_number} "
            f"of {first}; each is to be once in {split}"
        )


def _locate(
    position: np.intp, starts: np.ndarray, ids: list[tuple[str, bytes]]
) -> tuple[str, int]:
    """The shard, and the record of it, of a position in a split."""
    part = int(np.searchsorted(starts, position, side="right")) - 1
    return ids[part][0], int(position - starts[part])


def _id_at(path: AnyPath, number: int) -> str:
    (stored,) = itertools.islice(record.read(path), number, number + 1)
    return stored.record.id


def _imbalances(
    promise: Promise, findings: Findings, rejects: list[Reject]
) -> Iterator[str]:
    """The numbers of dataset.json that records and rejects.csv do not come to."""
    for number, row in enumerate(rejects, start=1):
        if row.split not in promise.splits:
            yield f"{REJECTS}: row {number}, id {row.id!r}: no split is {row.split!r}"
    found = _draw_up(promise, findings, rejects)
    ledger_splits = promise.value["ledger"]["splits"]
    yield from _differences(ledger_splits, found, "ledger.splits")
    for split, entry in promise.splits.items():
        promised = {"examples": entry.examples, "rejected": entry.rejected}
        counts = found[split]
        again = {"examples": counts["written"], "rejected": counts["rejected"]}
        yield from _differences(promised, again, f"splits.{split}")
        for kind, counts in promise.value.get("originals", {}).get(split, {}).items():
            if (images := sum(counts.values())) != entry.examples:
                yield (
                    f"{MANIFEST}: originals.{split}.{kind} counts {images} images, and "
                    f"the split has {entry.examples}"
                )


def _draw_up(
    promise: Promise, findings: Findings, rejects: list[Reject]
) -> dict[str, Any]:
    """The ledger of every split once more, from what is there.

    Where records of a split cannot be read, the ledger is believed what it wrote.
    """
    unread = findings.unread
    counted = {at: n for at, n in findings.written.items() if at[0] not in unread}
    believed = {at: n for at, n in promise.written.items() if at[0] in unread}
    written = Counter(counted | believed)
    rejected = Counter((row.split, row.label) for row in rejects)
    account = Ledger(
        listed=written + rejected,
        written=written,
        rejected=rejected,
        rejects=rejects,
        splits=dict(promise.splits),
        ignored=Counter(),
        bytes_read=0,
        originals={},
    )
    splits: dict[str, Any] = account.to_json()["splits"]
    return splits


def _differences(promised: Any, found: Any, at: str) -> Iterator[str]:
    """Says where two JSON values differ; `at` is their place in dataset.json."""
    if isinstance(promised, Mapping) and isinstance(found, Mapping):
        for key in sorted({*promised, *found}):
            yield from _differences(promised.get(key), found.get(key), f"{at}.{key}")
    elif promised != found:
        yield f"{MANIFEST}: {at} is {promised}; the records and {REJECTS} say {found}"


def _summary(promise: Promise, seconds: float) -> str:
    counts = promise.value["ledger"]["splits"].values()
    listed, written, rejected = (
        sum(split[what] for split in counts)
        for what in ("listed", "written", "rejected")
    )
    size = console.in_bytes(sum(shard.bytes for shard in promise.shards))
    return (
        f"DATASET {promise.folder} is whole: {listed} images listed = {written} "
        f"written + {rejected} rejected\n"
        f"  all {len(promise.shards)} shards of {', '.join(promise.splits)} ({size}) "
        "have the promised bytes, every id is there once, and every image decodes to "
        f"{manifest.size_in_words(promise.image)}\n"
        f"  {seconds:.1f} s, {written / seconds:,.0f} images/s"
    )
