"""Which image each shard is at, so that one that crashes or hangs can be named.

_work/in_progress/HOST-SHARD  position in the plan, and since when; written in place
_work/quarantined/SHARD.json  {position: [reason, detail]}: not to be tried again

Who watches and who writes are on one machine, and so is the clock: the name of the
machine keeps apart what a worker that was given up still writes on another one. An
object is not written in place: for a DATASET in a store these files are among the
temporary files.
"""

import contextlib
import os
import platform
import struct
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import WORK

REASONS = {
    "decoder_crash": "the decoder ended the process that tried this image alone",
    "timeout": "no result after --image_timeout seconds",
}

_POSITION = struct.Struct("<qd")  # index in the plan, seconds of the monotonic clock


class SuspectImage(NamedTuple):
    """An image that a worker was at: shard, position, and for how long in seconds."""

    shard: str
    position: int
    seconds: float


class ImageInProgress:
    """Notes where a shard is; 2 µs an image, and it outlives a `kill -9`."""

    def __init__(self, folder: AnyPath, shard: str) -> None:
        self._folder, self._shard = folder, shard
        place, before = _place(folder)
        self._path = place / f"{before}{shard}"
        place.mkdir(exist_ok=True)

    def __enter__(self) -> "ImageInProgress":
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT)
        return self

    def at(self, index: int) -> None:
        """The image with this position in the plan comes next."""
        os.pwrite(self._file, _POSITION.pack(index, time.monotonic()), 0)

    def quarantined(self) -> dict[int, list[str]]:
        """[reason, detail] of every quarantined image of this shard, by position."""
        return _quarantined(self._folder, self._shard)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)
        self._path.unlink(missing_ok=True)


def suspects(folder: AnyPath, *, only: str | None = None) -> list[SuspectImage]:
    """Returns the images that are in progress, or were when their processes died.

    Args:
        folder: the dataset.
        only: the shard that is asked for.
    """
    contents = []
    place, before = _place(folder)
    for path in sorted(place.glob(f"{before}{only or '*'}")):
        with contextlib.suppress(FileNotFoundError):  # the shard has just landed
            contents.append((path.name.removeprefix(before), path.read_bytes()))
    now = time.monotonic()
    return [
        SuspectImage(name, position, now - since)
        for name, content in contents
        if len(content) == _POSITION.size
        for position, since in [_POSITION.unpack(content)]
    ]


def clear(folder: AnyPath, *, only: str | None = None) -> None:
    """Forgets all images in progress, or those of one shard, once no worker is left."""
    place, before = _place(folder)
    for path in place.glob(f"{before}{only or '*'}"):
        path.unlink(missing_ok=True)


def quarantine(
    folder: AnyPath, suspect: SuspectImage, reason: str, detail: str
) -> None:
    """Makes one image a rejection, without another try."""
    verdicts = _quarantined(folder, suspect.shard) | {
        suspect.position: [reason, detail]
    }
    path = _quarantined_path(folder, suspect.shard)
    path.parent.mkdir(exist_ok=True)
    value = {str(index): why for index, why in verdicts.items()}
    atomic.write_json(path, value, scratch=folder / WORK)


def _place(folder: AnyPath) -> tuple[Path, str]:
    """Returns where these files of a dataset are, and what their names begin with."""
    if isinstance(folder, Path):
        return folder / WORK / "in_progress", f"{platform.node()}-"
    return Path(tempfile.gettempdir()), atomic.temporary_name(folder, "in-progress")


def _quarantined(folder: AnyPath, shard: str) -> dict[int, list[str]]:
    path = _quarantined_path(folder, shard)
    verdicts = atomic.read_json(path) if path.is_file() else {}
    return {int(index): why for index, why in verdicts.items()}


def _quarantined_path(folder: AnyPath, shard: str) -> AnyPath:
    return folder / WORK / "quarantined" / f"{shard}.json"
