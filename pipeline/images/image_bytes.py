"""Where the bytes of an image are: a file or an object, or a part of a tar archive."""

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import BinaryIO

from pipeline.images.conversion import BadImage
from pipeline.storage import object_paths
from pipeline.storage.object_paths import ObjectPath
from pipeline.system import io_errors

# A larger file is no photo, and reading it could take all memory. The largest photo of
# MAX_PIXELS, stored without compression, has 358 MB.
MAX_BYTES = 512_000_000
REASONS = {"too_large": f"the file has more than {MAX_BYTES // 10**6} MB"}

_CUT = "\0"  # no path has it


def in_tar(archive: str, offset: int, size: int) -> str:
    """The uri of a member of an archive, by the place of its content."""
    return f"{archive}{_CUT}{offset}{_CUT}{size}"


def in_store(uri: str, size: int) -> str:
    """The uri of an object whose size is known from a listing."""
    return f"{uri}{_CUT}{size}"


def path(uri: str) -> str:
    """The file or the object, or the archive that holds it."""
    return uri.partition(_CUT)[0]


def is_file(uri: str) -> bool:
    """Whether it is a file of its own, in no archive."""
    return uri.count(_CUT) < 2


def in_order(uri: str) -> tuple[str, int]:
    """A key that sorts members of an archive as they lie; equal for all files."""
    if is_file(uri):
        return "", 0
    archive, offset, _ = uri.split(_CUT)
    return archive, int(offset)


def size(uri: str) -> int:
    """How many bytes it has.

    Raises:
        OSError: the file is not there, or is none.
    """
    if _CUT in uri:
        return int(uri.rpartition(_CUT)[2])
    if object_paths.is_remote(uri):
        return ObjectPath(uri).stat().st_size
    status = os.stat(uri)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(0, "not a regular file")
    return status.st_size


def read(uri: str) -> bytes:
    """Reads a file, an object, or a member of an archive.

    Raises:
        BadImage: `too_large`, told before it is read; or `unreadable`, what the system
            said.
        UnavailableError: it cannot be read now; see io_errors.
    """
    where, *numbers = uri.split(_CUT)
    place = list(map(int, numbers))
    try:
        content = io_errors.insist(where, partial(_content, where, place))
    except OSError as error:
        raise BadImage("unreadable", str(error.strerror or error)) from error
    if place and len(content) < place[-1]:
        raise BadImage("unreadable", f"{where} ends within it")
    return content


def read_ahead(uris: Iterable[str]) -> Iterator[Callable[[], bytes]]:
    """Yields for every uri what returns its content, or raises, as `read` does.

    A store answers after some 30 ms, however small the object: the next ones are under
    way meanwhile.
    """
    pending: deque[Callable[[], bytes]] = deque()
    threads = ThreadPoolExecutor(object_paths.AHEAD)
    try:
        for uri in uris:
            if object_paths.is_remote(uri):
                pending.append(threads.submit(read, uri).result)
            else:
                pending.append(partial(read, uri))
            if len(pending) == object_paths.AHEAD:
                yield pending.popleft()
        yield from pending
    finally:
        threads.shutdown(cancel_futures=True)


def open_file(where: str) -> BinaryIO:
    """Opens a file or an object."""
    return object_paths.at(where).open("rb")


def _content(where: str, place: list[int]) -> bytes:
    """Reads a file or an object, or so many bytes of it from one on."""
    if place:
        _refuse_large(place[-1])
    if object_paths.is_remote(where):
        if not place:
            _refuse_large(ObjectPath(where).stat().st_size)
        offset, length = place if len(place) == 2 else (0, None)
        return ObjectPath(where).read_part(offset, length)
    with open(where, "rb") as file:
        if not place:
            _refuse_large(os.fstat(file.fileno()).st_size)
            return file.read()
        offset, length = place
        file.seek(offset)
        return file.read(length)


def _refuse_large(length: int) -> None:
    if length > MAX_BYTES:
        detail = f"{length:,} bytes; a photo may have {MAX_BYTES:,}"
        raise BadImage("too_large", detail)
