"""A program in the background, known by a file and ended with its children."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LOOK_SECONDS = 0.05
_PATIENCE = 10.0  # seconds between SIGTERM and SIGKILL


@dataclass(frozen=True)
class BackgroundProcess:
    """A process that outlives its launcher and leads a group of its own.

    `FOLDER/NAME.pid` holds its number and its start time, in clock ticks since boot:
    a number alone may belong to somebody else by the time it is read.
    """

    name: str
    folder: Path

    @property
    def log(self) -> Path:
        """What the process says, of its latest start alone."""
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """The process; None when it does not run."""
        noted = self._noted()
        return noted[0] if noted and _started(noted[0]) == noted[1] else None

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Starts the process; it must not run yet."""
        self.stop()  # children of one that died
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._pid_file.write_text(f"{process.pid} {_started(process.pid)}\n")

    def stop(self) -> bool:
        """Ends the process and its children; returns whether there was anything.

        Nobody else's process is touched, whatever became of the number.
        """
        noted = self._noted()
        there = noted is not None and self._end(*noted)
        self._pid_file.unlink(missing_ok=True)
        return there

    def last_words(self) -> str:
        """The last line of the log that says something."""
        if not self.log.is_file():
            return ""
        lines = self.log.read_text(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    @property
    def _pid_file(self) -> Path:
        return self.folder / f"{self.name}.pid"

    def _noted(self) -> tuple[int, int] | None:
        try:
            pid, started = self._pid_file.read_text().split()
            return int(pid), int(started)
        except (FileNotFoundError, ValueError):
            return None

    def _end(self, pid: int, started: int) -> bool:
        if _started(pid) not in (started, None):
            return False  # the number is somebody else's by now, so the group is gone
        try:
            os.killpg(pid, signal.SIGTERM)
        except ProcessLookupError:
            return False
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline and _started(pid) == started:
            time.sleep(_LOOK_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        return True


def _started(pid: int) -> int | None:
    """When a process began, in clock ticks since boot; None when it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold anything
    return None if fields[0] in "ZX" else int(fields[19])
