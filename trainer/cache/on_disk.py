"""Arrays in files on local disk, for what is too large for memory or dear to make.

    FOLDER/NAME.npy     a column: one array, whose first axis is the rows
    FOLDER/cache.json   written last: what it was made from, and the checksums

The rows are made in parts. A part is committed when its rows are on disk and its note
is in `_work`: a killed run goes on after the last one. Any number of runs may read a
complete folder; while one fills it, it is that run's.
"""

import contextlib
import fcntl
import functools
import math
import os
import shutil
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
from tqdm import tqdm

from pipeline.storage import atomic, folder_lock
from pipeline.storage.resumable_folder import ResumableFolder
from pipeline.system import console, io_errors
from pipeline.system.console import in_bytes, progress
from pipeline.system.errors import RunError
from trainer import hang_detection

MANIFEST = "cache.json"

_VERSION = 3
_CHECKED_TOGETHER = 1 << 24  # bytes
_SHOWN_AFTER = 5  # seconds, until a check has a progress bar

# The rows of a part, by column.
Part = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a folder is to hold.

    Attributes:
        what: in words.
        key: everything that decides it, as JSON; of another key, a folder is stale.
        columns: by name, dtype and shape of a row.
        parts: the rows of each part.
        make: yields the parts from a given one on.
    """

    what: str
    key: Mapping[str, Any]
    columns: Mapping[str, tuple[Any, tuple[int, ...]]]
    parts: Sequence[int]
    make: Callable[[int], Iterable[Part]]

    @property
    def rows(self) -> int:
        """Returns the rows of all parts."""
        return sum(self.parts)

    @property
    def row_bytes(self) -> int:
        """Returns the bytes of a row of all columns."""
        return sum(
            np.dtype(dtype).itemsize * math.prod(shape)
            for dtype, shape in self.columns.values()
        )


def in_parts(rows: int, each: int) -> list[int]:
    """Returns the rows of each part, the last of which may be short."""
    return [min(each, rows - start) for start in range(0, rows, each)]


def on_disk(content: Content, folder: Path) -> dict[str, np.ndarray]:
    """Maps the columns into memory, and makes first what is not there yet.

    Args:
        content: what the folder is to hold.
        folder: on a local disk; made if it is not there.

    Returns:
        The columns. As long as the first of them lives, the folder is locked.

    Raises:
        RunError: the disk is too small, another run has the folder, or it holds
            something that is no cache.
    """
    folder.mkdir(parents=True, exist_ok=True)
    work = ResumableFolder(folder, manifest=MANIFEST)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _claim(descriptor, work, content)
        columns = {name: _map(folder / _file(name)) for name in content.columns}
    except BaseException:
        os.close(descriptor)
        raise
    weakref.finalize(next(iter(columns.values())), os.close, descriptor)
    return columns


def _claim(descriptor: int, work: ResumableFolder, content: Content) -> None:
    """Makes the folder complete, and locks it for a reader.

    The locks are the kernel's: a killed process holds none.
    """
    if _locks(descriptor, fcntl.LOCK_EX, work.folder):
        _make_whole(work, content)
        folder_lock.take(descriptor, fcntl.LOCK_SH, work.folder)
    elif not _locks(descriptor, fcntl.LOCK_SH, work.folder) or work.other(
        _key(content)
    ):
        raise RunError(
            f"another run uses the cache in {work.folder}. Wait for its end, or name "
            "another --cache_dir."
        )
    else:
        console.say(
            f"the cache in {work.folder} is complete; another run reads it, too"
        )


def _key(content: Content) -> dict[str, Any]:
    return {"version": _VERSION, **content.key}


def _locks(descriptor: int, kind: int, folder: Path) -> bool:
    """Takes a lock, if nobody is in the way."""
    try:
        folder_lock.take(descriptor, kind | fcntl.LOCK_NB, folder)
    except BlockingIOError:
        return False
    return True


def _make_whole(work: ResumableFolder, content: Content) -> None:
    """Keeps what an earlier run made of the same, or fills the folder anew."""
    key = _key(content)
    if stale := work.other(key):
        console.say(
            f"the cache in {work.folder} is of something else ({stale}): made anew"
        )
        work.clear(_file("*"))
    if work.start(key):
        if _is_whole(work, content):
            console.say(f"the cache in {work.folder} is complete")
            return
        console.say(f"the cache in {work.folder} is damaged: made anew")
        work.clear(_file("*"))
        work.start(key)
    _fill(work, content)


def _fill(work: ResumableFolder, content: Content) -> None:
    """Makes the parts that are missing, each written while the next is made."""
    notes = _committed(work, content)
    rows = sum(content.parts[: len(notes)])
    if notes:
        console.say(
            f"the cache in {work.folder} goes on after {rows} of {content.rows} rows"
        )
    _look_at_disk(work.folder, content, rows)
    pending: Future | None = None
    with contextlib.ExitStack() as stack:
        opened = {
            name: stack.enter_context(_open(work, content, name, rows))
            for name in content.columns
        }
        writer = stack.enter_context(ThreadPoolExecutor(1))
        for part in content.make(len(notes)):
            if pending:
                notes.append(pending.result())
            pending = writer.submit(_commit, work, len(notes), opened, part)
        if pending:
            notes.append(pending.result())
    for name in content.columns:
        _unfinished(work, name).replace(work.folder / _file(name))
    paths = {name: work.folder / _file(name) for name in content.columns}
    work.finish({**_key(content), "crc32c": notes, "seals": _seals(paths)})


def _committed(work: ResumableFolder, content: Content) -> list[dict[str, int]]:
    """Returns the checksums of the parts up to the first that is missing."""
    for name in content.columns:  # killed just before the end
        if (whole := work.folder / _file(name)).is_file():
            whole.replace(_unfinished(work, name))
    notes: list[dict[str, int]] = []
    while (path := _note(work, len(notes))).is_file():
        notes.append(atomic.read_json(path)["crc32c"])
    paths = {name: _unfinished(work, name) for name in content.columns}
    sound = _sound_parts(paths, content, notes)
    return notes[:sound]


def _commit(
    work: ResumableFolder, number: int, opened: Mapping[str, BinaryIO], part: Part
) -> dict[str, int]:
    """Brings a part to disk, and then its note."""
    checksums = {}
    for name, file in opened.items():
        data = np.ascontiguousarray(part[name]).tobytes()
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        hang_detection.alive()
        checksums[name] = google_crc32c.value(data)
    atomic.write_json(_note(work, number), {"crc32c": checksums}, scratch=work.work)
    hang_detection.alive()
    return checksums


def _open(work: ResumableFolder, content: Content, name: str, rows: int) -> BinaryIO:
    """Opens a column, to be written from a row on; cuts off what comes after."""
    dtype, shape = content.columns[name]
    path = _unfinished(work, name)
    if not rows:
        with path.open("wb") as file:
            header = np.lib.format.header_data_from_array_1_0(np.empty(0, dtype))
            header["shape"] = (content.rows, *shape)
            np.lib.format.write_array_header_1_0(file, header)
    start = _offset(path) + rows * np.dtype(dtype).itemsize * math.prod(shape)
    os.truncate(path, start)
    return path.open("ab")


def _look_at_disk(folder: Path, content: Content, rows: int) -> None:
    needed = (content.rows - rows) * content.row_bytes
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RunError(
            f"the disk of {folder} has {in_bytes(free)} free, and the {content.what} "
            f"need {in_bytes(needed)}. Free some, name another --cache_dir, or use "
            "--cache=none."
        )


def _is_whole(work: ResumableFolder, content: Content) -> bool:
    """Returns whether the files are those that were written.

    Files of the same size, time and inode as when their checksums were last right are
    not read again: 265 GB take 35 minutes from a disk of 125 MB/s.
    """
    noted = atomic.read_json(work.manifest)
    paths = {name: work.folder / _file(name) for name in content.columns}
    if noted.get("seals") == _seals(paths):
        return True
    if _sound_parts(paths, content, noted["crc32c"]) < len(content.parts):
        return False
    atomic.write_json(work.manifest, {**noted, "seals": _seals(paths)})
    return True


def _seals(paths: Mapping[str, Path]) -> dict[str, list[int]]:
    """Returns size, time of the last change in ns, and inode of every file."""
    seals = {}
    for name, path in paths.items():
        with contextlib.suppress(FileNotFoundError):  # equal to no note, then
            found = path.stat()
            seals[name] = [found.st_size, found.st_mtime_ns, found.st_ino]
    return seals


def _sound_parts(
    paths: Mapping[str, Path], content: Content, notes: Sequence[Mapping[str, int]]
) -> int:
    """Returns how many parts are as noted, up to the first that is not."""
    sound = len(notes)
    for name, path in paths.items():
        dtype, shape = content.columns[name]
        row = np.dtype(dtype).itemsize * math.prod(shape)
        rows = content.parts[:sound]
        read = functools.partial(_checksums, path, [count * row for count in rows])
        what = f"checking the {content.what}, {name}"
        with progress(sum(rows), what, delay=_SHOWN_AFTER) as bar:
            try:
                found = io_errors.insist(path, lambda: read(rows, bar))  # noqa: B023
            except (OSError, ValueError):  # gone, or cut short
                return 0
        same = [a == note[name] for a, note in zip(found, notes, strict=False)]
        sound = (*same, False).index(False)
    return sound


def _checksums(
    path: Path, sizes: Sequence[int], rows: Sequence[int], bar: tqdm
) -> list[int]:
    """Returns the CRC-32C of each part of a column.

    Args:
        path: a .npy file.
        sizes: bytes of each part.
        rows: rows of each part, for the bar.
        bar: starts anew, since a read that failed is tried again.
    """
    bar.reset()
    found = []
    with path.open("rb") as file:
        file.seek(_offset(path))
        for size, count in zip(sizes, rows, strict=True):
            found.append(_checksum(file, size))
            bar.update(count)
    return found


def _checksum(file: BinaryIO, size: int) -> int:
    """Returns the CRC-32C of the next `size` bytes."""
    checksum = 0
    for data in _chunks(file, size):
        checksum = google_crc32c.extend(checksum, data)
        hang_detection.alive()
    return checksum


def _chunks(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size and (data := file.read(min(size, _CHECKED_TOGETHER))):
        size -= len(data)
        yield data


def _offset(path: Path) -> int:
    """Returns where the data of a .npy file begins.

    Raises:
        ValueError: it is no such file.
    """
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        return file.tell()


def _map(path: Path) -> np.ndarray:
    """Maps a file writable, as TensorFlow wants it, though nothing writes.

    Shared: a private mapping of this size would have to fit into memory and swap.
    """
    return np.lib.format.open_memmap(path, mode="r+")


def _file(name: str) -> str:
    return f"{name}.npy"


def _unfinished(work: ResumableFolder, name: str) -> Path:
    return work.work / _file(name)


def _note(work: ResumableFolder, number: int) -> Path:
    return work.work / f"part-{number:06d}.json"
