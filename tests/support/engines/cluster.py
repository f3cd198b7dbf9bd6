"""A cluster on this machine: processes on loopback, started and ended together."""

import contextlib
import fcntl
import json
import os
import re
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.storage import folder_lock
from pipeline.system.errors import RunError
from tests.support.engines.background import BackgroundProcess
from tests.support.files import REPOSITORY

_LOOK_SECONDS = 0.2
_START_SECONDS = 180  # three JVMs on two busy cores take 26


class Part(NamedTuple):
    """One process of a cluster.

    Attributes:
        command: to start it.
        ready: what its log says, a pattern, or where it listens, a port, once it works.
    """

    command: list[str]
    ready: str | int


class Cluster(ABC):
    """An engine: a process that leads, and some that work.

    Args:
        folder: of logs, numbers of processes and scratch files.
        workers: processes `worker-1`, `worker-2` and so on, of one core each.
        environment: of all processes, beside that of this one.

    Attributes:
        engine: what `--runner` calls it.
        ports_of: names of the ports that it takes, all of them on 127.0.0.1.
        ports: by name; those of the processes that run.
    """

    engine: str
    ports_of: tuple[str, ...]

    def __init__(
        self, folder: Path, *, workers: int = 2, environment: Mapping[str, str] = {}
    ) -> None:
        self.folder, self.workers = folder.absolute(), workers
        given = {**os.environ, **environment}
        path = os.pathsep.join([str(REPOSITORY), given.get("PYTHONPATH", "")])
        self._environment = given | {"PYTHONPATH": path.rstrip(os.pathsep)}
        noted = self.folder / "ports.json"
        self.ports: dict[str, int] = (
            json.loads(noted.read_text()) if noted.is_file() else {}
        )

    @abstractmethod
    def fetch(self) -> None:
        """Downloads what is missing.

        Raises:
            RunError: it cannot be had, or something else is missing here.
        """

    @abstractmethod
    def parts(self) -> dict[str, Part]:
        """Returns the processes by name, in the order of their start."""

    @abstractmethod
    def options(self) -> list[str]:
        """Returns what a job of Beam needs, behind `--`."""

    def environment(self) -> dict[str, str]:
        """Returns that of every process."""
        return self._environment

    def up(self) -> int:
        """Starts what does not run, waits until all of it works; returns how many.

        Raises:
            RunError: a part is missing, or a process ended.
        """
        self.fetch()
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            if not any(process.pid for process in self._started()):
                self.take_ports()
                (self.folder / "ports.json").write_text(json.dumps(self.ports))
            missing = [name for name in self.parts() if not self.process(name).pid]
            self.start(missing)
        return len(missing)

    def start(self, names: Sequence[str]) -> None:
        """Starts some of the processes, and waits until they work.

        Raises:
            RunError: one of them ended.
        """
        parts = self.parts()
        for name in names:
            self.process(name).start(parts[name].command, self.environment())
        deadline = time.monotonic() + _START_SECONDS
        for name in names:
            process = self.process(name)
            while not self._ready(process, parts[name].ready):
                if not process.pid:
                    raise RunError(
                        f"{name} of {self.engine} ended as it started: "
                        f"{process.last_words()!r}. {process.log} has the rest. "
                        f"`make cluster-down ENGINE={self.engine}` ends the others."
                    )
                if time.monotonic() > deadline:
                    raise RunError(
                        f"{name} of {self.engine} is not ready after {_START_SECONDS} "
                        f"s. {process.log} says what it does; is there enough memory? "
                        f"`make cluster-down ENGINE={self.engine}` ends what runs."
                    )
                time.sleep(_LOOK_SECONDS)

    def take_ports(self) -> None:
        """Chooses ports where nobody listens."""
        self.ports = {name: free_port() for name in self.ports_of}

    def down(self) -> list[str]:
        """Ends all that `up` has started; returns the names."""
        return [one.name for one in reversed(self._started()) if one.stop()]

    def process(self, name: str) -> BackgroundProcess:
        """Returns the process of that name, which may run or not."""
        return BackgroundProcess(name, self.folder)

    def _started(self) -> list[BackgroundProcess]:
        return [self.process(path.stem) for path in sorted(self.folder.glob("*.pid"))]

    def _ready(self, process: BackgroundProcess, ready: str | int) -> bool:
        if isinstance(ready, int):
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", ready)) == 0
        return bool(re.search(ready, process.log.read_text(errors="replace")))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One `up` at a time; a second one waits."""
        with (self.folder / "lock").open("w") as file:
            folder_lock.take(file.fileno(), fcntl.LOCK_EX, self.folder)
            yield


def free_port() -> int:
    """Returns a port of 127.0.0.1 where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
