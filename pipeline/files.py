"""Files that are either whole or not there, and their checksums."""

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

_SCRATCH = ".scratch-"


@contextlib.contextmanager
def commit(path: Path, *, scratch: Path | None = None) -> Iterator[BinaryIO]:
    """Opens a binary file that appears as `path` only once it is whole and on disk.

    Arguments and errors are those of `commit_path`.
    """
    with (
        commit_path(path, scratch=scratch) as unfinished,
        unfinished.open("xb") as file,
    ):
        yield file


@contextlib.contextmanager
def commit_path(path: Path, *, scratch: Path | None = None) -> Iterator[Path]:
    """A path to write to; what is there at the end appears as `path`, whole, on disk.

    Args:
        path: the final name; its extension is that of the unfinished file, too.
        scratch: the folder of the unfinished file, on the same file system; without
            it the folder of `path`.

    When the body raises, nothing is left behind; after a `kill -9` a hidden file is,
    for `remove_scratch`.
    """
    name = f"{_SCRATCH}{uuid.uuid4().hex[:12]}-{path.name}"
    unfinished = (scratch or path.parent) / name
    try:
        yield unfinished
        _fsync(unfinished)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    _fsync(path.parent)


def write_text(path: Path, text: str, *, scratch: Path | None = None) -> None:
    """Commits `text` as UTF-8."""
    with commit(path, scratch=scratch) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any, *, scratch: Path | None = None) -> None:
    """Commits `value` as JSON: sorted keys, so that equal values are equal bytes."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
    write_text(path, text + "\n", scratch=scratch)


def remove_scratch(folder: Path) -> None:
    """Removes what a killed process left unfinished in `folder`."""
    for path in folder.glob(f"{_SCRATCH}*"):
        path.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """The hexadecimal SHA-256 of `text` as UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def _fsync(path: Path) -> None:
    """Brings a file, or the names in a folder, safely to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
