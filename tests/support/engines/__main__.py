"""A Flink cluster on this machine, for `make shards ARGS=--runner=flink`.

    python -m tests.support.flink_cluster up|down|status

A job manager and task managers, each a process on loopback, and Beam's worker pool.
All that is downloaded, written and logged lies in --folder; `up` starts what does not
run yet, `down` ends what `up` has started and nothing else.
"""

import argparse
import contextlib
import fcntl
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.runners import flink_rest
from pipeline.runners.flink import own_job_server
from pipeline.storage import folder_lock
from pipeline.system.console import DONE, FAILED
from pipeline.system.errors import RunError
from tests.support.flink_cluster import distribution
from tests.support.flink_cluster.background import BackgroundProcess

_LOOK_SECONDS = 0.5
_START_SECONDS = 120  # three JVMs on two busy cores take 26

# What differs from Flink's own conf/config.yaml, which has the flags for Java 17.
_COMMON = {
    "restart-strategy.type": "fixed-delay",
    "restart-strategy.fixed-delay.attempts": "10",
    "restart-strategy.fixed-delay.delay": "1s",  # no blank: the scripts would cut it
    "heartbeat.interval": "1000",  # ms; a dead task manager is missed within 10 s
    "heartbeat.timeout": "10000",
    "slot.request.timeout": "60000",  # ms; more slots than there are is an error then
    "taskmanager.load-balance.mode": "TASKS",  # else one task manager gets them all
}
_JOB_MANAGER = {
    "jobmanager.memory.process.size": "1g",
    # Names of shards are so few bytes that Flink would have one task do them all.
    "execution.batch.adaptive.auto-parallelism.avg-data-volume-per-task": "1b",
}
_TASK_MANAGER = {
    "taskmanager.memory.process.size": "1536m",
    "taskmanager.memory.managed.fraction": "0.2",
}


@dataclass(frozen=True)
class Cluster:
    """Where a cluster lives and how large it is.

    Attributes:
        folder: of the distribution, logs, process numbers and scratch files.
        task_managers: processes.
        slots: of each task manager.
        port: of the REST API, which is `--flink_master`.
        rpc_port: of the job manager, for task managers.
        pool_port: of the worker pool, which is `--environment_config`.
    """

    folder: Path
    task_managers: int = 2
    slots: int = 2
    port: int = 8081
    rpc_port: int = 6123
    pool_port: int = 50000

    @property
    def master(self) -> str:
        """The address of the REST API."""
        return f"localhost:{self.port}"

    @property
    def home(self) -> Path:
        """Flink itself."""
        return distribution.home_path(self.folder).absolute()

    @property
    def log_folder(self) -> Path:
        """What the processes say, and their numbers."""
        return self.folder / "run"

    @property
    def scratch(self) -> Path:
        """What the processes need as long as they run."""
        return self.folder / "tmp"

    def daemons(self) -> dict[BackgroundProcess, list[str]]:
        """The command of every process, in the order of their start."""
        job_manager = [str(self.home / "bin" / "jobmanager.sh"), "start-foreground"]
        task_manager = [str(self.home / "bin" / "taskmanager.sh"), "start-foreground"]
        pool = [sys.executable, "-m", "pipeline.worker_pool", str(self.pool_port)]
        return {
            self._daemon("jobmanager"): [
                *job_manager,
                *self._settings(_JOB_MANAGER),
            ],
            **{
                self._daemon(f"taskmanager-{number}"): [
                    *task_manager,
                    *self._settings(_TASK_MANAGER),
                    *_dynamic({"taskmanager.resource-id": f"taskmanager-{number}"}),
                ]
                for number in range(1, self.task_managers + 1)
            },
            self._daemon("workerpool"): pool,
        }

    def started(self) -> list[BackgroundProcess]:
        """Whatever an `up` has started, of this size or another."""
        names = sorted(path.stem for path in self.log_folder.glob("*.pid"))
        return [self._daemon(name) for name in names]

    def environment(self) -> dict[str, str]:
        """Of every process: what Flink's scripts read."""
        return os.environ | {
            "FLINK_CONF_DIR": str(self.home / "conf"),
            "FLINK_LOG_DIR": str(self.scratch.absolute()),  # copies of what we log
            "FLINK_PID_DIR": str(self.scratch.absolute()),
        }

    def _daemon(self, name: str) -> BackgroundProcess:
        return BackgroundProcess(name, self.log_folder)

    def _settings(self, own: dict[str, str]) -> list[str]:
        scratch = str(self.scratch.absolute())
        settings = {
            **_COMMON,
            **own,
            "rest.port": str(self.port),
            "rest.bind-address": "localhost",
            "jobmanager.rpc.port": str(self.rpc_port),
            "taskmanager.numberOfTaskSlots": str(self.slots),
            "io.tmp.dirs": scratch,
            "web.tmpdir": scratch,
        }
        return _dynamic(settings)


def _dynamic(settings: Mapping[str, str]) -> list[str]:
    """Settings as words for Flink's scripts, which take no other spelling."""
    return [word for item in settings.items() for word in ("-D", "=".join(item))]


def up(cluster: Cluster, jar: str) -> None:
    """Starts what does not run, and says how jobs get there.

    Args:
        cluster: what to start.
        jar: Beam's job server: "maven", "none", or a path.

    Raises:
        RunError: a part is missing, a port is taken, a process ended.
    """
    began = time.monotonic()
    distribution.java()
    cluster.folder.mkdir(parents=True, exist_ok=True)
    with _alone(cluster.folder):
        missing = [daemon for daemon in cluster.daemons() if not daemon.pid]
        _refuse_taken(cluster, missing)  # before 300 MB of downloads
        distribution.home(cluster.folder)
        server = _job_server(jar, cluster.folder)
        _start(cluster, missing)
        _wait(cluster)
    took = f"{len(missing)} processes started in {time.monotonic() - began:.1f} s"
    print(
        f"Flink {distribution.FLINK} at http://{cluster.master}: "
        f"{cluster.task_managers} task managers, {flink_rest.slots(cluster.master)} "
        f"slots; {took if missing else 'it ran already'}"
    )
    if server:
        options = " ".join(beam_options(cluster, server))
        print(f'make shards IMAGES=… DATASET=… ARGS=--runner=flink BEAM="{options}"')


def beam_options(cluster: Cluster, server: Path) -> list[str]:
    """What a Beam job needs to run there, with workers from the pool."""
    return [
        f"--flink_master={cluster.master}",
        f"--flink_version={distribution.short(distribution.FLINK)}",
        f"--flink_job_server_jar={server.absolute()}",
        f"--parallelism={cluster.task_managers * cluster.slots}",
        "--environment_type=EXTERNAL",
        f"--environment_config=localhost:{cluster.pool_port}",
    ]


def down(cluster: Cluster) -> None:
    """Ends all that `up` has started."""
    ended = [daemon.name for daemon in reversed(cluster.started()) if daemon.stop()]
    print(f"ended: {', '.join(ended)}" if ended else "nothing runs")


def status(cluster: Cluster) -> None:
    """Prints what runs.

    Raises:
        RunError: something of it does not.
    """
    daemons = cluster.daemons()
    for daemon in daemons:
        print(f"{daemon.name:<14} {f'pid {daemon.pid}' if daemon.pid else 'is down'}")
    if missing := [daemon for daemon in daemons if not daemon.pid]:
        raise RunError(
            f"{len(missing)} of {len(daemons)} processes are down. `make flink-up` "
            "starts what is missing."
        )
    print(f"slots          {flink_rest.slots(cluster.master)}")
    for job, state in flink_rest.jobs(cluster.master).items():
        print(f"{state:<14} {job}")


def _job_server(jar: str, folder: Path) -> Path | None:
    if jar == "none":
        return None
    if jar == "maven":
        return distribution.job_server(folder)
    return own_job_server(
        Path(jar).expanduser(), flink=distribution.short(distribution.FLINK)
    )


def _refuse_taken(cluster: Cluster, missing: Sequence[BackgroundProcess]) -> None:
    names = {daemon.name for daemon in missing}
    ports = {
        "--port": ("jobmanager", cluster.port),
        "--rpc_port": ("jobmanager", cluster.rpc_port),
        "--pool_port": ("workerpool", cluster.pool_port),
    }
    for flag, (name, port) in ports.items():
        if name in names and (why := _taken(port)):
            raise RunError(
                f"port {port} of 127.0.0.1 is taken: {why}. Another program listens "
                "there, perhaps another cluster: end it, or choose another port with "
                f"{flag}."
            )


def _taken(port: int) -> str | None:
    """Why nothing can listen on a port; None where something can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Flink does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.strerror
    return None


def _start(cluster: Cluster, missing: Sequence[BackgroundProcess]) -> None:
    commands = cluster.daemons()
    if len(missing) == len(commands):
        shutil.rmtree(cluster.scratch, ignore_errors=True)  # of killed processes
    cluster.scratch.mkdir(exist_ok=True)
    for daemon in missing:
        daemon.start(commands[daemon], cluster.environment())


def _wait(cluster: Cluster) -> None:
    """Until all slots are registered and the pool listens."""
    wanted = cluster.task_managers * cluster.slots
    since, deadline = time.time(), time.monotonic() + _START_SECONDS
    while _slots(cluster, since) < wanted or not _listens(cluster.pool_port):
        for daemon in cluster.daemons():
            if not daemon.pid:
                raise RunError(
                    f"{daemon.name} ended as it started: {daemon.last_words()!r}. "
                    f"{daemon.log} has the rest. `make flink-down` ends the others."
                )
        if time.monotonic() > deadline:
            raise RunError(
                f"after {_START_SECONDS} s {_slots(cluster, since)} of {wanted} slots "
                f"are registered. {cluster.log_folder} has the logs; is there enough "
                "memory? `make flink-down` ends what runs."
            )
        time.sleep(_LOOK_SECONDS)


def _slots(cluster: Cluster, since: float) -> int:
    try:
        return flink_rest.slots(cluster.master, since=since)
    except RunError:
        return 0  # it does not answer yet


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One `up` at a time; a second one waits."""
    with (folder / "lock").open("w") as file:
        folder_lock.take(file.fileno(), fcntl.LOCK_EX, folder)
        yield


def main(words: Sequence[str]) -> int:
    """Runs a command line and returns the exit code; 2 is argparse's."""
    options = _parser().parse_args(words)
    cluster = Cluster(
        options.folder.expanduser(),
        task_managers=options.task_managers,
        slots=options.slots,
        port=options.port,
        rpc_port=options.rpc_port,
        pool_port=options.pool_port,
    )
    try:
        if options.verb == "up":
            up(cluster, options.jar)
        else:
            {"down": down, "status": status}[options.verb](cluster)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    return DONE


def _parser() -> argparse.ArgumentParser:
    size = Cluster(Path())
    parser = argparse.ArgumentParser(
        "python -m tests.support.flink_cluster", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("verb", choices=["up", "down", "status"])
    parser.add_argument("--folder", type=Path, default=Path(".flink"))
    parser.add_argument(
        "--jar", default="maven", help="Beam's job server: maven, none, or a path."
    )
    for name in ("task_managers", "slots", "port", "rpc_port", "pool_port"):
        parser.add_argument(f"--{name}", type=int, default=getattr(size, name))
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
