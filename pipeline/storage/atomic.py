"""Files that are either whole or not there, their text, and their checksums."""

import contextlib
import csv
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.storage.object_paths import AnyPath, ObjectPath
from pipeline.system import io_errors
from pipeline.system.errors import RunError

_SCRATCH = ".scratch-"
_RUN = "VGG16_RUN"  # in the environment, for the processes that write for a run
_CHUNK = 1 << 20  # bytes


@contextlib.contextmanager
def commit(path: AnyPath, *, scratch: AnyPath | None = None) -> Iterator[BinaryIO]:
    """Opens a binary file that appears as `path` only once it is whole and on disk.

    Arguments and errors are those of `commit_path`.
    """
    with (
        commit_path(path, scratch=scratch) as unfinished,
        unfinished.open("xb") as file,
    ):
        yield file


@contextlib.contextmanager
def commit_path(path: AnyPath, *, scratch: AnyPath | None = None) -> Iterator[Path]:
    """A path to write to; what is there at the end appears as `path`, whole, on disk.

    Args:
        path: the final name; its extension is that of the unfinished file, too.
        scratch: the folder of the unfinished file, on the same file system; without
            it the folder of `path`. An object is uploaded from a folder for temporary
            files.

    When the body raises, nothing is left behind; after a `kill -9` a hidden file is,
    for `folder_lock.remove_scratch`. Its name carries the id of the run.
    """
    if isinstance(path, ObjectPath):
        prefix = f"{_upload_name(scratch or path.parent)}{run_id()}-"
        with tempfile.TemporaryDirectory(prefix=prefix) as name:
            yield (finished := Path(name, path.name))
            path.upload(finished)
        return
    folder = scratch if isinstance(scratch, Path) else path.parent
    unfinished = folder / f"{_SCRATCH}{run_id()}-{uuid.uuid4().hex[:8]}-{path.name}"
    try:
        yield unfinished
        _fsync(unfinished)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    _fsync(path.parent)


def write_text(path: AnyPath, text: str, *, scratch: AnyPath | None = None) -> None:
    """Commits `text` as UTF-8."""
    with commit(path, scratch=scratch) as file:
        file.write(text.encode())


def write_json(path: AnyPath, value: Any, *, scratch: AnyPath | None = None) -> None:
    """Commits `value` as JSON: sorted keys, so that equal values are equal bytes."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
    if any(
        "\ud800" <= letter <= "\udfff" for letter in text
    ):  # names need not be UTF-8
        text = json.dumps(value, indent=1, sort_keys=True)
    write_text(path, text + "\n", scratch=scratch)


def read_json(path: AnyPath) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        RunError: the file holds something else.
    """
    return parse_json(path, io_errors.insist(path, path.read_bytes))


def parse_json(path: AnyPath, content: bytes) -> dict[str, Any]:
    """Parses the content of a file that holds a JSON object.

    Raises:
        RunError: it holds something else.
    """
    try:
        value = json.loads(content)
    except ValueError as error:  # no JSON, or not UTF-8
        raise RunError(
            f"{path} is damaged: {error}. Restore it, or make its folder anew."
        ) from error
    if not isinstance(value, Mapping):
        raise RunError(
            f"{path} holds a JSON {type(value).__name__}, not an object; no program "
            "of ours wrote it. Restore it, or name another folder."
        )
    return dict(value)


def csv_line(values: Iterable[str]) -> str:
    """Makes one line of a CSV file, quoted as RFC 4180 asks, with `\\n` at its end.

    Until Python 3.13 csv.writer quotes a line break only where it is part of the
    line terminator; hence `\\r\\n`, which then goes.
    """
    line: str = csv.writer(_Echo(), lineterminator="\r\n").writerow(values)
    return line.removesuffix("\r\n") + "\n"


class _Echo:
    """Hands a line of csv.writer back: `writerow` returns what `write` returns."""

    def write(self, line: str) -> str:
        return line


def beside(folder: AnyPath, extension: str) -> Path:
    """A file beside a folder, named after it; for one of a store, in the current one.

    It may be written line by line, which no object can.
    """
    if isinstance(folder, ObjectPath):
        return Path(f"{folder.name}{extension}").absolute()
    path = Path(os.path.abspath(folder))  # of `.`, too
    return path.with_name(f"{path.name}{extension}")


def log_path(folder: AnyPath) -> Path:
    """The log beside a folder, for nothing in it depends on the run."""
    return beside(folder, ".log")


def temporary_name(folder: AnyPath, what: str) -> str:
    """Returns how temporary files for a folder of a store begin, per user."""
    owner = hashlib.sha256(f"{os.getuid()} {folder}".encode()).hexdigest()[:16]
    return f"vgg16-{what}-{owner}-"


def run_id() -> str:
    """Returns the id of the run that this process writes for, as scratch files have it.

    A process that a run starts inherits it; see `write_for` for workers elsewhere.
    """
    return os.environ.setdefault(_RUN, uuid.uuid4().hex[:12])


@contextlib.contextmanager
def new_run() -> Iterator[None]:
    """Gives this process, and those that it starts meanwhile, the id of a new run."""
    before = os.environ.get(_RUN)
    os.environ[_RUN] = uuid.uuid4().hex[:12]
    try:
        yield
    finally:
        if before is None:
            del os.environ[_RUN]
        else:
            os.environ[_RUN] = before


def write_for(run: str) -> None:
    """Makes this process, a worker that others started, one that writes for a run."""
    os.environ[_RUN] = run


def scratch(folder: AnyPath) -> list[tuple[str, Path]]:
    """Returns the scratch files in a folder, each with the id of its run.

    No object is one, but what is not uploaded yet is among the temporary files here.
    """
    place, before = folder, _SCRATCH
    if isinstance(place, ObjectPath):
        place, before = Path(tempfile.gettempdir()), _upload_name(place)
    return [
        (path.name.removeprefix(before).partition("-")[0], path)
        for path in place.glob(f"{before}*")
    ]


def _upload_name(folder: AnyPath) -> str:
    return temporary_name(folder, "upload")


def remove(path: Path) -> None:
    """Removes a file, or a folder with all that is in it, if it is still there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_tree(folder: AnyPath) -> None:
    """Removes a folder and all that is in it, or of a store all keys below it."""
    if isinstance(folder, ObjectPath):
        folder.delete(folder.walk_files())
    else:
        shutil.rmtree(folder)


def sizes(folder: AnyPath) -> dict[str, int]:
    """The bytes of every file in a folder, by name; one listing of a store."""
    return {
        path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()
    }


def sha256(path: AnyPath) -> str:
    """Returns the hexadecimal SHA-256 of a file."""

    def read() -> str:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    return io_errors.insist(path, read)


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
