"""The account of every listed image: written or rejected, by split and class."""

import csv
import io
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from pipeline.dataset import manifest, originals
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
        ignored: files that are no part of the collection, by kind.
    """

    counts: Counts
    rejects: list[Reject]
    ignored: Counter[str]

    def to_json(self) -> dict[str, Any]:
        """Returns what `from_json` takes."""
        counts = sorted((*at, count) for at, count in self.counts.items())
        return {"counts": counts, "rejects": self.rejects, "ignored": self.ignored}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Returns what `to_json` made a value of."""
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
        ignored: files that are no part of the collection, by kind.
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

    @classmethod
    def from_manifest(cls, value: Mapping[str, Any], rejects: list[Reject]) -> Self:
        """Returns that of a finished dataset.

        Args:
            value: its dataset.json.
            rejects: its rejects.csv.
        """
        entries = value["ledger"]["splits"]
        listed, written = (
            Counter(
                {
                    (split, name): counts[what]
                    for split, entry in entries.items()
                    for name, counts in entry["classes"].items()
                }
            )
            for what in ("listed", "written")
        )
        return cls(
            listed=listed,
            written=written,
            rejected=_rejected(rejects),
            rejects=rejects,
            splits=manifest.read_splits(value),
            ignored=Counter(value["ledger"]["ignored_by_kind"]),
            bytes_read=value["ledger"]["bytes_read"],
            originals=value["originals"],
        )

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
    rejected = _rejected(rejects)
    _refuse_imbalance(listed.counts, written, rejected)
    return Ledger(
        listed=listed.counts,
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


def together(
    before: Ledger, added: Ledger, *, retried: Collection[tuple[str, str]] = ()
) -> Ledger:
    """Draws up the ledger of a dataset and of the generation that is added to it.

    Args:
        before: of the dataset.
        added: of the generation.
        retried: (split, id) of the rejects of `before` that the generation has tried
            again; they are among its images.

    Raises:
        RunError: images listed are not images written plus images rejected.
    """
    again = [row for row in before.rejects if (row.split, row.id) in retried]
    rejects = [row for row in before.rejects if (row.split, row.id) not in retried]
    rejects += added.rejects
    listed = before.listed - _rejected(again) + added.listed
    written, rejected = before.written + added.written, _rejected(rejects)
    _refuse_imbalance(listed, written, rejected)
    splits = {}
    for name in {**before.splits, **added.splits}:
        parts = [one.splits[name] for one in (before, added) if name in one.splits]
        splits[name] = Split(
            examples=sum(part.examples for part in parts),
            rejected=sum(n for (split, _), n in rejected.items() if split == name),
            shards=tuple(shard for part in parts for shard in part.shards),
        )
    return Ledger(
        listed=listed,
        written=written,
        rejected=rejected,
        rejects=sorted(rejects),
        splits=splits,
        # An append lists all of IMAGES, a retry what is tried again.
        ignored=before.ignored if retried else added.ignored,
        bytes_read=before.bytes_read + added.bytes_read,
        originals={
            name: originals.total(
                one.originals[name] for one in (before, added) if name in one.originals
            )
            for name in splits
        },
    )


def _rejected(rejects: Sequence[Reject]) -> Counts:
    return Counter((row.split, row.label) for row in rejects)


def _refuse_imbalance(listed: Counts, written: Counts, rejected: Counts) -> None:
    accounted = written + rejected
    if listed != accounted:
        odd = min(at for at in listed | accounted if listed[at] != accounted[at])
        raise RunError(
            f"the ledger does not balance: split {odd[0]!r}, class {odd[1]!r}: "
            f"{listed[odd]} images listed, {written[odd]} written and {rejected[odd]} "
            "rejected. Did IMAGES or DATASET change during the run? Run it again with "
            "--overwrite."
        )


def rejects_csv(rejects: Sequence[Reject]) -> str:
    """The text of rejects.csv (RFC 4180 quoting, `\\n` line ends)."""
    return "".join(map(atomic.csv_line, [Reject._fields, *rejects]))


def read_rejects(path: AnyPath) -> list[Reject]:
    """Reads rejects.csv.

    Raises:
        RunError: it is missing, or is no such list.
    """

    try:
        return parse_rejects(io_errors.insist(path, path.read_bytes).decode())
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing. Restore it, or make it anew.") from error
    except (ValueError, csv.Error) as error:  # also: not UTF-8
        raise RunError(f"{path} is damaged: {error}. Restore it.") from error


def parse_rejects(text: str) -> list[Reject]:
    """Reads what `rejects_csv` made.

    Raises:
        ValueError, csv.Error: it is no such text.
    """
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    header, *rows = rows or [[]]
    if tuple(header) != Reject._fields:
        raise ValueError(f"its header is {header}, not {list(Reject._fields)}")
    if odd := [row for row in rows if len(row) != len(header)]:
        raise ValueError(f"{odd[0]} has {len(odd[0])} fields, not {len(header)}")
    return [Reject(*row) for row in rows]


def _split(name: str, notes: Sequence[ShardResult], rejected: Counts) -> Split:
    shards = tuple(note.shard for note in notes)
    examples = sum(shard.examples for shard in shards)
    lost = sum(count for (split, _), count in rejected.items() if split == name)
    return Split(examples, lost, shards)
