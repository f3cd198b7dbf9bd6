"""What `plan` and the benchmarks measure with: processes in step, whole commands."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Barrier
from typing import Any

from pipeline.system.child_process import end_with_the_parent
from pipeline.system.errors import RunError

# One thread per process, and no GPU.
_SINGLE = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
}
_START_SECONDS = 300  # for all processes to import and prepare, on a busy machine
_EMPTY_JOB = """
import sys
from pipeline.runners import execution
execution.run_empty(execution.beam_options(sys.argv[2:], int(sys.argv[1])))
"""

_barrier: Barrier  # of a process that runs in step


def in_step(
    prepare: Callable[..., Callable[[], Any]], arguments: Sequence[tuple[Any, ...]]
) -> tuple[list[Any], float]:
    """Runs `prepare(*args)()` in one process per `args`; they start together.

    Imports and whatever else `prepare` does are over when the clock starts.

    Returns:
        The results in order, and the seconds from the first start to the last end.

    Raises:
        RunError: a process was killed.
    """
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(len(arguments), timeout=_START_SECONDS)
    with ProcessPoolExecutor(
        len(arguments), context, initializer=_initialize, initargs=(barrier, _SINGLE)
    ) as pool:
        # The barrier holds each process, so that none takes two of them.
        futures = [pool.submit(_step, prepare, args) for args in arguments]
        try:
            steps = [future.result() for future in futures]
        except BrokenProcessPool as error:
            raise RunError(
                "a process was killed. Is the memory full, or does an image crash its "
                "decoder? Try fewer --workers; `make shards` finds and rejects such "
                "an image."
            ) from error
    starts, ends, results = zip(*steps, strict=True)
    return list(results), max(ends) - min(starts)


def command_seconds(*words: object) -> float:
    """Measures how long `python WORDS` takes from its start to its end.

    Raises:
        RunError: it failed.
    """
    started = time.monotonic()
    result = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - started
    if result.returncode:
        what = " ".join(map(str, words)).strip().splitlines()[0]
        said = result.stderr.strip()[-500:] or "nothing"
        raise RunError(
            f"`python {what}` failed with exit code {result.returncode}; it said: "
            f"{said}"
        )
    return seconds


def empty_job_seconds(workers: int, beam_arguments: Sequence[str]) -> float:
    """Measures a Beam job that does nothing, in the mode of the real one."""
    return command_seconds("-c", _EMPTY_JOB, workers, *beam_arguments)


def _initialize(barrier: Barrier, environment: Mapping[str, str]) -> None:
    global _barrier
    _barrier = barrier
    os.environ.update(environment)
    # TensorFlow's notes, which nothing else stops; errors are handed over.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    end_with_the_parent()


def _step(
    prepare: Callable[..., Callable[[], Any]], args: tuple[Any, ...]
) -> tuple[float, float, Any]:
    """Start and end on the monotonic clock, which all processes share, and result."""
    work = prepare(*args)
    _barrier.wait()
    started = time.monotonic()
    result = work()
    return started, time.monotonic(), result
