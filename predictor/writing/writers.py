"""Processes that turn probabilities into files, while the next ones are computed.

Four layers lie between the forward pass and the disk:

    batch     Writers.write puts float32[rows, classes] into memory that is shared
    process   _Files, in a spawned process that ends with its parent, has the open files
    rows      OutputFile.write makes text of them, or row groups of Parquet
    file      file_format.Output counts and sums up the bytes of the scratch file

Ids and commits go by a pipe. A file is written by one process from its first row to
its commit.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from pipeline.dataset.ledger import Reject
from pipeline.storage import folder_lock
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import WORK, ResumableFolder
from pipeline.system.child_process import Child, ChildLostError
from pipeline.system.errors import RunError
from predictor.format import file_format
from predictor.format.file_format import Format
from predictor.format.predictions_manifest import MANIFEST, Entry
from predictor.writing.output_shards import OutputNote
from predictor.writing.shared_array import SharedArray

_SLOTS = 2  # one is written while the next is filled
_UNDER_WAY = 8  # requests of a process, whose answers its pipe surely holds


class Rows(NamedTuple):
    """Request: rows of a file, whose probabilities are in a slot."""

    name: str
    slot: int
    ids: Sequence[str]


class End(NamedTuple):
    """Request: a file has all its rows; commit it, and note what is to be known."""

    name: str
    rejects: list[Reject]


class Finish(NamedTuple):
    """Request: return when all that was to be committed is."""


_Request = Rows | End | Finish


class Writers:
    """Writes and commits files, several at once.

    Args:
        folder: PREDICTIONS, started.
        format: of the files.
        classes: of the model.
        rows: of a batch, at most.
        count: processes.
    """

    def __init__(
        self,
        folder: AnyPath,
        format: Format,
        classes: Sequence[str],
        *,
        rows: int,
        count: int,
    ) -> None:
        self._writers = [
            _Writer(folder, format, tuple(classes), rows) for _ in range(count)
        ]
        self._of: dict[str, _Writer] = {}
        self._work = folder / WORK

    def write(self, name: str, ids: Sequence[str], probabilities: np.ndarray) -> None:
        """Adds rows to a file; returns when they are handed over.

        Args:
            name: of the file, which is begun by its first rows.
            ids: of the rows.
            probabilities: float32[rows, classes], finite.

        Raises:
            RunError: a process was killed.
            OSError: the disk is full.
        """
        self._writer(name).write(name, ids, probabilities)

    def end(self, name: str, rejects: list[Reject]) -> None:
        """Has a file committed that has all its rows, perhaps none, and then noted.

        Args:
            name: of the file.
            rejects: images that have no row in it.
        """
        self._writer(name).send(End(name, rejects))
        del self._of[name]

    def finish(self) -> None:
        """Waits until everything is committed."""
        for writer in self._writers:
            writer.send(Finish())
        for writer in self._writers:
            writer.settle(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for writer in self._writers:
            writer.stop()
        folder_lock.remove_scratch(self._work)  # of files that were not committed

    def _writer(self, name: str) -> "_Writer":
        """Returns the writer of a file; for a new one, that with the fewest files."""
        if name not in self._of:
            busy = list(self._of.values())
            self._of[name] = min(self._writers, key=busy.count)
        return self._of[name]


class _Writer:
    """A process, as seen from here."""

    def __init__(
        self, folder: AnyPath, format: Format, classes: tuple[str, ...], rows: int
    ) -> None:
        self._slots = SharedArray((_SLOTS, rows, len(classes)))
        self._worker: Child[_Request, None] = Child(
            _Files,
            folder,
            format,
            classes,
            self._slots,
            shared=[self._slots.descriptor],
        )
        self._under_way = 0
        self._slot = 0

    def write(self, name: str, ids: Sequence[str], probabilities: np.ndarray) -> None:
        self.settle(_SLOTS - 1)  # then nobody reads the slot any more
        self._slots.array[self._slot, : len(ids)] = probabilities
        self.send(Rows(name, self._slot, ids))
        self._slot = (self._slot + 1) % _SLOTS

    def send(self, request: _Request) -> None:
        self.settle(_UNDER_WAY - 1)
        with self._explained():
            self._worker.ask(request)
        self._under_way += 1

    def settle(self, at_most: int) -> None:
        """Waits until no more than so many requests are under way."""
        with self._explained():
            while self._under_way > at_most:
                self._worker.answer()
                self._under_way -= 1

    def stop(self) -> None:
        self._worker.end()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except ChildLostError as lost:
            raise RunError(
                f"a process that writes predictions was lost ({lost}). Is the memory "
                "full? What was committed is kept: run the same command again, "
                "perhaps with fewer --writers."
            ) from lost


class _Files:
    """The files that a writer process has open.

    Bringing a file to disk takes half as long as writing it: a thread does that, while
    the next file is begun.
    """

    def __init__(
        self,
        folder: AnyPath,
        format: Format,
        classes: tuple[str, ...],
        slots: SharedArray,
    ) -> None:
        self._folder = ResumableFolder(folder, manifest=MANIFEST)
        self._format, self._classes, self._slots = format, classes, slots
        self._open: dict[str, OutputFile] = {}
        self._thread = ThreadPoolExecutor(1)
        self._committing: Future[None] = self._thread.submit(lambda: None)

    def __call__(self, request: _Request) -> None:
        if isinstance(request, Rows):
            values = self._slots.array[request.slot, : len(request.ids)]
            self._file(request.name).write(request.ids, values)
            return
        self._committing.result()  # its error is ours
        if isinstance(request, End):
            file = self._file(request.name)
            del self._open[request.name]
            self._committing = self._thread.submit(file.commit, request.rejects)

    def _file(self, name: str) -> "OutputFile":
        if name not in self._open:
            self._open[name] = OutputFile(
                self._folder, name, self._format, self._classes
            )
        return self._open[name]


class OutputFile:
    """A file that gets its name when it is committed; in a `with`, or to be committed.

    Args:
        folder: PREDICTIONS, started.
        name: of the file.
        format: of the file.
        classes: of the model.
    """

    def __init__(
        self,
        folder: ResumableFolder,
        name: str,
        format: Format,
        classes: tuple[str, ...],
    ) -> None:
        self._folder, self._name = folder, name
        self._rows, self._ids = 0, hashlib.sha256()
        with contextlib.ExitStack() as stack:
            self._output = file_format.Output(stack.enter_context(folder.commit(name)))
            table = file_format.table(format, classes, self._output)
            self._table = stack.enter_context(table)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, ids: Sequence[str], probabilities: np.ndarray) -> None:
        """Adds rows: float32[rows, classes]."""
        self._table.write(ids, probabilities)
        self._rows += len(ids)
        for image_id in ids:
            self._ids.update(image_id.encode() + b"\0")

    def commit(self, rejects: list[Reject]) -> None:
        """Commits the file, and then notes what is to be known of it.

        Args:
            rejects: images that have no row in it.
        """
        self._stack.close()
        entry = Entry(
            file=self._name,
            rows=self._rows,
            bytes=self._output.length,
            crc32c=self._output.crc32c,
            ids_sha256=self._ids.hexdigest(),
            rejected=len(rejects),
        )
        self._folder.done(self._name, OutputNote(entry, rejects).to_json())
