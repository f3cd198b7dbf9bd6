"""Shards of an object store, fetched whole to a bounded folder on a local disk.

TensorFlow opens files and gs://, the latter at an address that nothing can change, and
reads neither s3:// nor anything else. So both come here first:

    DIR/vgg16-shards-UID/SHA256.tfrecord    a shard; the time of the file says when it
                                            was last used

DIR may hold anything: only files of these names, in this folder, are ever removed. The
folder belongs to one user, and nobody else may enter it, since a shard is held to its
checksum only once in a run. Any number of threads and processes of that user may use
it, for any number of datasets: a shard has its name when it is whole. What is deleted
while it is open can still be read.
"""

import functools
import os
import re
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.dataset.manifest import MANIFEST, Dataset, Shard
from pipeline.storage import atomic
from pipeline.storage.flag_paths import local_path_option
from pipeline.storage.object_paths import AnyPath
from pipeline.system import console, private_folder, resources
from pipeline.system.command_line import option
from pipeline.system.console import in_bytes
from pipeline.system.errors import RunError

_FREE_PART = 10  # a tenth of what is free
_KEPT = 32  # newest shards, which somebody may be about to open
_CHUNK = 8 << 20
_DEAD_SECONDS = 3600.0  # without a byte, after which nobody writes to a scratch file
_SHARD = re.compile(r"[0-9a-f]{64}\.tfrecord")
_SCRATCH = re.compile(r"\.scratch-.*[0-9a-f]{64}\.tfrecord")  # of atomic.commit_path
_PLACE: dict[str, Any] = {}  # as flags said


@dataclass(frozen=True, kw_only=True)
class ShardCacheOptions:
    """Where shards of a store are fetched to; see cache_at."""

    shard_cache: Path | None = local_path_option(
        "Names the folder of vgg16-shards-UID, where shards go that are fetched from a "
        "store; by default the one for temporary files.",
        None,
    )
    shard_cache_bytes: int | None = option(
        "Limits the bytes of the fetched shards; by default to a tenth of the free "
        "disk.",
        None,
        lower_bound=1,
    )


class ShardCache:
    """Fetched shards, in a folder of their own.

    Args:
        parent: the folder in which that folder is made; made if it is not there.
        limit: bytes that it holds at most, as long as it holds more than a few shards.

    Raises:
        RunError: something else has the name of the folder, or another user owns it.
    """

    def __init__(self, parent: Path, limit: int) -> None:
        folder = _own_folder(parent)
        self._folder, self._limit = folder, limit
        self._locks: dict[str, threading.Lock] = {}
        self._sound: set[str] = set()
        console.say(
            f"shards are fetched to {folder}, which holds {in_bytes(limit)} at most"
        )

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
        """Says whether a shard is there, which makes it the newest."""
        try:
            now = time.time_ns()  # finer than the kernel's own clock for files
            os.utime(path, ns=(now, now))
            return shard.sha256 in self._sound or atomic.sha256(path) == shard.sha256
        except FileNotFoundError:
            return False

    def _make_room(self, needed: int) -> None:
        """Deletes what killed processes left, and the shards unused for longest."""
        shards, taken = list[tuple[int, int, Path]](), needed
        for path, status in _files(self._folder):
            if _SHARD.fullmatch(path.name):
                shards.append((status.st_mtime_ns, status.st_size, path))
            elif not _SCRATCH.fullmatch(path.name):
                continue
            elif time.time() - status.st_mtime > _DEAD_SECONDS:
                path.unlink(missing_ok=True)
                continue
            taken += status.st_size
        shards.sort(reverse=True)
        while taken > self._limit and len(shards) > _KEPT:
            _, size, path = shards.pop()
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
        folder: in which a folder of its own is made; without it, among temporary files.
        limit: bytes; without it, a tenth of what is free there.
    """
    _PLACE.update(folder=folder, limit=limit)
    _cache.cache_clear()


@functools.cache
def _cache() -> ShardCache:
    parent = _PLACE.get("folder") or Path(tempfile.gettempdir())
    limit = _PLACE.get("limit") or resources.free_disk(parent) // _FREE_PART
    return ShardCache(parent, limit)


def _own_folder(parent: Path) -> Path:
    """Makes the folder of this user's shards, which nobody else may enter.

    Raises:
        RunError: the name is taken by a link, a file, or a folder of another user.
    """
    folder = parent / f"vgg16-shards-{os.getuid()}"
    parent.mkdir(parents=True, exist_ok=True)
    private_folder.make(
        folder,
        use="fetched shards go to",
        advice="since others could exchange the shards: remove it, or name another "
        "folder with --shard_cache",
    )
    return folder


def _fetch(source: AnyPath, shard: Shard, path: Path) -> None:
    try:
        with (
            atomic.commit_path(path) as unfinished,
            source.open("rb") as content,
            unfinished.open("xb") as file,
        ):
            while chunk := content.read(_CHUNK):
                file.write(chunk)
            file.flush()
            found = atomic.sha256(unfinished)
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


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yields the regular files of a folder."""
    for path in folder.iterdir():
        try:
            status = path.lstat()
        except FileNotFoundError:  # another process made room
            continue
        if stat.S_ISREG(status.st_mode):
            yield path, status
