"""Files beside a folder: its log, and what it was made from.

They help people and decide nothing, so one that cannot be written costs a line and
never the run.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.storage import atomic, object_paths
from pipeline.storage.object_paths import AnyPath
from pipeline.system import console


def append_to_log(folder: AnyPath, text: str) -> None:
    """Appends lines to the log beside a folder."""
    path = atomic.log_path(folder)
    with _optional(path), path.open("a", errors="backslashreplace") as log:
        print(text, file=log)


def log_handler(folder_log: Path) -> logging.Handler:
    """Returns a handler that appends to a log; one that drops all where it cannot."""
    with _optional(folder_log):
        return _Log(folder_log)
    return logging.NullHandler()


def write_source(folder: AnyPath, source: Mapping[str, Any]) -> None:
    """Writes FOLDER.source.json, which says from what, and how, a folder is made."""
    path = atomic.beside(folder, ".source.json")
    with _optional(path):
        atomic.write_json(path, source)


def read_source(folder: AnyPath) -> dict[str, Any]:
    """Returns what `write_source` has written; nothing where that is not there."""
    path = atomic.beside(folder, ".source.json")
    return atomic.read_json(path) if path.is_file() else {}


def located(text: str, source: Mapping[str, Any]) -> AnyPath:
    """Returns a path that FOLDER.source.json names.

    Args:
        text: as it is there, relative to where the command was run.
        source: all of it.
    """
    if "://" in text:
        return object_paths.at(text)
    return Path(source.get("folder", os.curdir), text)


@contextlib.contextmanager
def _optional(path: Path) -> Iterator[None]:
    """Turns an error of the system into a line."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        console.note(f"{path} is left out: {why}. It is not needed.")


class _Log(logging.FileHandler):
    """A log that a full disk cuts short."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Does nothing."""
