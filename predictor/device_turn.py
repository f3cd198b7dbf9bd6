"""One shard at a time on the devices of a machine, whoever predicts it."""

import contextlib
import fcntl
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from pipeline.system import private_folder

_THREADS = threading.Lock()  # a lock on a file holds for a process, not for a thread


@contextlib.contextmanager
def device_turn() -> Iterator[None]:
    """Waits until no other thread, and no other process of this user, predicts here.

    Several worker processes of Beam may share a machine. A batch on all of its devices
    leaves no memory for another, which would fail. A process that is killed gives its
    turn back.

    Raises:
        RunError: a folder of the same name is somebody else's.
    """
    folder = Path(tempfile.gettempdir(), f"vgg16-at-scale-devices-{os.getuid()}")
    private_folder.make(
        folder,
        use="workers take turns by a lock on",
        advice="since others could hold it for ever: remove it, or name another folder "
        "for temporary files (TMPDIR)",
    )
    with _THREADS:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
