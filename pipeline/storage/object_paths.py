"""Paths of objects, `s3://bucket/key`, `gs://…` and `az://…`, beside those of files.

An ObjectPath has the part of pathlib.Path's interface that is used on IMAGES, DATASET
and PREDICTIONS. A store has keys, not folders: a folder is what keys begin with, it is
there while one of them is, and making one does nothing.
"""

import fnmatch
import io
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import total_ordering
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, NamedTuple, TextIO, TypeVar, overload

from pipeline.storage import object_store
from pipeline.system.errors import UsageError

AHEAD = object_store.CONNECTIONS  # requests at once
_PREFIXES = tuple(f"{scheme}://" for scheme in object_store.SCHEMES)
_FOLDER = -1  # in place of a size, of what a listing ended at a `/`
_READ_TOGETHER = 8 << 20  # bytes of an object that is read in order

_T = TypeVar("_T")
_S = TypeVar("_S")


class Status(NamedTuple):
    """As os.stat_result, of an object."""

    st_size: int
    st_mode: int = stat.S_IFREG


@total_ordering
class ObjectPath:
    """The path of an object, or of what keys begin with.

    Args:
        uri: `scheme://bucket/key`; a `/` at its end says nothing.
        size: of the object, where a listing has just told it; it is believed.

    Raises:
        UsageError: it names no bucket.
    """

    def __init__(self, uri: str, size: int | None = None) -> None:
        self._scheme, _, rest = uri.partition("://")
        self._bucket_name, _, key = rest.partition("/")
        self._key = key.rstrip("/")
        self._size = size
        if not self._bucket_name:
            raise UsageError(f"{uri} names no bucket: {self._scheme}://BUCKET/PREFIX")

    def __str__(self) -> str:
        return (
            f"{self._scheme}://{'/'.join(filter(None, (self._bucket_name, self._key)))}"
        )

    def __repr__(self) -> str:
        return f"ObjectPath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectPath) and str(self) == str(other)

    def __lt__(self, other: "ObjectPath") -> bool:
        return str(self) < str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __truediv__(self, name: str) -> "ObjectPath":
        return ObjectPath(f"{self}/{name}")

    @property
    def name(self) -> str:
        """The last part; of a whole bucket, its name."""
        return self._key.rpartition("/")[2] or self._bucket_name

    @property
    def stem(self) -> str:
        """The name without its extension."""
        return Path(self.name).stem

    @property
    def suffix(self) -> str:
        """The extension."""
        return Path(self.name).suffix

    @property
    def parent(self) -> "ObjectPath":
        """The folder; a whole bucket is its own."""
        return ObjectPath(
            f"{self._scheme}://{self._bucket_name}/{self._key.rpartition('/')[0]}"
        )

    @property
    def parents(self) -> Sequence["ObjectPath"]:
        """All folders, up to the bucket."""
        return [self.parent, *self.parent.parents] if self._key else []

    def with_name(self, name: str) -> "ObjectPath":
        """Beside this one."""
        return self.parent / name

    def absolute(self) -> "ObjectPath":
        """Itself."""
        return self

    def resolve(self) -> "ObjectPath":
        """Itself: a store has no links."""
        return self

    def exists(self) -> bool:
        """Says whether it is an object, or a folder."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Says whether it is an object."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Says whether keys begin with it.

        Raises:
            StoreError: there is no such bucket.
        """
        found = next(self._bucket.walk(self._key), None)
        return bool(found) or not self._key

    def stat(self) -> Status:
        """Its size.

        Raises:
            FileNotFoundError: it is no object.
        """
        if self._size == _FOLDER or not self._key:
            raise FileNotFoundError(2, "No such object", str(self))
        size = self._bucket.size(self._key) if self._size is None else self._size
        return Status(size)

    def iterdir(self) -> Iterator["ObjectPath"]:
        """Yields what is in a folder, in order; a request for every thousand."""
        yield from map(self._at, self._bucket.level(self._key))

    def walk_files(self) -> Iterator["ObjectPath"]:
        """Yields every object below a folder, in order of the keys."""
        yield from map(self._at, self._bucket.walk(self._key))

    def glob(self, pattern: str) -> Iterator["ObjectPath"]:
        """Yields what is in a folder and has a name like `pattern`, without a `/`."""
        for path in self.iterdir():
            if fnmatch.fnmatchcase(path.name, pattern):
                yield path

    def mkdir(self, *, parents: bool = True, exist_ok: bool = True) -> None:
        """Does nothing."""

    def read_bytes(self) -> bytes:
        """All of an object.

        Raises:
            FileNotFoundError: it is none.
        """
        return self.read_part(0, None)

    def read_part(self, start: int, length: int | None) -> bytes:
        """A part of an object; less where it ends before."""
        if length == 0:
            return b""
        return self._bucket.read(self._key, start, length)

    def read_text(self, encoding: str = "utf-8") -> str:
        """All of an object, as text."""
        return self.read_bytes().decode(encoding)

    @overload
    def open(self, mode: Literal["rb"]) -> BinaryIO: ...

    @overload
    def open(
        self,
        mode: Literal["r"] = "r",
        *,
        encoding: str = "utf-8",
        errors: str | None = None,
        newline: str | None = None,
    ) -> TextIO: ...

    def open(
        self,
        mode: str = "r",
        *,
        encoding: str = "utf-8",
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """Opens an object for reading; `atomic.commit` writes one.

        Raises:
            FileNotFoundError: it is none.
        """
        if mode not in ("r", "rb"):
            raise ValueError(f"an object cannot be opened with mode {mode!r}")
        reader = io.BufferedReader(_Reader(self), _READ_TOGETHER)
        if mode == "rb":
            return reader
        return io.TextIOWrapper(reader, encoding, errors, newline)

    def upload(self, path: Path) -> None:
        """Makes an object of a finished file.

        Raises:
            StoreError: the store failed, or has another size than the file.
        """
        size, found = path.stat().st_size, self._bucket.upload(path, self._key)
        if found != size:
            raise object_store.StoreError(
                f"{self} has {found} bytes after {size} were written. Does something "
                "else write there? Run the same command again."
            )

    def unlink(self, *, missing_ok: bool = True) -> None:
        """Deletes an object; a store does not say whether there was one."""
        self.delete([self])

    def delete(self, paths: Iterable["ObjectPath"]) -> None:
        """Deletes objects of this bucket."""
        self._bucket.delete([path._key for path in paths])

    @property
    def _bucket(self) -> object_store.Bucket:
        return object_store.bucket(self._scheme, self._bucket_name)

    def _at(self, entry: object_store.Entry) -> "ObjectPath":
        size = _FOLDER if entry.size is None else entry.size
        return ObjectPath(f"{self._scheme}://{self._bucket_name}/{entry.key}", size)


AnyPath = Path | ObjectPath


def locate(text: str) -> AnyPath:
    """The path that a text is; `~` is the home folder, whatever the shell made of it.

    Raises:
        UsageError: it has a scheme that is none of ours, or no bucket.
    """
    scheme, found, _ = text.partition("://")
    if not found:
        return Path(text).expanduser()
    if scheme not in object_store.SCHEMES:
        raise UsageError(
            f"{text}: {scheme}:// is not known; there are {', '.join(_PREFIXES)}, and "
            "paths of files"
        )
    return ObjectPath(text)


def at(text: str) -> AnyPath:
    """The path that `str` made this text of."""
    return ObjectPath(text) if is_remote(text) else Path(text)


def is_remote(text: str) -> bool:
    """Says whether a path, as text, is one of an object."""
    return text.startswith(_PREFIXES)


def at_once(
    where: AnyPath, action: Callable[[_S], _T], items: Sequence[_S]
) -> list[_T]:
    """The results of an action on every item; several at a time wait for a store.

    Args:
        where: the folder that the action reads or writes.
        action: what is to be done.
        items: with what.
    """
    if isinstance(where, Path):
        return list(map(action, items))
    with ThreadPoolExecutor(AHEAD) as threads:
        return list(threads.map(action, items))


class _Reader(io.RawIOBase):
    """An object as a file, a request for every part that is read."""

    def __init__(self, path: ObjectPath) -> None:
        self._path, self._size = path, path.stat().st_size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}
        self._position = start[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        content = self._read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def readall(self) -> bytes:
        return self._read(self._size)

    def _read(self, length: int) -> bytes:
        length = min(length, self._size - self._position)
        if length <= 0:
            return b""
        content = self._path.read_part(self._position, length)
        self._position += len(content)
        return content
