"""Where the bytes of an image are: a file or an object, or a part of a tar archive."""

import contextlib
import hashlib
import itertools
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import BinaryIO

from pipeline.images.conversion import BadImage
from pipeline.storage import object_paths
from pipeline.storage.object_paths import ObjectPath
from pipeline.system import io_errors
from pipeline.system.errors import UnavailableError

# A larger file is no photo, and reading it could take all memory. The largest photo of
# MAX_PIXELS, stored without compression, has 358 MB.
MAX_BYTES = 512_000_000
REASONS = {"too_large": f"the file has more than {MAX_BYTES // 10**6} MB"}

_SMALL_BYTES = 8_000_000  # what is read ahead
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
    """Says whether it is a file of its own, in no archive."""
    return uri.count(_CUT) < 2


def in_order(uri: str) -> tuple[str, int]:
    """A key that sorts members of an archive as they lie; equal for all files."""
    if is_file(uri):
        return "", 0
    archive, offset, _ = uri.split(_CUT)
    return archive, int(offset)


def size(uri: str) -> int:
    """Returns how many bytes it has.

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


def fingerprint(uris: Sequence[str]) -> str:
    """Returns a SHA-256 that changes with the size or the time of any of some files.

    Of an object the size counts, as its listing said it, and of a member of an archive
    its place and the archive. A file that is not there counts as such.
    """
    places = sorted({path(uri) for uri in uris if not object_paths.is_remote(uri)})
    # On NFS each look may be a round trip.
    with ThreadPoolExecutor(object_paths.AHEAD) as threads:
        parts = [places[n :: object_paths.AHEAD] for n in range(object_paths.AHEAD)]
        states = dict(itertools.chain(*threads.map(_states, parts)))
    digest = hashlib.sha256()
    for uri in uris:
        place, *numbers = uri.split(_CUT)
        digest.update(f"{states.get(place, '')} {numbers}\n".encode())
    return digest.hexdigest()


def changed_since(uris: Sequence[str], nanoseconds: int) -> set[str]:
    """Returns those of some files that have a later time of modification.

    Objects and members of archives have none of their own, and count as unchanged.
    """
    files = [uri for uri in uris if is_file(uri) and not object_paths.is_remote(uri)]
    with ThreadPoolExecutor(object_paths.AHEAD) as threads:
        parts = [files[n :: object_paths.AHEAD] for n in range(object_paths.AHEAD)]
        states = itertools.chain(*threads.map(_states, parts))
        return {
            place
            for place, state in states
            if state and int(state.split()[1]) > nanoseconds
        }


def _states(places: Sequence[str]) -> list[tuple[str, str]]:
    found = []
    for place in places:
        state = ""
        with contextlib.suppress(OSError):
            status = os.stat(place)
            state = f"{status.st_size} {status.st_mtime_ns}"
        found.append((place, state))
    return found


def read_ahead(uris: Iterable[str]) -> Iterator[Callable[[], bytes]]:
    """Yields for every uri what returns its content, or raises, as `read` does.

    A store answers after some 30 ms, however small the object, a file server or a disk
    after 5 to 15: the next ones are under way meanwhile. Files of more than 8 MB are
    read when it is their turn, so that 16 of them do not lie in memory.
    """
    pending: deque[Callable[[], bytes]] = deque()
    threads = ThreadPoolExecutor(object_paths.AHEAD)
    try:
        for uri in uris:
            pending.append(partial(_read_early, threads.submit(_read_small, uri), uri))
            if len(pending) == object_paths.AHEAD:
                yield pending.popleft()
        yield from pending
    finally:
        threads.shutdown(cancel_futures=True)


def _read_small(uri: str) -> bytes | None:
    """Reads a file, unless it is large, or may be."""
    try:
        small = size(uri) <= _SMALL_BYTES
    except (OSError, UnavailableError):
        small = True  # `read` says what is wrong
    return read(uri) if small else None


def _read_early(reading: Future[bytes | None], uri: str) -> bytes:
    """Returns what a thread has read, or reads what it has left."""
    content = reading.result()
    return read(uri) if content is None else content


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
