"""Source files that are byte for byte the same, found by the SHA-256 of each.

Copies that have different labels are conflicts, and listed in conflicts.csv.

    _work/sources/SHARD.sha256      32 bytes per planned image, in order

Two passes over these files: digests first, as an array, then only the ids of those
that occur more than once. A million images take 64 MB.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import WORK

_TOLD = 5  # conflicting images that dataset.json names
UNREAD = bytes(32)  # in place of the digest of a file that was not read


def note_sources(folder: AnyPath, shard: str, digests: Sequence[bytes]) -> None:
    """Commits the SHA-256 of every source file of a shard, UNREAD where unknown."""
    path = _path(folder, shard)
    path.parent.mkdir(exist_ok=True)
    with atomic.commit(path, scratch=folder / WORK) as file:
        file.write(b"".join(digests))


class Source(NamedTuple):
    """A source image; its label is a class name, "" where it has none."""

    split: str
    id: str
    label: str

    @property
    def name(self) -> str:
        """Returns what it is called in dataset.json."""
        return f"{self.split}/{self.id}"


class Conflict(NamedTuple):
    """An image whose bytes have another label, too; a row of conflicts.csv."""

    id: str
    split: str
    label: str
    sha256: str


class Duplicates(NamedTuple):
    """The groups of copies, each sorted by name, and the conflicts among them."""

    groups: list[list[Source]]
    conflicts: list[Conflict]

    def to_json(self) -> dict[str, Any]:
        """The `duplicates` and `conflicts` entries of the ledger.

        Returns:
            {"duplicates": {"images": how many could go, "groups": [[split/id, …], …],
            "across_splits": the groups whose images are not all of one split},
            "conflicts": {"images": how many, "first": split/id of some}}; sorted.
        """
        return {
            "duplicates": {
                "images": sum(len(group) - 1 for group in self.groups),
                "groups": _names(self.groups),
                "across_splits": _names(
                    group
                    for group in self.groups
                    if len({source.split for source in group}) > 1
                ),
            },
            "conflicts": _in_short(self.conflicts),
        }


def find(folder: AnyPath, shards: Iterable[tuple[str, Iterable[Source]]]) -> Duplicates:
    """Finds the images that have the bytes of another.

    Args:
        folder: the dataset, with the sources of all shards noted.
        shards: (name, planned images in order) of every shard.
    """
    shards = list(shards)
    repeated = _repeated(np.concatenate([_digests(folder, name) for name, _ in shards]))
    groups = defaultdict(list)
    for name, images in shards:
        for digest, image in _matching(_digests(folder, name), images, repeated):
            groups[digest].append(image)
    conflicts = []
    for digest, group in groups.items():
        group.sort(key=lambda source: source.name)
        labelled = [source for source in group if source.label]
        if len({source.label for source in labelled}) > 1:
            conflicts += [
                Conflict(source.id, source.split, source.label, digest.hex())
                for source in labelled
            ]
    conflicts.sort(key=_in_order)
    found = sorted(groups.values(), key=lambda group: group[0].name)
    return Duplicates(found, conflicts)


def together(
    before: Mapping[str, Any], listed: Sequence[Conflict], added: Duplicates
) -> tuple[dict[str, Any], list[Conflict]]:
    """Adds what a generation has found to what was known.

    Copies are found within a generation alone: a dataset keeps no digest of its sources
    but those of conflicts.

    Args:
        before: the `ledger` of dataset.json.
        listed: the rows of conflicts.csv.
        added: of the generation.

    Returns:
        The entries of `Duplicates.to_json`, and the rows of conflicts.csv.
    """
    found = added.to_json()["duplicates"]
    known = before["duplicates"]
    conflicts = sorted([*listed, *added.conflicts], key=_in_order)
    both = {
        "images": known["images"] + found["images"],
        "groups": sorted(known["groups"] + found["groups"]),
        "across_splits": sorted(known["across_splits"] + found["across_splits"]),
    }
    return {"duplicates": both, "conflicts": _in_short(conflicts)}, conflicts


def conflicts_csv(conflicts: Sequence[Conflict]) -> str:
    """The text of conflicts.csv."""
    return "".join(map(atomic.csv_line, [Conflict._fields, *conflicts]))


def parse_conflicts(text: str) -> list[Conflict]:
    """Reads what `conflicts_csv` made; nothing where there is no text."""
    return [Conflict(*row) for row in csv.reader(io.StringIO(text, newline=""))][1:]


def _in_order(row: Conflict) -> tuple[str, Conflict]:
    """Copies stand together, in an order that no hash of the run decides."""
    return row.sha256, row


def _in_short(conflicts: Sequence[Conflict]) -> dict[str, Any]:
    return {
        "images": len(conflicts),
        "first": [f"{row.split}/{row.id}" for row in conflicts[:_TOLD]],
    }


def _names(groups: Iterable[Iterable[Source]]) -> list[list[str]]:
    return [[source.name for source in group] for group in groups]


def _matching(
    digests: np.ndarray, images: Iterable[Source], wanted: set[bytes]
) -> Iterator[tuple[bytes, Source]]:
    """(digest, image) where the digest is wanted; reads no ids where none is."""
    if not wanted.intersection(keys := [digest.tobytes() for digest in digests]):
        return
    for key, image in zip(keys, images, strict=True):
        if key in wanted:
            yield key, image


def _repeated(digests: np.ndarray) -> set[bytes]:
    """The digests that occur more than once, less UNREAD."""
    unique, counts = np.unique(digests, return_counts=True)
    return {digest.tobytes() for digest in unique[counts > 1]} - {UNREAD}


def _digests(folder: AnyPath, shard: str) -> np.ndarray:
    """V32[images]: opaque 32-byte items, which NumPy can sort as they are."""
    return np.frombuffer(_path(folder, shard).read_bytes(), dtype="V32")


def _path(folder: AnyPath, shard: str) -> AnyPath:
    return folder / WORK / "sources" / f"{shard}.sha256"
