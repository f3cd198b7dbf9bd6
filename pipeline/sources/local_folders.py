"""Folders: the files below them, as the disk has them."""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from pipeline.sources import tar_archives
from pipeline.sources.folder_tree import FolderLevel
from pipeline.sources.listing import LITTER, Candidate, Ignored
from pipeline.sources.names import is_litter, printable
from pipeline.system import io_errors
from pipeline.system.errors import RunError

_T = TypeVar("_T")
_Identities = tuple[tuple[int, int], ...]


class LocalFolder:
    """A folder; links are followed, and litter is left.

    Args:
        where: its path.
        above: identities of folders that it is in: a link back to one is a loop.
    """

    def __init__(self, where: str, above: _Identities = ()) -> None:
        self.where = where
        self._above = above

    def level(self) -> FolderLevel:
        """Lists what is in it, one level down; an archive stands for a folder."""
        level, packed = FolderLevel(self.where), []
        here = (_identity(self.where),)
        for entry in _entries(self.where):
            if is_litter(entry.name):
                level.ignored.add(LITTER, *_litter_files(entry))
            elif _is_folder(entry):
                level.below[entry.name] = LocalFolder(entry.path, here)
            elif (problem := _file_problem(entry)) or not tar_archives.stem(entry.name):
                level.beside.append(Candidate(entry.name, entry.path, problem))
                if name := tar_archives.compressed_stem(entry.name):
                    level.compressed[name] = entry.path
            else:
                packed.append(entry.path)
        add_archives(level, packed)
        return level

    def files(self, ignored: Ignored) -> Iterator[Candidate]:
        """Yields every file below it; paths are relative to it."""
        for path, problem in _walk(self.where, ignored, self._above):
            yield Candidate(path[len(self.where.rstrip("/")) + 1 :], path, problem)


def add_archives(level: FolderLevel, packed: Iterable[str]) -> None:
    """Adds archives, each of which stands for a folder that is not there."""
    for path in sorted(packed):
        name = tar_archives.stem(path)
        if name in level.below:
            level.doubled.setdefault(name, []).append(path)
        else:
            level.below[name] = tar_archives.Packed(path)


def _walk(
    folder: str, ignored: Ignored, above: _Identities
) -> Iterator[tuple[str, tuple[str, str] | None]]:
    """Yields (path, problem) for every file below `folder`, following links."""
    # A stack instead of recursion, which 1,000 nested folders would end.
    waiting = [(folder, above)]
    while waiting:
        folder, above = waiting.pop()
        here = _identity(folder)
        if here in above:
            yield folder, ("unreadable", "a link to a folder that holds it")
            continue
        for entry in _entries(folder):
            if is_litter(entry.name):
                ignored.add(LITTER, *_litter_files(entry))
            elif _is_folder(entry):
                waiting.append((entry.path, (*above, here)))
            else:
                yield entry.path, _file_problem(entry)


def _litter_files(entry: os.DirEntry[str]) -> tuple[str, int]:
    """Returns a file that is litter, or one in a folder that is, and their number."""
    example, count, waiting = entry.path, 0, [entry]
    while waiting:
        here = waiting.pop()
        try:
            if here.is_dir(follow_symlinks=False):
                with os.scandir(here.path) as entries:
                    waiting += entries
                continue
        except OSError:  # nobody reads it: `lost+found` is root's alone
            continue
        example = min(example, here.path) if count else here.path
        count += 1
    return example, count


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; or what may pass
        return _asked(entry.path, entry.is_dir) is True


def _file_problem(entry: os.DirEntry[str]) -> tuple[str, str] | None:
    """Why an entry that is no folder cannot be read; asks the disk for links only."""
    try:
        found: bool | str = entry.is_file()
    except OSError:
        found = _asked(entry.path, entry.is_file)
    if found is True:
        return None
    if found:
        return "unreadable", str(found)
    link = entry.is_symlink()
    return "unreadable", "a link to nothing" if link else "not a regular file"


def _asked(path: str, question: Callable[[], bool]) -> bool | str:
    """Asks the disk, again where an error may pass; returns what else it says."""
    try:
        return io_errors.insist(path, question)
    except OSError as error:
        return str(error.strerror)


def _identity(folder: str) -> tuple[int, int]:
    status = _reached(folder, lambda: os.stat(folder))
    return status.st_dev, status.st_ino


def _entries(folder: str) -> list[os.DirEntry[str]]:
    def listed() -> list[os.DirEntry[str]]:
        with os.scandir(folder) as entries:
            return list(entries)

    return _reached(folder, listed)


def _reached(folder: str, question: Callable[[], _T]) -> _T:
    """Asks the disk about a folder, which must be there."""
    try:
        return io_errors.insist(folder, question)
    except OSError as error:
        shown = io_errors.shortened(printable(folder))
        raise RunError(
            f"cannot list {shown}: {error.strerror}. Make it readable, or move it out "
            "of IMAGES."
        ) from error
