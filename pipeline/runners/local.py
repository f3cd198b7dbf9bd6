"""The processes that write the shards, watched by the launcher.

    launcher ── Beam (a process group of its own) ── workers

Beam's local runner waits for ever when one of several workers dies, and says nothing
while it runs. So it runs in a child process: the launcher shows progress from the
sidecars, ends the whole group when anything in it fails, and the group ends itself
when the launcher is gone.

A worker that dies or hangs costs at most the image that did it: every image that was
in progress is tried alone, in a process of its own. What fails there is quarantined:
it becomes a reject, and the job goes on without it.
"""

import contextlib
import functools
import math
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

from pipeline.beam_job import Job
from pipeline.dataset.manifest import ImageContract
from pipeline.runners.progress import JobProgress, ShardProgress
from pipeline.shards import finalize, image_in_progress, retry_alone, shard_writer
from pipeline.storage.atomic import log_path
from pipeline.storage.object_paths import AnyPath
from pipeline.system.errors import RunError

_TRIES = 3
_LOST = "a worker process died"
# What Beam makes of an error of ours, whose message says it all.
_OWN = re.compile(r"(?:RuntimeError: )?pipeline\.[\w.]+Error: (.*)")
_WHERE = re.compile(r" \[while running '.*'\]$")
_SPAWN = multiprocessing.get_context("spawn")


class LocalRunner:
    """Writes the shards of a planned dataset.

    Args:
        workers: processes.
        image_timeout: seconds that one image may take; 0 for any time.
        beam_arguments: options for Beam.

    Raises:
        UsageError: Beam does not know an option.
    """

    def __init__(
        self,
        *,
        workers: int,
        image_timeout: float = 60,
        beam_arguments: Sequence[str] = (),
    ) -> None:
        self._workers = workers
        self._image_timeout = image_timeout or math.inf
        self._arguments = tuple(beam_arguments)
        self._in_memory = False
        if beam_arguments:  # else the launcher can do without Beam's 3 s of import
            from pipeline.runners import execution

            self._in_memory = execution.in_memory(
                execution.beam_options(beam_arguments, workers)
            )

    def write(
        self, dataset: AnyPath, planned: Mapping[str, int], contract: ImageContract
    ) -> bool:
        """Writes what is not committed yet, and shows progress; True at the end.

        Args:
            dataset: the folder, with a plan for every shard.
            planned: images by shard name.
            contract: of the stored images.

        Raises:
            RunError: a worker failed, or the dataset cannot be completed. What was
                committed is kept.
        """
        with ShardProgress(dataset, planned) as watch:
            if watch.missing and self._in_memory:
                try:
                    _run_beam(self._job(dataset, contract))
                except RuntimeError as error:  # of which Beam makes every other
                    raise _failure(dataset, _last_line(error)) from error
            else:
                self._write_in_children(dataset, contract, watch)
        finalize.complete(dataset)  # unless a job has done it, as it ended
        return True

    def _write_in_children(
        self, dataset: AnyPath, contract: ImageContract, watch: JobProgress
    ) -> None:
        """Starts children until one gets to the end."""
        fruitless = 0
        while watch.missing:
            before = len(watch.missing)
            try:
                job = self._job(dataset, contract)
                _run_in_child(job, watch, self._image_timeout)
            except _WorkerLostError as lost:
                print(f"{lost}; going on with what is left", file=sys.stderr)
                quarantined = retry_alone.retry_suspects(
                    dataset, contract, self._image_timeout
                )
                gained = quarantined or len(watch.missing) < before
                fruitless = 0 if gained else fruitless + 1
                if fruitless == _TRIES:
                    raise RunError(
                        f"{lost}, {_TRIES} times in a row, and no image is to blame. "
                        f"{log_path(dataset)} may say more; is there enough memory for "
                        f"{self._workers} workers? What was committed is kept: run "
                        "the same command again, perhaps with fewer --workers."
                    ) from lost

    def _job(self, dataset: AnyPath, contract: ImageContract) -> "_Job":
        return dataset, contract, self._workers, self._arguments


class _WorkerLostError(Exception):
    """A worker process died or hung; image_in_progress knows which image it was at."""


_Job = tuple[AnyPath, ImageContract, int, Sequence[str]]


def _run_in_child(job: _Job, watch: JobProgress, image_timeout: float) -> None:
    """Runs Beam in a child until it is done; nothing of it is left afterwards."""
    dataset = job[0]
    image_in_progress.clear(dataset)  # what a killed run left
    here, problem = _SPAWN.Pipe(duplex=False)
    said, output = _SPAWN.Pipe(duplex=False)
    child = _SPAWN.Process(target=_child, args=(job, output, problem))
    child.start()
    problem.close()
    output.close()
    threading.Thread(target=_log, args=(said, log_path(dataset)), daemon=True).start()
    try:
        while child.exitcode is None:
            child.join(watch.look_seconds)
            watch.look()
            if any(
                s.seconds > image_timeout for s in image_in_progress.suspects(dataset)
            ):
                raise _WorkerLostError(f"no result in {image_timeout:g} s for an image")
    finally:
        _end_group(child)
        watch.look()
    if child.exitcode == 0:
        return
    try:
        message = here.recv()
    except EOFError:  # Beam itself died without a word
        message = _LOST
    if message == _LOST:
        raise _WorkerLostError(message)
    raise _failure(dataset, message)


def _failure(dataset: AnyPath, message: str) -> RunError:
    if own := _OWN.fullmatch(message):
        return RunError(own[1])
    return RunError(
        f"a shard worker failed: {message}. {log_path(dataset)} has the rest. What was "
        "committed is kept: mend the cause and run the same command again."
    )


def _last_line(error: Exception) -> str:
    """Returns what a worker said at last, without what Beam adds to it."""
    return _WHERE.sub("", (str(error).strip() or repr(error)).splitlines()[-1])


def _end_group(child: multiprocessing.process.BaseProcess) -> None:
    """Ends the child and its workers, none of which has anything left to lose."""
    assert child.pid is not None
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        child.kill()  # it had not made its group yet, or all have ended
    child.join()


def _log(said: Connection, log: Path) -> None:
    """Copies what the group says to the log.

    A worker whose own stderr is on a full disk would wait for ever; here a full disk
    costs only the log.
    """
    while chunk := os.read(said.fileno(), 1 << 16):
        with contextlib.suppress(OSError), log.open("ab") as file:
            file.write(chunk)


def _child(job: _Job, output: Connection, problem: Connection) -> None:
    """The child process: leads a group, hands on what it says, runs Beam."""
    os.setsid()
    os.dup2(output.fileno(), sys.stdout.fileno())
    os.dup2(output.fileno(), sys.stderr.fileno())

    def fail(error: BaseException | None, message: str) -> None:
        problem.send(message)
        traceback.print_exception(error)
        sys.stderr.flush()
        os._exit(1)  # Beam's threads would keep an ordinary exit waiting

    # The threads that wait for a worker process, and talk to it, raise when it dies.
    threading.excepthook = lambda args: fail(args.exc_value, _LOST)
    threading.Thread(target=_follow_the_launcher, daemon=True).start()
    try:
        _run_beam(job)
    except Exception as error:  # noqa: BLE001 (handed on to the launcher)
        time.sleep(1)  # where a worker died, the threads that saw it come first
        fail(error, _last_line(error))


def _follow_the_launcher() -> None:
    """Ends the group when the launcher is gone, even if by `kill -9`."""
    launcher = multiprocessing.parent_process()
    assert launcher is not None
    wait([launcher.sentinel])
    os.killpg(0, signal.SIGKILL)


def _run_beam(job: _Job) -> None:
    from pipeline.runners.execution import beam_options, run_here

    dataset, contract, workers, arguments = job
    missing = functools.partial(finalize.missing, dataset)
    write = functools.partial(
        shard_writer.write, folder=str(dataset), contract=contract
    )
    complete = functools.partial(finalize.complete, dataset)
    run_here(Job(missing, write, complete), beam_options(arguments, workers))
