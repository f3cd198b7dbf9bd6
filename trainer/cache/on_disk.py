"""Arrays in files on local disk, for what is too large for memory or dear to make.

    FOLDER/NAME.npy     a column: one array, whose first axis is the rows
    FOLDER/cache.json   written last: what it was made from, and the checksums

The rows are made in parts. A part is committed when its rows are on disk and its note
is in `_work`: a killed run goes on after the last one. Any number of runs may read a
complete folder; while one fills it, it is that run's.
"""

import contextlib
import fcntl
import math
import os
import shutil
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np

from pipeline.storage import atomic, folder_lock
from pipeline.storage.resumable_folder import ResumableFolder
from pipeline.system import console, io_errors
from pipeline.system.console import in_bytes, progress
from pipeline.system.errors import RunError
from trainer import hang_detection
from trainer.cache.content import LABELS, Batch, Content

MANIFEST = "cache.json"

_VERSION = 4
_CHECKED_TOGETHER = 1 << 24  # bytes
_SHOWN_AFTER = 5  # seconds, until a check has a progress bar

Notes = list[dict[str, int]]  # the CRC-32C of each part, by column


def fill(content: Content, folder: Path) -> dict[str, np.ndarray]:
    """Maps the columns of a content into memory, and makes first what is not there yet.

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
        # Writable, as TensorFlow wants it, though nothing writes; shared, as a private
        # mapping of this size would have to fit into memory and swap.
        columns: dict[str, np.ndarray] = {
            name: np.lib.format.open_memmap(path, mode="r+")
            for name, path in _paths(folder, content).items()
        }
    except BaseException:
        os.close(descriptor)
        raise
    weakref.finalize(next(iter(columns.values())), os.close, descriptor)
    return columns


def find_damage(folder: Path) -> str | None:
    """Compares a complete cache with the checksums of when it was made, all of it.

    Returns:
        Which file differs, and where; None if none does.
    """
    noted = atomic.read_json(folder / MANIFEST)
    part_rows = noted["part_rows"]
    for name in noted["seals"]:
        path = folder / f"{name}.npy"
        checksums = [note[name] for note in noted["crc32c"]]
        if (sound := _sound_parts(path, part_rows, checksums)) < len(checksums):
            return (
                f"{path} is not as it was written: a byte from row "
                f"{sound * part_rows} to {(sound + 1) * part_rows - 1} has changed, "
                "or is missing"
            )
    return None


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
        work.clear("*.npy")
    if work.start(key):
        if _is_whole(work, _paths(work.folder, content)):
            console.say(f"the cache in {work.folder} is complete")
            return
        console.say(f"the cache in {work.folder} is damaged: made anew")
        work.clear("*.npy")
        work.start(key)
    _fill(work, content)


def _fill(work: ResumableFolder, content: Content) -> None:
    """Makes the parts that are missing, each written while the next is made."""
    notes = _committed(work, content)
    rows = min(len(notes) * content.part_rows, content.rows)
    if notes:
        console.say(
            f"the cache in {work.folder} goes on after {rows} of {content.rows} rows"
        )
    _refuse_small_disk(work.folder, content, rows)
    unfinished = _paths(work.work, content)
    pending: Future | None = None
    with contextlib.ExitStack() as stack:
        opened = {
            name: stack.enter_context(_open(path, content, name, rows))
            for name, path in unfinished.items()
        }
        writer = stack.enter_context(ThreadPoolExecutor(1))
        for part in _parts(content, rows):
            if pending:
                notes.append(pending.result())
            pending = writer.submit(_commit, work, len(notes), opened, part)
        if pending:
            notes.append(pending.result())
    finished = _paths(work.folder, content)
    for name, path in unfinished.items():
        path.replace(finished[name])
    work.finish(
        {
            **_key(content),
            "part_rows": content.part_rows,
            "crc32c": notes,
            "seals": _seals(finished),
        }
    )


def _parts(content: Content, first: int) -> Iterator[list[Batch]]:
    """Yields the batches of each part, from a row on."""
    part: list[Batch] = []
    for batch in content.make(first):
        part.append(batch)
        if sum(len(one[LABELS]) for one in part) == content.part_rows:
            yield part
            part = []  # another one: the last is still being written
    if part:
        yield part


def _commit(
    work: ResumableFolder,
    number: int,
    opened: Mapping[str, BinaryIO],
    part: Sequence[Batch],
) -> dict[str, int]:
    """Brings a part to disk, and then its note."""
    checksums = {}
    for name, file in opened.items():
        checksums[name] = 0
        for batch in part:
            data = np.ascontiguousarray(batch[name]).tobytes()
            checksums[name] = google_crc32c.extend(checksums[name], data)
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
        hang_detection.alive()
    atomic.write_json(_note(work, number), {"crc32c": checksums}, scratch=work.work)
    hang_detection.alive()
    return checksums


def _committed(work: ResumableFolder, content: Content) -> Notes:
    """Returns the checksums of the parts up to the first that is missing."""
    unfinished = _paths(work.work, content)
    for name, path in _paths(work.folder, content).items():
        if path.is_file():  # killed just before the end
            path.replace(unfinished[name])
    notes: Notes = []
    while (path := _note(work, len(notes))).is_file():
        notes.append(atomic.read_json(path)["crc32c"])
    for name, path in unfinished.items():
        noted = [note[name] for note in notes]
        notes = notes[: _sound_parts(path, content.part_rows, noted)]
    return notes


def _open(path: Path, content: Content, name: str, rows: int) -> BinaryIO:
    """Opens a column, to be written from a row on; cuts off what comes after."""
    if not rows:
        dtype, shape = content.columns[name]
        with path.open("wb") as file:
            header = np.lib.format.header_data_from_array_1_0(np.empty(0, dtype))
            header["shape"] = (content.rows, *shape)
            np.lib.format.write_array_header_1_0(file, header)
    with path.open("rb") as file:
        _, row_bytes = _read_header(file)
        os.truncate(path, file.tell() + rows * row_bytes)
    return path.open("ab")


def _refuse_small_disk(folder: Path, content: Content, rows: int) -> None:
    needed = (content.rows - rows) * sum(content.row_bytes.values())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RunError(
            f"the disk of {folder} has {in_bytes(free)} free, and the {content.what} "
            f"need {in_bytes(needed)}. Free some, name another --cache_dir, or use "
            "--cache=none."
        )


def _is_whole(work: ResumableFolder, paths: Mapping[str, Path]) -> bool:
    """Returns whether the files are those that were written.

    Files of the same size, time and inode as when their checksums were last right are
    not read again: 265 GB take 35 minutes from a disk of 125 MB/s.
    """
    noted = atomic.read_json(work.manifest)
    if noted["seals"] != _seals(paths):
        if find_damage(work.folder):
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


def _sound_parts(path: Path, part_rows: int, noted: Sequence[int]) -> int:
    """Returns how many parts of a column are as noted, up to the first that is not.

    Args:
        path: a .npy file, or what is left of one.
        part_rows: rows of each part; the last may have fewer.
        noted: the CRC-32C of each.
    """
    what = f"checking {path.parent.name}/{path.name}"
    with progress(len(noted), what, unit="part", delay=_SHOWN_AFTER) as bar:

        def read() -> int:
            bar.reset()  # a read that failed is tried again
            with path.open("rb") as file:
                rows, row_bytes = _read_header(file)
                for number, checksum in enumerate(noted):
                    left = max(0, min(part_rows, rows - number * part_rows)) * row_bytes
                    found = 0
                    while left and (data := file.read(min(left, _CHECKED_TOGETHER))):
                        found = google_crc32c.extend(found, data)
                        left -= len(data)
                        hang_detection.alive()
                    if found != checksum:
                        return number
                    bar.update()
            return len(noted)

        try:
            return io_errors.insist(path, read)
        except (OSError, ValueError):  # gone, or no .npy file any more
            return 0


def _read_header(file: BinaryIO) -> tuple[int, int]:
    """Reads the header of a .npy file; returns its rows, and the bytes of a row.

    Raises:
        ValueError: it is no such file.
    """
    np.lib.format.read_magic(file)
    (rows, *shape), _, dtype = np.lib.format.read_array_header_1_0(file)
    return rows, dtype.itemsize * math.prod(shape)


def _paths(folder: Path, content: Content) -> dict[str, Path]:
    """Returns the file of each column."""
    return {name: folder / f"{name}.npy" for name in content.columns}


def _note(work: ResumableFolder, number: int) -> Path:
    return work.work / f"part-{number:06d}.json"
