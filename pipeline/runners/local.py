"""Runs the job on this machine: Beam's threads wait, and child processes work.

    launcher: main thread     shows progress, hears signals
              Beam's threads  hand a shard each to a child process
    children                  write shards; see images/isolation.py

Beam waits for all of its threads before it tells of an error, and an ordinary exit
waits for them for ever. So Beam has a thread of its own here, its threads tell the main
one of an error at once, and a program leaves by console.leave.
"""

import concurrent.futures
import contextlib
import logging
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from functools import partial
from typing import Any, NamedTuple

from pipeline.beam_job import Job
from pipeline.dataset.manifest import ImageContract
from pipeline.images import isolation
from pipeline.runners.beam_log import logging_to
from pipeline.runners.progress import ShardProgress
from pipeline.shards import finalize, shard_writer
from pipeline.storage import atomic, folder_lock
from pipeline.storage.atomic import log_path
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import WORK
from pipeline.system.child_process import ChildPool
from pipeline.system.errors import RunError


class _Run(NamedTuple):
    """What Beam's threads need of a run, which Beam could not pickle.

    Attributes:
        pool: of children.
        outcome: of the job; its first error comes here at once.
    """

    pool: ChildPool
    outcome: Future[None]


_runs: dict[str, _Run] = {}  # those of this process that go on, by atomic.run_id


class LocalRunner:
    """Writes the shards of a planned dataset.

    Args:
        workers: child processes.
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
        if beam_arguments:  # else Beam is imported when the children are
            from pipeline.runners import execution

            execution.beam_options(beam_arguments, workers)

    def write(
        self, dataset: AnyPath, planned: Mapping[str, int], contract: ImageContract
    ) -> bool:
        """Writes what is not committed yet, and shows progress; True at the end.

        Args:
            dataset: the folder, with a plan for every shard.
            planned: images by shard name.
            contract: of the stored images.

        Raises:
            RunError: a shard cannot be written, or the dataset cannot be completed.
                What was committed is kept.
        """
        run = atomic.run_id()
        write = partial(
            _write,
            run,
            folder=str(dataset),
            contract=contract,
            image_timeout=self._image_timeout,
        )
        complete = partial(_complete, run, dataset)
        with ShardProgress(dataset, planned) as watch:
            if watch.missing:
                job = Job(list(watch.missing), write, complete)
                with logging_to(log_path(dataset), logging.ERROR):
                    self._run(run, job, watch, dataset)
        finalize.complete(dataset)  # unless the job has done it
        return True

    def _run(self, run: str, job: Job, watch: ShardProgress, dataset: AnyPath) -> None:
        """Has Beam run a job until it is done, or fails, or is interrupted."""
        started = _Run(isolation.new_pool(self._workers), Future())
        _runs[run] = started
        try:
            started.pool.start(len(job.missing))  # they import while Beam is imported
            arguments = (job, started.outcome, self._arguments, self._workers)
            threading.Thread(target=_run_beam, args=arguments, daemon=True).start()
            # Not for Beam's end: after an error it waits for all of its threads.
            while not started.outcome.done():
                concurrent.futures.wait([started.outcome], watch.look_seconds)
                watch.look()
        finally:
            del _runs[run]  # nothing more is handed out
            started.pool.end()
            folder_lock.remove_scratch(dataset / WORK)
        try:
            started.outcome.result()
        except RunError:
            raise
        except Exception as error:
            last = (str(error).strip() or repr(error)).splitlines()[-1]
            raise RunError(
                f"a shard worker failed: {last}. {log_path(dataset)} has the rest. "
                "What was committed is kept: mend the cause and run the same command "
                "again."
            ) from error


def _run_beam(
    job: Job, outcome: Future[None], arguments: Sequence[str], workers: int
) -> None:
    with _telling(outcome):
        from pipeline.runners import execution

        execution.run_here(job, execution.beam_options(arguments, workers))
    with contextlib.suppress(InvalidStateError):
        outcome.set_result(None)


def _write(run: str, name: str, **given: Any) -> None:
    """Writes a shard, in a thread of Beam."""
    pool, outcome = _running(run)
    with _telling(outcome):
        shard_writer.write_isolated(name, pool=pool, **given)


def _complete(run: str, dataset: AnyPath) -> None:
    """Completes the dataset, in a thread of Beam."""
    with _telling(_running(run).outcome):
        finalize.complete(dataset)


def _running(run: str) -> _Run:
    if run not in _runs:  # it was interrupted, or failed
        raise RuntimeError("the run that this thread works for has ended")
    return _runs[run]


@contextlib.contextmanager
def _telling(outcome: Future[None]) -> Iterator[None]:
    """Makes an error of the body the outcome, unless another was before it."""
    try:
        yield
    except BaseException as error:
        logging.error("a step of the job failed", exc_info=error)
        with contextlib.suppress(InvalidStateError):
            outcome.set_exception(error)
        raise
