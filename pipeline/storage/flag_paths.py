"""Paths that flags name, of files or of objects."""

from collections.abc import Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from pipeline.storage import object_paths
from pipeline.storage.object_paths import AnyPath
from pipeline.system.command_line import option
from pipeline.system.errors import UsageError


def path_option(help: str, default: Any = MISSING, *, name: str = "") -> Any:
    """Declares a field that is an AnyPath; see command_line.option."""
    return option(help, default, name=name, read=lambda text, _: path(text))


def local_path_option(help: str, default: Any = MISSING, *, name: str = "") -> Any:
    """Declares a field that is a Path of this machine; see command_line.option."""
    return option(help, default, name=name, read=local_path)


def paths_option(help: str, default: Any = MISSING) -> Any:
    """Declares a field that is one AnyPath or several; see `paths`."""
    return option(help, default, read=paths, repeated=True)


def path(text: str) -> "AnyPath":
    """The path of a flag, of a file or of an object; see object_paths.locate."""

    return object_paths.locate(text)


def local_path(text: str, flag: str) -> Path:
    """The path of a flag that takes nothing but files of this machine.

    Raises:
        UsageError: it is one of an object.
    """
    found = path(text)
    if not isinstance(found, Path):
        raise UsageError(f"--{flag}={text} must be on this machine, in no object store")
    return found


def paths(texts: Sequence[str], flag: str) -> "list[AnyPath]":
    """The paths of a flag that may be repeated, or hold several with commas between.

    What exists is one path, whatever commas it has.

    Raises:
        UsageError: one of them is empty.
    """
    parts = [
        part
        for text in texts
        for part in ([text] if _exists_here(text) else text.split(","))
    ]
    if "" in parts:
        raise UsageError(f"--{flag}={','.join(texts)} has an empty path")
    return [path(part) for part in parts]


def _exists_here(text: str) -> bool:
    return "://" not in text and Path(text).expanduser().exists()
