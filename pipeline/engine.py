"""A job on one of Beam's runners, watched from here: a cluster, or a cloud."""

import functools
import math
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline import completion, guard
from pipeline.console import RunError
from pipeline.manifest import ImageContract
from pipeline.watch import Watch

_LOOK_SECONDS = 2.0
_PATIENCE_SECONDS = 60.0  # until a worker begins
_PATIENCE = {"dataflow": 1200.0}  # machines start, and install


class Engine:
    """Has the shards of a planned dataset written by a runner; see crew.Crew.

    Args:
        runner: `flink`, `dataflow`, or the name of any runner of Beam.
        workers: that the runner is asked for, where it can be asked.
        image_timeout: seconds that one image may take; 0 for any time.
        beam_arguments: options for Beam.

    Raises:
        UsageError: Beam does not know the runner, or an option.
        RunError: the runner cannot be reached.
    """

    def __init__(
        self,
        runner: str,
        *,
        workers: int,
        image_timeout: float = 60,
        beam_arguments: Sequence[str] = (),
    ) -> None:
        from pipeline import job  # here: a run of the crew does without its 3 s

        self._runner = runner
        self._image_timeout = image_timeout or math.inf
        self._options = job.engine_options(runner, beam_arguments, workers)

    def write(
        self, dataset: Path, planned: Mapping[str, int], contract: ImageContract
    ) -> None:
        """Has what is not committed yet written, and shows progress.

        Args:
            dataset: a folder that the workers can reach under the same name.
            planned: images by shard name.
            contract: of the stored images.

        Raises:
            RunError: the runner failed, or the dataset cannot be completed. What was
                committed is kept.
        """
        from pipeline.job import Work

        with Watch(dataset, planned) as watch:
            if not watch.missing:
                completion.complete(dataset)
                return
            write = functools.partial(
                guard.write,
                folder=str(dataset),
                contract=contract,
                image_timeout=self._image_timeout,
            )
            complete = functools.partial(completion.complete, dataset)
            self._run(Work(watch.missing, write, complete), watch)

    def _run(self, work: Any, watch: Watch) -> None:
        from pipeline import job

        lookout = _Lookout(watch, _PATIENCE.get(self._runner, _PATIENCE_SECONDS))
        try:
            with lookout:
                lookout.running = job.run_there(work, self._options)
                lookout.running.wait_until_finish()
        except KeyboardInterrupt:
            print(f"asking {self._runner} to cancel the job …", flush=True)
            lookout.cancel()
            raise
        except Exception as error:
            last = (str(error).strip() or repr(error)).splitlines()[-1]
            raise RunError(
                f"the job failed on {self._runner}: {lookout.complaint or last}. Its "
                "own logs say more. What was committed is kept: mend the cause and run "
                "the same command again."
            ) from error


class _Lookout:
    """A thread that shows progress, for some runners block the main one; in a `with`.

    It cancels a job that no worker has begun with: Beam would wait for ever.

    Attributes:
        running: the result of the runner, once it has taken the job.
        complaint: why the job was cancelled.
    """

    def __init__(self, watch: Watch, patience: float) -> None:
        self._watch, self._patience = watch, patience
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

    def _look(self) -> None:
        started = time.monotonic()
        while not self._done.wait(_LOOK_SECONDS):
            self._watch.look()
            late = time.monotonic() - started > self._patience
            if late and not self.complaint and not self._watch.begun():
                self.complaint = (
                    f"no worker has begun in {self._patience:g} s. Are there any, with "
                    "this package and its requirements installed, and can they reach "
                    "the dataset under the same name?"
                )
                self.cancel()
