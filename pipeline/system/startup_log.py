"""Keeps what libraries write to file descriptor 2 as they start out of the way.

TensorFlow's C++ tells there, past sys.stderr, which instructions of the CPU it uses
and which libraries of GPUs it misses, as it is imported and as it takes its devices.
These lines go to a log, and the last of them are told when the program fails.
"""

import contextlib
import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.system import console

_TAIL = 1 << 14  # bytes of a start that are looked at for its last lines

# What TensorFlow tells of a start with which all is well.
_NOTE = re.compile(r"I\d{4} |WARNING: All log messages before absl::InitializeLog")

_keeping = False
_log: Path | None = None


def keep_in(log: Path | None) -> None:
    """Has `kept` keep lines from now on.

    Args:
        log: is appended to; None for a file that nobody sees.
    """
    global _keeping, _log
    _keeping, _log = True, log


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Keeps what is written to file descriptor 2 out of sight while the body runs.

    That is for the start of a library and no longer: Python's standard error goes to
    the log, too, and that of processes which are started in the body. Everything stays
    visible with --debug, and in a process that has not called `keep_in`.
    """
    if not _keeping or sys.stderr is None or console.hides_nothing():
        yield
        return
    sys.stderr.flush()
    shown, (log, named) = os.dup(2), _open()
    begin = os.fstat(log).st_size
    try:
        os.dup2(log, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(shown, 2)
        os.close(shown)
        tail = os.pread(log, _TAIL, max(begin, os.fstat(log).st_size - _TAIL))
        os.close(log)
        lines = tail.decode(errors="replace").splitlines()
        console.keep_startup([x for x in lines if not _NOTE.match(x)], log=named)


def _open() -> tuple[int, Path | None]:
    """Opens the log, with a line that tells whose start follows.

    Not a file of its own first: what crashes the process is then in the log.

    Returns:
        A file descriptor, and the log; None where it cannot be written.
    """
    if _log is not None:
        command = shlex.join([Path(sys.argv[0]).parent.name, *sys.argv[1:]])
        head = f"{time.strftime('%Y-%m-%d %H:%M:%S')} start of {command}\n"
        with (
            contextlib.suppress(OSError),
            _log.open("a", errors="backslashreplace") as file,
        ):
            file.write(head)
            file.flush()
            return os.open(_log, os.O_RDWR | os.O_APPEND), _log
    with contextlib.suppress(OSError), tempfile.TemporaryFile() as unseen:
        return os.dup(unseen.fileno()), None
    return os.open(os.devnull, os.O_RDWR), None
