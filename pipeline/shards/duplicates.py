"""Source files that are byte for byte the same, found by the SHA-256 of each.

    _work/sources/SHARD.sha256      32 bytes per planned image, in order

Two passes over these files: digests first, as an array, then only the ids of those
that occur more than once. A million images take 64 MB.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import WORK

UNREAD = bytes(32)  # in place of the digest of a file that was not read


def note_sources(folder: AnyPath, shard: str, digests: Sequence[bytes]) -> None:
    """Commits the SHA-256 of every source file of a shard, UNREAD where unknown."""
    path = _path(folder, shard)
    path.parent.mkdir(exist_ok=True)
    with atomic.commit(path, scratch=folder / WORK) as file:
        file.write(b"".join(digests))


def find(
    folder: AnyPath, shards: Iterable[tuple[str, Iterable[str]]]
) -> dict[str, Any]:
    """The `duplicates` entry of the ledger.

    Args:
        folder: the dataset, with the sources of all shards noted.
        shards: (name, "split/id" of every planned image in order) of every shard.

    Returns:
        {"images": how many could go, "groups": [[split/id, …], …], "across_splits":
        the groups whose images are not all of one split}; sorted.
    """
    shards = list(shards)
    repeated = _repeated(np.concatenate([_digests(folder, name) for name, _ in shards]))
    groups = defaultdict(list)
    for name, images in shards:
        for digest, image in _matching(_digests(folder, name), images, repeated):
            groups[digest].append(image)
    found = sorted(sorted(group) for group in groups.values())
    return {
        "images": sum(len(group) - 1 for group in found),
        "groups": found,
        "across_splits": [group for group in found if len(_splits(group)) > 1],
    }


def _matching(
    digests: np.ndarray, images: Iterable[str], wanted: set[bytes]
) -> Iterator[tuple[bytes, str]]:
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


def _splits(group: Sequence[str]) -> set[str]:
    return {image.partition("/")[0] for image in group}


def _path(folder: AnyPath, shard: str) -> AnyPath:
    return folder / WORK / "sources" / f"{shard}.sha256"
