"""Shards of an object store, fetched whole to a bounded folder on a local disk.

TensorFlow opens files and gs://, the latter at an address that nothing can change, and
reads neither s3:// nor anything else. So both come here first:

    FOLDER/SHA256.tfrecord      a shard; when it was last used is the time of the file

Any number of threads and processes may use a folder, for any number of datasets: a
shard has its name when it is whole. What is deleted while it is open can still be read.
"""

import functools
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from pipeline import files, resources
from pipeline.console import RunError, in_bytes
from pipeline.manifest import MANIFEST, Dataset, Shard
from pipeline.objects import AnyPath

_FREE_PART = 10  # a tenth of what is free
_KEPT = 32  # newest shards, which somebody may be about to open
_CHUNK = 8 << 20
_PLACE: dict[str, Any] = {}  # as flags said


class ShardCache:
    """The folder.

    Args:
        folder: made if it is not there.
        limit: bytes that it holds at most, as long as it holds more than a few shards.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._limit = folder, limit
        self._locks: dict[str, threading.Lock] = {}
        self._sound: set[str] = set()
        print(f"shards are fetched to {folder}, which holds {in_bytes(limit)} at most")

    def local(self, source: AnyPath, shard: Shard) -> Path:
        """A file with the content of a shard, to be opened at once.

        Args:
            source: where the shard is.
            shard: what is promised of it.

        Raises:
            RunError: it is not what was promised, or cannot be fetched.
        """
        path = self._folder / f"{shard.sha256}.tfrecord"
        with self._locks.setdefault(shard.sha256, threading.Lock()):
            if not self._touch(path, shard):
                self._make_room(shard.bytes)
                _fetch(source, shard, path)
                self._touch(path, shard)
            self._sound.add(shard.sha256)
        return path

    def _touch(self, path: Path, shard: Shard) -> bool:
        """Whether a shard is there, which makes it the newest."""
        try:
            now = time.time_ns()  # finer than the kernel's own clock for files
            os.utime(path, ns=(now, now))
            return shard.sha256 in self._sound or files.sha256(path) == shard.sha256
        except FileNotFoundError:
            return False

    def _make_room(self, needed: int) -> None:
        """Deletes the shards that were not used for the longest time."""
        there = sorted(_times_and_sizes(self._folder), reverse=True)
        taken = needed + sum(size for _, size, _ in there)
        while taken > self._limit and len(there) > _KEPT:
            _, size, path = there.pop()
            path.unlink(missing_ok=True)
            taken -= size


def shard_file(dataset: Dataset, shard: Shard) -> Path:
    """A shard as a file: itself, or what was fetched of it and is as promised.

    Raises:
        RunError: it cannot be fetched, or is not what was promised.
    """
    path = dataset.folder / shard.file
    return path if isinstance(path, Path) else _cache().local(path, shard)


def cache_at(folder: Path | None, limit: int | None) -> None:
    """Says where the cache of this process is, and how large, before it is used.

    Args:
        folder: without it, among temporary files.
        limit: bytes; without it, a tenth of what is free there.
    """
    _PLACE.update(folder=folder, limit=limit)
    _cache.cache_clear()


@functools.cache
def _cache() -> ShardCache:
    here = Path(tempfile.gettempdir(), f"vgg16-shards-{os.getuid()}")
    folder = _PLACE.get("folder") or here
    limit = _PLACE.get("limit") or resources.free_disk(folder) // _FREE_PART
    return ShardCache(folder, limit)


def _fetch(source: AnyPath, shard: Shard, path: Path) -> None:
    try:
        with (
            files.commit_path(path) as unfinished,
            source.open("rb") as content,
            unfinished.open("xb") as file,
        ):
            while chunk := content.read(_CHUNK):
                file.write(chunk)
            file.flush()
            found = files.sha256(unfinished)
            if found != shard.sha256:
                raise RunError(
                    f"shard {source} is not the one that was written: its sha256 is "
                    f"{found}, {MANIFEST} promises {shard.sha256}. Restore it, or make "
                    "the dataset again: `make shards` with ARGS=--overwrite."
                )
    except FileNotFoundError as error:
        raise RunError(
            f"shard {source} is missing. Restore it, or make the dataset again: `make "
            "shards` with ARGS=--overwrite."
        ) from error


def _times_and_sizes(folder: Path) -> list[tuple[int, int, Path]]:
    """Of every file, also of those that killed processes left unfinished."""
    found = []
    for path in folder.iterdir():
        try:
            status = path.stat()
        except FileNotFoundError:  # another process made room
            continue
        found.append((status.st_mtime_ns, status.st_size, path))
    return found
