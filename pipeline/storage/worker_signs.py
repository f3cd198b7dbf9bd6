"""Signs of life of the workers of a job, which may be far from its launcher.

_work/workers/HOST-PID     a worker has begun
"""

import functools
import os
import platform

from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import WORK

_WORKERS = "workers"


def announce_worker(folder: AnyPath) -> None:
    """Announces this worker, once in a run, so that the launcher knows of it.

    Workers of Dask live on, and do the next run, too.
    """
    _announce(folder, atomic.run_id())


@functools.lru_cache(maxsize=16)
def _announce(folder: AnyPath, _run: str) -> None:
    work = folder / WORK
    (work / _WORKERS).mkdir(exist_ok=True)
    name = f"{platform.node()}-{os.getpid()}"
    atomic.write_text(work / _WORKERS / name, "", scratch=work)


def worker_announced(folder: AnyPath) -> bool:
    """Returns whether any worker has called `announce_worker`."""
    return any((folder / WORK / _WORKERS).glob("*"))
