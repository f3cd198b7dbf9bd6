"""Where the bytes of an image are: a file, or a part of a tar archive."""

import os
import stat

from pipeline.image import BadImage

_CUT = "\0"  # no path has it


def in_tar(archive: str, offset: int, size: int) -> str:
    """The uri of a member of an archive, by the place of its content."""
    return f"{archive}{_CUT}{offset}{_CUT}{size}"


def path(uri: str) -> str:
    """The file, or the archive that holds it."""
    return uri.partition(_CUT)[0]


def is_file(uri: str) -> bool:
    """Whether it is a file of its own, in no archive."""
    return _CUT not in uri


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
    if not is_file(uri):
        return int(uri.rpartition(_CUT)[2])
    status = os.stat(uri)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(0, "not a regular file")
    return status.st_size


def read(uri: str) -> bytes:
    """The content of a file, or of a member of an archive.

    Raises:
        BadImage: `unreadable`; what the system said.
    """
    archive, *place = uri.split(_CUT)
    try:
        with open(archive, "rb") as file:
            if not place:
                return file.read()
            offset, length = map(int, place)
            file.seek(offset)
            content = file.read(length)
    except OSError as error:
        raise BadImage("unreadable", str(error.strerror)) from error
    if len(content) < length:
        raise BadImage("unreadable", f"{archive} ends within it")
    return content
