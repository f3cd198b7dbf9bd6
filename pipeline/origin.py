"""Where the bytes of an image are: a file, or a part of a tar archive."""

from pathlib import Path

from pipeline.image import BadImage

_CUT = "\0"  # no path has it


def in_tar(archive: Path, offset: int, size: int) -> str:
    """The uri of a member of an archive, by the place of its content."""
    return f"{archive}{_CUT}{offset}{_CUT}{size}"


def read(uri: str) -> bytes:
    """The content of a file, or of a member of an archive.

    Raises:
        BadImage: `unreadable`; what the system said.
    """
    path, *place = uri.split(_CUT)
    try:
        with open(path, "rb") as file:
            if not place:
                return file.read()
            offset, size = map(int, place)
            file.seek(offset)
            content = file.read(size)
    except OSError as error:
        raise BadImage("unreadable", str(error.strerror)) from error
    if len(content) < size:
        raise BadImage("unreadable", f"{path} ends within it")
    return content
