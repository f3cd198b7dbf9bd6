"""A job on one of Beam's runners, watched from here: a cluster, or a cloud."""

import contextlib
import functools
import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.beam_job import Job
from pipeline.runners.beam_log import logging_to
from pipeline.runners.progress import JobProgress
from pipeline.storage import atomic
from pipeline.storage.noted_error import noting_error
from pipeline.storage.object_paths import AnyPath
from pipeline.system import console
from pipeline.system.errors import RunError

_LOOK_SECONDS = 2.0


class RemoteRunner:
    """A runner of Beam.

    Args:
        runner: `flink`, `spark`, `dataflow`, or the name of any runner of Beam.
        workers: that the runner is asked for, where it can be asked.
        folders: that the workers have to reach, by flag.
        beam_arguments: options for Beam.

    Raises:
        UsageError: Beam does not know the runner, or an option, or needs another.
        RunError: the runner is not there.
    """

    def __init__(
        self,
        runner: str,
        *,
        workers: int,
        folders: Mapping[str, Sequence[AnyPath]],
        beam_arguments: Sequence[str] = (),
    ) -> None:
        from pipeline.runners import execution  # here: local runs do without its 3 s

        self._runner = runner
        self._options = execution.engine_options(
            runner, beam_arguments, workers, folders
        )

    def run(self, job: Job, watch: JobProgress, folder: AnyPath) -> bool:
        """Runs a job and shows its progress.

        Args:
            job: on folders that the workers can reach under the same names.
            watch: begun.
            folder: that the job fills.

        Returns:
            Whether the job was run; False where Beam only built it.

        Raises:
            RunError: the runner, or a worker, failed. What was committed is kept.
        """
        from pipeline.runners import execution

        of_run = functools.partial(in_worker, atomic.run_id(), folder)
        job = Job(
            job.missing,
            functools.partial(of_run, job.write),
            functools.partial(of_run, job.complete),
        )
        log = atomic.log_path(folder)
        with (
            logging_to(log, logging.INFO),
            execution.runner_there(self._options) as runner,
        ):
            self._run(job, watch, log, runner)
        if built := execution.only_builds(self._options):
            console.conclude(f"the job was built, and not run: {built}")
        return not built

    def _run(self, job: Job, watch: JobProgress, log: Path, runner: Any) -> None:
        from pipeline.runners import execution

        engine, options = execution.engine(self._runner), self._options
        progress_thread = _ProgressThread(
            watch, engine.patience, lambda: engine.cancel(options.get_all_options())
        )
        try:
            with progress_thread:
                progress_thread.running = execution.run_there(
                    job, self._options, runner
                )
                if progress_thread.running is not None:  # as it is for a template
                    progress_thread.running.wait_until_finish()
        except KeyboardInterrupt:
            if progress_thread.complaint:  # it was the progress_thread that interrupted
                raise self._failure(progress_thread.complaint, log) from None
            console.say(f"asking {self._runner} to cancel the job …")
            progress_thread.cancel()
            raise
        except Exception as error:
            why = progress_thread.complaint or _reason(error)
            raise self._failure(why, log) from error

    def _failure(self, why: str, log: Path) -> RunError:
        return RunError(
            f"the job failed on {self._runner}: {why}. {log} says more, and so may the "
            "workers' own. What was committed is kept: mend the cause and run the same "
            "command again."
        )


def _reason(error: Exception) -> str:
    """Returns what an error of a runner says, in a line."""
    import grpc  # here: local runs do without it

    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
        return f"{error.details()} ({error.code().name})"
    return (str(error).strip() or repr(error)).splitlines()[-1]


def in_worker(
    run: str, folder: AnyPath, action: Callable[..., None], *arguments: str
) -> None:
    """Runs an action of a worker, which may be far from its launcher.

    Its scratch files are those of the run, and its error is left for the launcher.
    """
    atomic.write_for(run)
    with noting_error(folder):
        action(*arguments)


class _ProgressThread:
    """A thread that shows progress, for some runners block the main one; in a `with`.

    It cancels a job that no worker has begun with, or interrupts the main thread where
    the runner has not even taken it: Beam would wait for ever.

    Attributes:
        running: the result of the runner, once it has taken the job.
        complaint: why the job was cancelled.
    """

    def __init__(
        self, watch: JobProgress, patience: float, cancel_there: Callable[[], None]
    ) -> None:
        self._watch, self._patience = watch, patience
        self._cancel_there = cancel_there
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.running: Any = None
        self.complaint = ""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def cancel(self) -> None:
        """Asks the runner to, if it has the job."""
        if self.running is not None:
            self.running.cancel()
            self._cancel_there()

    def _look(self) -> None:
        begun, started = False, time.monotonic()
        seconds = max(_LOOK_SECONDS, self._watch.look_seconds)
        while not self._done.wait(seconds):
            # A later look may see more; a damaged sidecar is the last step's affair.
            with contextlib.suppress(OSError, RunError):
                self._watch.look()
                if time.monotonic() - started > self._patience:
                    begun = begun or self._watch.begun()
                    self._complain(begun)

    def _complain(self, begun: bool) -> None:
        if begun or self.complaint:
            return
        self.complaint = (
            f"no worker has begun in {self._patience:g} s. Are there any, with this "
            "package and its requirements installed, and can they reach the dataset "
            "under the same name?"
        )
        if self.running is None:  # the runner does not even answer
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, signal.SIGINT)
        else:
            self.cancel()
