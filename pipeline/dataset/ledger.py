"""The account of every listed image: written or rejected, by split and class."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from pipeline.dataset import originals
from pipeline.dataset.manifest import Split
from pipeline.dataset.originals import Histograms
from pipeline.dataset.sidecar import ShardResult
from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath
from pipeline.system import io_errors
from pipeline.system.errors import RunError

Counts = Counter[tuple[str, str]]  # images by (split, class name)


class Reject(NamedTuple):
    """An image that was not written; a row of rejects.csv."""

    id: str
    split: str
    label: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Listed:
    """The side of the account that is known before anything is read.

    Attributes:
        counts: all images.
        rejects: those of them that are known to be unusable.
        ignored: files or folders that are no part of the collection, by kind.
    """

    counts: Counts
    rejects: list[Reject]
    ignored: Counter[str]

    def to_json(self) -> dict[str, Any]:
        """For `from_json`."""
        counts = sorted((*at, count) for at, count in self.counts.items())
        return {"counts": counts, "rejects": self.rejects, "ignored": self.ignored}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What `to_json` made a value of."""
        counts = Counter({(split, name): n for split, name, n in value["counts"]})
        rejects = [Reject(*row) for row in value["rejects"]]
        return cls(counts, rejects, Counter(value["ignored"]))


@dataclass(frozen=True)
class Ledger:
    """What was listed, and what became of it.

    Attributes:
        listed, written, rejected: images by (split, class name), "" where there is
            no class.
        rejects: every rejection, sorted.
        splits: the entries of dataset.json, by name.
        ignored: files or folders that are no part of the collection, by kind.
        bytes_read: of the source files.
        originals: histograms of the source images, by split.
    """

    listed: Counts
    written: Counts
    rejected: Counts
    rejects: list[Reject]
    splits: dict[str, Split]
    ignored: Counter[str]
    bytes_read: int
    originals: dict[str, Histograms]

    @property
    def reject_fraction(self) -> float:
        """Rejected images per listed image."""
        return self.rejected.total() / self.listed.total()

    def reasons(self, split: str) -> Counter[str]:
        """Rejections of a split by reason."""
        return Counter(row.reason for row in self.rejects if row.split == split)

    def to_json(self) -> dict[str, Any]:
        """The `ledger` entry of dataset.json: counts per split and class."""
        entries: dict[str, dict[str, Any]] = {}
        for split in self.splits:
            classes = {
                name: self._counts(split, name)
                for of_split, name in sorted(self.listed)
                if of_split == split
            }
            totals = {
                what: sum(counts[what] for counts in classes.values())
                for what in ("listed", "written", "rejected")
            }
            reasons = dict(self.reasons(split))
            entries[split] = {**totals, "reasons": reasons, "classes": classes}
        return {
            "ignored": self.ignored.total(),
            "ignored_by_kind": dict(self.ignored),
            "bytes_read": self.bytes_read,
            "splits": entries,
        }

    def _counts(self, split: str, name: str) -> dict[str, int]:
        return {
            "listed": self.listed[split, name],
            "written": self.written[split, name],
            "rejected": self.rejected[split, name],
        }


def balance(listed: Listed, notes: Mapping[str, Sequence[ShardResult]]) -> Ledger:
    """Draws up the ledger.

    Args:
        listed: what there was.
        notes: the sidecars of all shards of each split, in order.

    Raises:
        RunError: images listed are not images written plus images rejected.
    """
    written: Counts = Counter()
    rejects = list(listed.rejects)
    for split, parts in notes.items():
        for note in parts:
            for name, count in note.tally.written.items():
                written[split, name] += count
            rejects += [
                Reject(image_id, split, name, reason, detail)
                for image_id, name, reason, detail in note.tally.rejects
            ]
    rejected = Counter((row.split, row.label) for row in rejects)
    there = listed.counts
    if there != (accounted := written + rejected):
        odd = min(at for at in there | accounted if there[at] != accounted[at])
        raise RunError(
            f"the ledger does not balance: split {odd[0]!r}, class {odd[1]!r}: "
            f"{there[odd]} images listed, {written[odd]} written and {rejected[odd]} "
            "rejected. Did IMAGES or DATASET change during the run? Run it again with "
            "--overwrite."
        )
    return Ledger(
        listed=there,
        written=written,
        rejected=rejected,
        rejects=sorted(rejects),
        splits={split: _split(split, notes[split], rejected) for split in notes},
        ignored=listed.ignored,
        bytes_read=sum(n.tally.bytes_read for parts in notes.values() for n in parts),
        originals={
            split: originals.total(note.tally.originals for note in parts)
            for split, parts in notes.items()
        },
    )


def rejects_csv(rejects: Sequence[Reject]) -> str:
    """The text of rejects.csv (RFC 4180 quoting, `\\n` line ends)."""
    return "".join(map(atomic.csv_line, [Reject._fields, *rejects]))


def read_rejects(path: AnyPath) -> list[Reject]:
    """Reads rejects.csv.

    Raises:
        RunError: it is missing, or is no such list.
    """

    def read() -> list[list[str]]:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.reader(file, strict=True))

    try:
        header, *rows = io_errors.insist(path, read) or [[]]
        if tuple(header) != Reject._fields:
            raise ValueError(f"its header is {header}, not {list(Reject._fields)}")
        if odd := [row for row in rows if len(row) != len(header)]:
            raise ValueError(f"{odd[0]} has {len(odd[0])} fields, not {len(header)}")
        return [Reject(*row) for row in rows]
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing. Restore it, or make it anew.") from error
    except (ValueError, csv.Error) as error:  # also: not UTF-8
        raise RunError(f"{path} is damaged: {error}. Restore it.") from error


def _split(name: str, notes: Sequence[ShardResult], rejected: Counts) -> Split:
    shards = tuple(note.shard for note in notes)
    examples = sum(shard.examples for shard in shards)
    lost = sum(count for (split, _), count in rejected.items() if split == name)
    return Split(examples, lost, shards)
