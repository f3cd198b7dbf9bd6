"""Tar archives, read without unpacking them: what they hold, and at which byte.

The ids are those that unpacking it would give: where a name comes twice the last one
counts, and CLASS.tar may hold the files of a class or a folder CLASS of them.
"""

import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO, cast

from tqdm import tqdm

from pipeline.images import image_bytes
from pipeline.sources.folder_tree import FolderLevel, FolderTree, refuse_compressed
from pipeline.sources.listing import LITTER, Candidate, Ignored
from pipeline.sources.names import has_photo_extension, is_litter, printable
from pipeline.system import io_errors
from pipeline.system.console import progress
from pipeline.system.errors import RunError

_NAME = re.compile(r"(?:.*/)?([^/]+)\.tar", re.DOTALL | re.IGNORECASE)
_COMPRESSED = re.compile(
    r"(?:.*/)?([^/]+)\.(?:tar\.(?:gz|bz2|xz|zst|Z|lz4?|lzma)|tgz|tbz2?|txz|tzst)",
    re.DOTALL | re.IGNORECASE,
)
_MAGIC = re.compile(rb"\x1f[\x8b\x9d]|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd")
_VOLUME_LABEL, _DUMPED_FOLDER = b"V", b"D"  # of GNU tar, beside what tarfile knows
_MEGABYTE = 10**6
_PATIENCE = 10.0  # seconds without a bar
_AFTER_END = 1 << 20  # bytes that must be zero: writers pad to some KB
_LONGEST_HEADER = 64 << 20  # bytes; with extended attributes a header may have some MB


def stem(path: str) -> str:
    """The name of the folder that an archive stands for; "" where it is none."""
    match = _NAME.fullmatch(path)
    return match[1] if match else ""


def compressed_stem(path: str) -> str:
    """Does as `stem` for a compressed archive."""
    match = _COMPRESSED.fullmatch(path)
    return match[1] if match else ""


class Packed:
    """An archive that is opened when it is looked into.

    Args:
        where: its path.
    """

    def __init__(self, where: str) -> None:
        self.where = where

    def level(self) -> FolderLevel:
        """Lists what is in it, one level down."""
        return self._tree().level()

    def files(self, ignored: Ignored) -> Iterator[Candidate]:
        """Yields every file in it."""
        return self._tree().files(ignored)

    def _tree(self) -> "Tree":
        tree, name = read(self.where), stem(self.where)
        only = tree.only()
        return only if only and only.name == name else tree


@dataclass
class Tree:
    """What is in an archive, or in a folder of one; paths are relative to it.

    Attributes:
        where: the path of the archive, and that of the folder in it.
        name: of the folder.
        found: files, and what stands in the place of one.
        folders: those that have an entry of their own.
        litter: paths of files that are, or are in a folder that is.
        escaping: what has a name that leads out.
    """

    where: str
    name: str = ""
    found: list[Candidate] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    litter: list[str] = field(default_factory=list)
    escaping: list[Candidate] = field(default_factory=list)

    def level(self) -> FolderLevel:
        """Lists what is in it, one level down."""
        below, beside, litter = self._sorted()
        level = FolderLevel(self.where, beside=beside)
        for path in litter:
            level.ignored.add(LITTER, f"{self.where}/{path}")
        level.below.update(below)
        level.escaping += self.escaping
        return level

    def files(self, ignored: Ignored) -> Iterator[Candidate]:
        """Yields every file in it."""
        for path in self.litter:
            ignored.add(LITTER, f"{self.where}/{path}")
        yield from self.found
        yield from self.escaping

    def only(self) -> "Tree | None":
        """The folder in it, where it holds one and nothing else."""
        below, beside, litter = self._sorted()
        if beside or len(below) != 1:
            return None
        (tree,) = below.values()
        tree.litter += litter
        tree.escaping += self.escaping
        return tree

    def _sorted(self) -> tuple[dict[str, "Tree"], list[Candidate], list[str]]:
        """Folders by name, files and litter, one level down."""
        below: dict[str, Tree] = {}
        beside, litter = [], []
        for found in self.found:
            name, inner, path = found.path.partition("/")
            if inner:
                self._below(below, name).found.append(found._replace(path=path))
            else:
                beside.append(found)
        for folder in self.folders:
            name, inner, path = folder.partition("/")
            self._below(below, name).folders += [path] if inner else []
        for one in self.litter:
            name, inner, path = one.partition("/")
            if inner and not is_litter(name):
                self._below(below, name).litter.append(path)
            else:
                litter.append(one)
        return below, beside, litter

    def _below(self, trees: dict[str, "Tree"], name: str) -> "Tree":
        if name not in trees:
            trees[name] = Tree(f"{self.where}/{name}", name)
        return trees[name]


def first_photo(path: str) -> str:
    """Returns the first member that is called like a photo; "" where none is.

    The headers behind it are not read.
    """
    try:
        for member in _members(path):
            parts = PurePosixPath(member.name).parts
            if has_photo_extension(member.name) and not any(map(is_litter, parts)):
                return printable(member.name)
    except RunError:  # no archive that could be read
        pass
    return ""


def unwrap(place: FolderTree, splits: Iterable[str]) -> FolderTree:
    """Leads into an archive that is IMAGES, and into a folder around all others."""
    while isinstance(place, Tree) and not place.level().names() & set(splits):
        only = place.only()
        if only is None or not only.level().below:
            break
        place = only
    return place


def read(path: str) -> Tree:
    """Reads the headers of an archive, and nothing else of it.

    Raises:
        RunError: it is compressed, cut short, damaged, or no archive.
    """
    try:
        return io_errors.insist(path, lambda: _read(path))
    except OSError as error:
        raise RunError(
            f"cannot read {path}: {error.strerror}. Make it readable, or move it out "
            "of IMAGES."
        ) from error


def _read(path: str) -> Tree:
    tree = Tree(path)
    files: dict[str, Candidate] = {}
    escaping: dict[str, Candidate] = {}
    folders: set[str] = set()
    litter: set[str] = set()
    for member in _members(path):
        name = "/".join(PurePosixPath(member.name).parts)
        if member.type == _VOLUME_LABEL:
            continue
        if why := _escape(member.name, name):
            if not member.isdir():
                shown = member.name.replace("\0", r"\0")
                escaping[shown] = Candidate(shown, path, ("bad_name", why))
        elif any(map(is_litter, name.split("/"))):
            if not member.isdir():
                litter.add(name)
        elif member.isdir() or member.type == _DUMPED_FOLDER:
            folders.add(name)
        else:
            # The member that a hard link names stands before it.
            found = _hard_linked(member, files) or Candidate(
                name,
                image_bytes.in_tar(path, member.offset_data, member.size),
                _problem(member),
            )
            files.pop(name, None)  # an older version, as `tar --append` leaves it
            files[name] = found._replace(path=name)
    tree.found += files.values()
    tree.escaping += escaping.values()
    tree.folders += folders - {""}
    tree.litter += litter
    return tree


def _members(path: str) -> Iterator[tarfile.TarInfo]:
    """Yields the headers of an archive; one is in memory at a time."""
    try:
        with (
            image_bytes.open_file(path) as file,
            _progress(path) as bar,
            tarfile.open(
                fileobj=cast(BinaryIO, _Headers(file)),
                mode="r:",
                encoding="utf-8",
                errors="surrogateescape",
            ) as archive,
        ):
            before = -1
            while member := archive.next():
                archive.members.clear()  # type: ignore[attr-defined] # else: 2 KB each
                if archive.offset <= before:  # tarfile would go round for ever
                    raise tarfile.ReadError("a header leads backwards")
                before = archive.offset
                if (done := before // _MEGABYTE) > bar.n:
                    bar.update(done - bar.n)
                yield member
            _check_end(file, archive.offset)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        with image_bytes.open_file(path) as file:
            if _MAGIC.match(file.read(8)):
                refuse_compressed(path)
        raise RunError(
            f"{path} is no whole tar archive: {error}. Restore it, or move it out of "
            "IMAGES."
        ) from error


class _Headers:
    """An archive as tarfile sees it, which reads as many bytes as a header says."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, length: int = -1) -> bytes:
        """Reads a header, or a part of one.

        Raises:
            tarfile.ReadError: it would be longer than any header.
        """
        if length > _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {length:,} bytes")
        return self._read(length)


def _progress(path: str) -> tqdm:
    """A bar for a long archive: headers take 35 µs each, and more on a slow disk.

    In a store they take all of the archive: between two of them lies less than what
    comes while a request for the next one would be on its way.
    """
    return progress(
        image_bytes.size(path) // _MEGABYTE,
        f"listing {os.path.basename(path)}",
        unit="megabyte",
        delay=_PATIENCE,
    )


def _check_end(file: BinaryIO, offset: int) -> None:
    """Holds an archive to its end; tarfile takes anything that is no header for it."""
    file.seek(offset)
    mark, rest = file.read(tarfile.BLOCKSIZE), file.read(_AFTER_END)
    if len(mark) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"it ends at byte {offset} without an end mark")
    if any(mark):
        raise tarfile.ReadError(f"there is no header at byte {offset}")
    if any(rest):
        raise tarfile.ReadError(f"there is more after its end at byte {offset}")


def _hard_linked(
    member: tarfile.TarInfo, files: Mapping[str, Candidate]
) -> Candidate | None:
    """Returns the member that a hard link is another name of; None of anything else."""
    if not member.islnk():
        return None
    return files.get("/".join(PurePosixPath(member.linkname).parts))


def _escape(name: str, path: str) -> str:
    """Why no file can be unpacked under this name; "" where one can."""
    if name.startswith("/") or ".." in path.split("/"):
        return "the name leads out of the archive"
    if not path:
        return "the name is empty"
    return "the name has a zero byte" if "\0" in name else ""


def _problem(member: tarfile.TarInfo) -> tuple[str, str] | None:
    """Why a member is no image that can be read in place."""
    if member.islnk():
        name = printable(member.linkname)
        return "unreadable", f"a hard link to {name}, which the archive has not above"
    if member.issym():
        return "unreadable", f"a link to {printable(member.linkname)} in an archive"
    if member.issparse():
        return "unreadable", "a sparse file in an archive"
    return None if member.isfile() else ("unreadable", "not a regular file")
