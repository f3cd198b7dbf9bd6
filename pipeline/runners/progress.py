"""Progress of a job, wherever it runs: from the sidecars that appear in its folder."""

import contextlib
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from pipeline.dataset.manifest import MANIFEST
from pipeline.dataset.sidecar import ShardResult
from pipeline.storage import worker_signs
from pipeline.storage.object_paths import AnyPath, ObjectPath
from pipeline.storage.resumable_folder import ResumableFolder
from pipeline.system import console
from pipeline.system.console import progress
from pipeline.system.errors import UnavailableError


class JobProgress:
    """Shows what is committed; in a `with`.

    Args:
        output: that the job completes; it removes the sidecars then.
        parts: where they are committed, often the same.
        planned: images by part.
        what: is done, in a word.

    Attributes:
        missing: the parts that are not committed yet, by the last look.
        look_seconds: how long to wait before another look is worth it.
    """

    def __init__(
        self,
        output: ResumableFolder,
        parts: ResumableFolder,
        planned: Mapping[str, int],
        *,
        what: str,
    ) -> None:
        self._output, self._parts = output, parts
        self._planned, self._what = planned, what
        self.look_seconds = 5.0 if isinstance(parts.folder, ObjectPath) else 0.5
        self.missing = list(planned)
        self._take()

    def __enter__(self) -> Self:
        total = sum(self._planned.values())
        there = total - sum(self._planned[name] for name in self.missing)
        if skipped := len(self._planned) - len(self.missing):
            console.say(
                f"going on: {skipped} of {len(self._planned)} shards are committed, "
                f"with {there} of {total} images"
            )
        self._bar: tqdm = progress(total, self._what, done=there)
        self._started = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Ctrl-C waits for no store; an error that led here has said more.
        if kind is not KeyboardInterrupt:
            with contextlib.suppress(OSError, UnavailableError):
                self.look()
        self._bar.close()

    def look(self) -> None:
        """Counts the parts that were committed since the last look."""
        for name, note in self._take().items():
            if note:
                seconds = time.monotonic() - self._started
                self._bar.set_postfix_str(self.describe(note, seconds), refresh=False)
            self._bar.update(self._planned[name])

    def describe(self, note: Mapping[str, Any], seconds: float) -> str:
        """Returns what is shown behind the rate.

        Args:
            note: of one more part.
            seconds: since the beginning.
        """
        return ""

    def begun(self) -> bool:
        """Returns whether any worker has announced itself, or all is done."""
        return self._output.complete() or worker_signs.worker_announced(
            self._output.folder
        )

    def _take(self) -> dict[str, dict[str, Any] | None]:
        """Takes the newly committed parts out of `missing`.

        Once the job is complete all are there, without a note.
        """
        notes = self._parts.notes(self.missing)
        found: dict[str, dict[str, Any] | None]
        found = {name: note for name, note in notes.items() if note is not None}
        if len(found) < len(self.missing) and self._output.complete():
            found = {name: found.get(name) for name in self.missing}
        self.missing = [name for name in self.missing if name not in found]
        return found


class ShardProgress(JobProgress):
    """Of the shards of a dataset.

    Args:
        dataset: the folder.
        planned: images by shard name.
    """

    def __init__(self, dataset: AnyPath, planned: Mapping[str, int]) -> None:
        folder = ResumableFolder(dataset, manifest=MANIFEST)
        super().__init__(folder, folder, planned, what="shards")
        self._bytes_read = self._rejected = 0

    def describe(self, note: Mapping[str, Any], seconds: float) -> str:
        tally = ShardResult.from_json(note).tally
        self._bytes_read += tally.bytes_read
        self._rejected += len(tally.rejects)
        rate = self._bytes_read / 1e6 / seconds
        return f"{rate:,.1f} MB/s, {self._rejected} rejected"
