"""Stored pictures that look the same: resized, encoded again, a little brighter.

A picture is hashed to 128 bits: whether each of 8 x 8 cells is brighter than its
neighbour on the right, and than the one below (dHash, N. Krawetz 2013, in both
directions). imagehash has it, too, by Pillow, and would bring SciPy and PyWavelets.

Pictures are near copies of which at most LIMIT bits differ, and whose cells correlate.
The former have one of eight parts of 16 bits in common, so only pictures that share a
part are compared. Where very many share one, those are compared that are near in the
order of the rest. Each picture takes 113 bytes.
"""

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

from pipeline.dataset import record
from pipeline.dataset.manifest import Dataset
from pipeline.dataset.record import BadRecordError, Record
from pipeline.storage.object_paths import AnyPath
from pipeline.system import child_process, console
from pipeline.system.errors import RunError

LIMIT = 7  # bits: less than the parts of a hash, so that one part is the same
_PARTS, _BITS = 8, 128
_SAME = 0.98  # correlation of the brightness of the cells
_CELLS = 8
_FLAT = 4.0  # grey levels of standard deviation, below which there is nothing to hash
_NEIGHBOURS = 1000  # that a picture is compared with, in one part
# Bits are dealt out in turn: neighbouring ones often agree.
_PART_OF_BIT = np.arange(_BITS) % _PARTS


class Hashes(NamedTuple):
    """The hashes of pictures, in any order.

    Attributes:
        bits: uint64[pictures, 2].
        cells: uint8[pictures, 81], the brightness of 9 x 9 cells.
        shards: int32[pictures], positions in the list of shards.
        offsets: int64[pictures], bytes at which their records begin.
        labels: int32[pictures].
        flat: pictures of one colour, which are left out.
    """

    bits: np.ndarray
    cells: np.ndarray
    shards: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    flat: int


class Shown(NamedTuple):
    """A picture of a group, as it is stored."""

    split: str
    record: Record


@dataclass(frozen=True)
class Group:
    """Pictures that look the same.

    Attributes:
        pictures: int[pictures], positions in Hashes.
        splits: that they are of.
        labels: that they have, without those of unlabelled splits.
    """

    pictures: np.ndarray
    splits: frozenset[str]
    labels: frozenset[int]


@dataclass(frozen=True)
class NearCopies:
    """All groups of a dataset.

    Attributes:
        groups: first those of several splits, then those of several labels, then the
            largest.
        shown: some pictures of the first groups.
        flat: pictures of one colour, which were left out.
    """

    groups: list[Group]
    shown: list[list[Shown]]
    flat: int

    @property
    def images(self) -> int:
        """How many pictures could go."""
        return sum(len(group.pictures) - 1 for group in self.groups)

    @property
    def across_splits(self) -> int:
        """Groups of several splits."""
        return sum(len(group.splits) > 1 for group in self.groups)

    @property
    def several_labels(self) -> int:
        """Groups of several labels."""
        return sum(len(group.labels) > 1 for group in self.groups)


def find(dataset: Dataset, *, workers: int, most: int, of_each: int) -> NearCopies:
    """Reads all shards, and returns the groups of pictures that look the same.

    Args:
        dataset: complete.
        workers: processes that read shards.
        most: groups of which pictures are read.
        of_each: pictures of such a group.

    Raises:
        RunError: a shard is damaged, or a process was killed.
    """
    shards = [
        (split, shard)
        for split, of_split in dataset.splits.items()
        for shard in of_split.shards
    ]
    work = partial(_hash_shard, dataset.folder)
    files = [shard.file for _, shard in shards]
    every: Generator[Hashes, None, None] = child_process.each(
        work, files, workers=workers, of="inspect"
    )
    found = []
    images = sum(shard.examples for _, shard in shards)
    with console.progress(images, "look") as bar, contextlib.closing(every):
        for number, part in enumerate(every):
            found.append(part._replace(shards=np.full(len(part.labels), number, "i4")))
            bar.update(shards[number][1].examples)
    hashes = together(found)
    splits = np.array([split for split, _ in shards], object)
    groups = []
    for pictures in components(hashes.bits, hashes.cells):
        labels = {int(label) for label in hashes.labels[pictures] if label >= 0}
        of_splits = frozenset(splits[hashes.shards[pictures]])
        groups.append(Group(pictures, of_splits, frozenset(labels)))
    groups.sort(
        key=lambda group: (
            -len(group.splits),
            -len(group.labels),
            -len(group.pictures),
            int(group.pictures[0]),
        )
    )
    shown = []
    for group in groups[:most]:
        some = []
        for picture in group.pictures[:of_each]:
            split, shard = shards[hashes.shards[picture]]
            path, offset = dataset.folder / shard.file, int(hashes.offsets[picture])
            some.append(Shown(split, record.read_at(path, offset)))
        shown.append(some)
    return NearCopies(groups, shown, hashes.flat)


def hash_picture(jpeg: bytes) -> tuple[np.ndarray, np.ndarray] | None:
    """Hashes a JPEG.

    Returns:
        uint64[2] and uint8[81], as in Hashes; None for a picture of one colour.
    """
    side = 2 * (_CELLS + 1)
    grey = simplejpeg.decode_jpeg(
        jpeg, colorspace="GRAY", min_height=side, min_width=side
    )
    small = cv2.resize(
        grey[..., 0].astype(np.float32),
        (_CELLS + 1, _CELLS + 1),
        interpolation=cv2.INTER_AREA,
    )
    if small.std() < _FLAT:
        return None
    right = small[:-1, 1:] > small[:-1, :-1]
    below = small[1:, :-1] > small[:-1, :-1]
    bits = np.packbits(np.concatenate([right.ravel(), below.ravel()]))
    return bits.view(np.uint64), np.round(small).astype(np.uint8).ravel()


def together(parts: Sequence[Hashes]) -> Hashes:
    """Joins the hashes of shards."""
    arrays = ("bits", "cells", "shards", "offsets", "labels")
    return Hashes(
        **{x: np.concatenate([getattr(part, x) for part in parts]) for x in arrays},
        flat=sum(part.flat for part in parts),
    )


def components(bits: np.ndarray, cells: np.ndarray) -> list[np.ndarray]:
    """Returns the groups of near copies.

    Args:
        bits: uint64[pictures, 2].
        cells: uint8[pictures, 81].

    Returns:
        int[pictures] of each group, sorted; each has two pictures or more.
    """
    if not len(bits):
        return []
    # A picture that is there a thousand times is compared once.
    unique, at, of_picture = np.unique(
        bits, axis=0, return_index=True, return_inverse=True
    )
    first, second = near_pairs(unique)
    same = correlations(cells[at[first]], cells[at[second]]) >= _SAME
    first, second = first[same], second[same]
    labels = np.arange(len(unique))
    while True:  # the least number of a group reaches all of it
        least = np.minimum(labels[first], labels[second])
        before = labels.copy()
        np.minimum.at(labels, first, least)
        np.minimum.at(labels, second, least)
        if np.array_equal(before, labels):
            break
    groups = labels[of_picture.reshape(-1)]
    order = np.argsort(groups, kind="stable")
    cuts = np.flatnonzero(np.diff(groups[order])) + 1
    return [group for group in np.split(order, cuts) if len(group) > 1]


def near_pairs(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pairs of different hashes that differ in at most LIMIT bits.

    Args:
        bits: uint64[pictures, 2], each once.

    Returns:
        int[pairs], int[pairs]; a pair may come more than once.
    """
    every = np.unpackbits(bits.view(np.uint8), axis=1)  # uint8[pictures, 128]
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for part in range(_PARTS):
        own = np.packbits(every[:, part == _PART_OF_BIT], axis=1)
        key = np.ascontiguousarray(own).view(np.uint16)[:, 0]
        order = np.lexsort((bits[:, 1], bits[:, 0], key))
        keys, ordered = key[order], bits[order]
        here = np.arange(len(bits))
        for step in range(1, _NEIGHBOURS + 1):
            here = here[here + step < len(bits)]
            here = here[keys[here] == keys[here + step]]
            if not len(here):
                break
            differ = np.bitwise_count(ordered[here] ^ ordered[here + step]).sum(axis=1)
            near = here[differ <= LIMIT]
            found.append((order[near], order[near + step]))
    if not found:
        return np.zeros(0, int), np.zeros(0, int)
    first, second = map(np.concatenate, zip(*found, strict=True))
    return first, second


def correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns float32[pairs], from -1 to 1, of two uint8[pairs, cells]."""
    one, other = (
        cells - cells.mean(axis=1, keepdims=True, dtype=np.float32)
        for cells in (first, second)
    )
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    found: np.ndarray = (one * other).sum(axis=1) / lengths
    return found


def _hash_shard(folder: AnyPath, file: str) -> Hashes:
    """Hashes the pictures of a shard; in a child."""
    bits, cells, offsets, labels, flat = [], [], [], [], 0
    try:
        for stored in record.read(folder / file):
            found = hash_picture(stored.record.encoded)
            if found is None:
                flat += 1
                continue
            bits.append(found[0])
            cells.append(found[1])
            offsets.append(stored.offset)
            labels.append(stored.record.label)
    except (BadRecordError, ValueError) as error:
        raise RunError(
            f"shard {folder / file} is damaged: {error}. `make verify` says all that "
            "is wrong."
        ) from error
    return Hashes(
        np.array(bits, np.uint64).reshape(-1, 2),
        np.array(cells, np.uint8).reshape(-1, (_CELLS + 1) ** 2),
        np.zeros(len(labels), np.int32),
        np.array(offsets, np.int64),
        np.array(labels, np.int32),
        flat,
    )
