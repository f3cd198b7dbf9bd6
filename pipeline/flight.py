"""Which image each shard is at, so that one that crashes or hangs can be named.

_work/flight/SHARD          position in the plan, and since when; written in place
_work/condemned/SHARD.json  {position: [reason, detail]}: not to be tried again
"""

import contextlib
import os
import struct
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from pipeline import files
from pipeline.workfolder import WORK

REASONS = {
    "decoder_crash": "the decoder ended the process that tried this image alone",
    "timeout": "no result after --image_timeout seconds",
}

_POSITION = struct.Struct("<qd")  # index in the plan, seconds of the monotonic clock


class Suspect(NamedTuple):
    """An image that was in flight: its shard, position, and for how long in seconds."""

    shard: str
    position: int
    seconds: float


class Flight:
    """Notes where a shard is; 2 µs an image, and it outlives a `kill -9`."""

    def __init__(self, folder: Path, shard: str) -> None:
        self._folder, self._shard = folder, shard
        self._path = folder / WORK / "flight" / shard
        self._path.parent.mkdir(exist_ok=True)

    def __enter__(self) -> "Flight":
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT)
        return self

    def at(self, index: int) -> None:
        """The image with this position in the plan comes next."""
        os.pwrite(self._file, _POSITION.pack(index, time.monotonic()), 0)

    def condemned(self) -> dict[int, list[str]]:
        """[reason, detail] of every condemned image of this shard, by position."""
        return _condemned(self._folder, self._shard)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)
        self._path.unlink(missing_ok=True)


def suspects(folder: Path, *, only: str | None = None) -> list[Suspect]:
    """The images that are in flight, or were when their processes died.

    Args:
        folder: the dataset.
        only: the shard that is asked for.
    """
    contents = []
    for path in sorted((folder / WORK / "flight").glob(only or "*")):
        with contextlib.suppress(FileNotFoundError):  # the shard has just landed
            contents.append((path.name, path.read_bytes()))
    now = time.monotonic()
    return [
        Suspect(name, position, now - since)
        for name, content in contents
        if len(content) == _POSITION.size
        for position, since in [_POSITION.unpack(content)]
    ]


def land(folder: Path, *, only: str | None = None) -> None:
    """Forgets all flights, or those of one shard; for when no worker is left."""
    for path in (folder / WORK / "flight").glob(only or "*"):
        path.unlink(missing_ok=True)


def condemn(folder: Path, suspect: Suspect, reason: str, detail: str) -> None:
    """Makes one image a rejection, without another try."""
    verdicts = _condemned(folder, suspect.shard) | {suspect.position: [reason, detail]}
    path = _condemned_path(folder, suspect.shard)
    path.parent.mkdir(exist_ok=True)
    files.write_json(path, {str(index): why for index, why in verdicts.items()})


def _condemned(folder: Path, shard: str) -> dict[int, list[str]]:
    path = _condemned_path(folder, shard)
    verdicts = files.read_json(path) if path.is_file() else {}
    return {int(index): why for index, why in verdicts.items()}


def _condemned_path(folder: Path, shard: str) -> Path:
    return folder / WORK / "condemned" / f"{shard}.json"
