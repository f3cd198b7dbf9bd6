"""Progress of a job, wherever it runs: from the sidecars that appear in the dataset."""

import functools
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tqdm import tqdm

from pipeline import files, shard
from pipeline.console import progress
from pipeline.manifest import MANIFEST
from pipeline.workfolder import WORK, WorkFolder

_WORKERS = "workers"


@functools.cache
def begin(dataset: Path) -> None:
    """What a worker of a job says once: there it is."""
    folder = dataset / WORK / _WORKERS
    folder.mkdir(exist_ok=True)
    files.write_text(folder / f"{platform.node()}-{os.getpid()}", "")


class Watch:
    """Shows what is committed; in a `with`.

    Args:
        dataset: the folder.
        planned: images by shard name.

    Attributes:
        missing: the shards that are not committed yet, by the last look.
    """

    def __init__(self, dataset: Path, planned: Mapping[str, int]) -> None:
        self._folder = WorkFolder(dataset, manifest=MANIFEST)
        self._planned = planned
        self._bytes_read = 0
        self._rejected = 0
        self.missing = list(planned)
        self._take()

    def __enter__(self) -> Self:
        total = sum(self._planned.values())
        there = total - sum(self._planned[name] for name in self.missing)
        if skipped := len(self._planned) - len(self.missing):
            print(
                f"going on: {skipped} of {len(self._planned)} shards are committed, "
                f"with {there} of {total} images"
            )
        self._bar: tqdm = progress(total, "shards", done=there)
        self._started = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.look()
        self._bar.close()

    def look(self) -> None:
        """Counts the shards that were committed since the last look."""
        for name, note in self._take().items():
            if note:
                self._bytes_read += note.tally.bytes_read
                self._rejected += len(note.tally.rejects)
            rate = self._bytes_read / 1e6 / (time.monotonic() - self._started)
            self._bar.set_postfix_str(
                f"{rate:,.1f} MB/s, {self._rejected} rejected", refresh=False
            )
            self._bar.update(self._planned[name])

    def begun(self) -> bool:
        """Whether any worker has said `begin`, or all is done."""
        return self._folder.manifest.is_file() or any(
            (self._folder.work / _WORKERS).glob("*")
        )

    def _take(self) -> dict[str, shard.Note | None]:
        """Takes the newly committed shards out of `missing`.

        The last step of a job removes the sidecars: then all are there, without one.
        """
        committed = self._folder.committed()
        found: dict[str, shard.Note | None] = {}
        for name in self.missing:
            if name in committed and (
                note := shard.read_note(self._folder.folder, name)
            ):
                found[name] = note
        if len(found) < len(self.missing) and self._folder.manifest.is_file():
            found = {name: found.get(name) for name in self.missing}
        self.missing = [name for name in self.missing if name not in found]
        return found
