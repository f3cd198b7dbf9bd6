"""The processes that write the shards, watched by the launcher.

    launcher ── Beam (a process group of its own) ── workers

Beam's local runner waits for ever when one of several workers dies, and says nothing
while it runs. So it runs in a child process: the launcher shows progress from the
sidecars, ends the whole group when anything in it fails, and the group ends itself
when the launcher is gone.
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from pipeline import shard
from pipeline.console import RunError, progress
from pipeline.manifest import ImageContract

_LOOK_SECONDS = 0.5


class Crew:
    """Writes the shards of a planned dataset.

    Args:
        workers: processes.
        beam_arguments: options for Beam.

    Raises:
        UsageError: Beam does not know an option.
    """

    def __init__(self, *, workers: int, beam_arguments: Sequence[str]) -> None:
        self._workers = workers
        self._arguments = tuple(beam_arguments)
        self._in_memory = False
        if beam_arguments:  # else the launcher can do without Beam's 3 s of import
            from pipeline import job

            self._in_memory = job.in_memory(job.beam_options(beam_arguments, workers))

    def write(
        self, dataset: Path, planned: Mapping[str, int], contract: ImageContract
    ) -> None:
        """Writes the shards that are not committed yet, and shows progress.

        Args:
            dataset: the folder, with a plan for every shard.
            planned: images by shard name.
            contract: of the stored images.

        Raises:
            RunError: a worker failed. What was committed is kept.
        """
        missing = [name for name in planned if shard.read_note(dataset, name) is None]
        if not missing:
            return
        with _Watch(dataset, planned, missing) as watch:
            job = (missing, dataset, contract, self._workers, self._arguments)
            if self._in_memory:
                _run_beam(*job)
            else:
                _run_in_child(job, watch)


class _Watch:
    """Progress, from the sidecars that appear."""

    def __init__(
        self, dataset: Path, planned: Mapping[str, int], missing: Sequence[str]
    ) -> None:
        self._dataset = dataset
        self._planned = planned
        self._missing = missing
        self._bytes_read = 0
        self._rejected = 0
        self._bar: tqdm

    def __enter__(self) -> "_Watch":
        total = sum(self._planned.values())
        there = total - sum(self._planned[name] for name in self._missing)
        if there:
            print(f"going on: {there} of {total} images are in committed shards")
        self._bar = progress(total, "shards", done=there)
        return self

    def __exit__(self, *_: object) -> None:
        self.look()
        self._bar.close()

    def look(self) -> None:
        """Counts the shards that were committed since the last look."""
        notes = {name: shard.read_note(self._dataset, name) for name in self._missing}
        self._missing = [name for name, note in notes.items() if note is None]
        for name, note in notes.items():
            if note is not None:
                self._bytes_read += note.tally.bytes_read
                self._rejected += len(note.tally.rejects)
                self._bar.set_postfix_str(
                    f"{self._bytes_read / 1e6:,.0f} MB read, {self._rejected} rejected",
                    refresh=False,
                )
                self._bar.update(self._planned[name])


_Job = tuple[Sequence[str], Path, ImageContract, int, Sequence[str]]


def log_path(dataset: Path) -> Path:
    """The log beside a dataset: nothing in DATASET itself depends on the run."""
    return dataset.absolute().with_name(f"{dataset.name}.log")


def _run_in_child(job: _Job, watch: _Watch) -> None:
    log = log_path(job[1])
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(job, log, there))
    child.start()
    there.close()
    try:
        while child.exitcode is None:
            child.join(_LOOK_SECONDS)
            watch.look()
        if child.exitcode != 0:
            message = here.recv() if here.poll() else "it died without a word"
            raise RunError(
                f"a shard worker failed: {message}. {log} has the rest. What was "
                "committed is kept: mend the cause and run the same command again."
            )
    finally:
        _end_group(child)


def _end_group(child: multiprocessing.process.BaseProcess) -> None:
    """Ends the child and its workers, none of which has anything left to lose."""
    assert child.pid is not None
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        child.kill()  # it had not made its group yet, or all have ended
    child.join()


def _child(
    job: _Job, log: Path, problem: multiprocessing.connection.Connection
) -> None:
    """The child process: leads a group, writes to the log, runs Beam."""
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())

    def fail(error: BaseException | None) -> None:
        traceback.print_exception(error)
        problem.send(" ".join(str(error).strip().splitlines()[-1:]) or repr(error))
        sys.stderr.flush()
        os._exit(1)  # Beam's threads would keep an ordinary exit waiting

    # The thread that waits for a worker process raises when that process dies.
    threading.excepthook = lambda args: fail(args.exc_value)
    threading.Thread(target=_follow_the_launcher, daemon=True).start()
    try:
        _run_beam(*job)
    except Exception as error:  # noqa: BLE001 (handed on to the launcher)
        fail(error)


def _follow_the_launcher() -> None:
    """Ends the group when the launcher is gone, even if by `kill -9`."""
    launcher = multiprocessing.parent_process()
    assert launcher is not None
    multiprocessing.connection.wait([launcher.sentinel])
    os.killpg(0, signal.SIGKILL)


def _run_beam(
    names: Sequence[str],
    dataset: Path,
    contract: ImageContract,
    workers: int,
    arguments: Sequence[str],
) -> None:
    from pipeline import job

    job.write_shards(names, dataset, contract, job.beam_options(arguments, workers))
