"""Flink: a job manager, task managers with two slots, and a pool of Beam's workers."""

import json
import sys
from typing import Any
from urllib.request import urlopen

from tests.support.engines import downloads
from tests.support.engines.cluster import Cluster, Part
from tests.support.files import REPOSITORY

VERSION = "1.19.3"
SHA256 = "4a58e3a1fb7d83340bc96b6c080624c6d792d69fae5d294b96224775204a9c60"
SLOTS = 2  # of a task manager
_POM = REPOSITORY / "tests" / "support" / "engines" / "flink_job_server.xml"
_SETTINGS = {
    "restart-strategy.type": "fixed-delay",
    "restart-strategy.fixed-delay.attempts": 10,
    "restart-strategy.fixed-delay.delay": "1s",
    "heartbeat.interval": 1000,  # ms; a dead task manager is missed within 10 s
    "heartbeat.timeout": 10000,
    "slot.request.timeout": 60000,  # ms; more slots than there are is an error then
    "taskmanager.load-balance.mode": "SLOTS",  # else one task manager gets them all
    "taskmanager.numberOfTaskSlots": SLOTS,
    # Those that Flink's scripts would work out.
    "taskmanager.cpu.cores": SLOTS,
    "taskmanager.memory.framework.heap.size": "128m",
    "taskmanager.memory.framework.off-heap.size": "128m",
    "taskmanager.memory.task.heap.size": "128m",
    "taskmanager.memory.task.off-heap.size": "0",
    "taskmanager.memory.managed.size": "64m",
    "taskmanager.memory.network.min": "64m",
    "taskmanager.memory.network.max": "64m",
    "taskmanager.memory.jvm-metaspace.size": "256m",
    "taskmanager.memory.jvm-overhead.min": "64m",
    "taskmanager.memory.jvm-overhead.max": "64m",
}
_LOGGING = """
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = Console
appender.console.name = Console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %-5p %c %m%n
"""
_OPEN = ("lang", "net", "io", "nio", "lang.reflect", "text", "time", "util")
_OPEN += ("util.concurrent", "util.concurrent.atomic", "util.concurrent.locks")


class Flink(Cluster):
    """See `Cluster`."""

    engine = "flink"
    ports_of = ("rest", "rpc", "pool")

    def fetch(self) -> None:
        self._java = downloads.java()
        self._home = downloads.unpacked_sdist("apache-flink-libraries", VERSION, SHA256)
        self._job_server = downloads.job_server(_POM)

    def parts(self) -> dict[str, Part]:
        self._write_settings()
        runtime = "org.apache.flink.runtime"
        master = f"{runtime}.entrypoint.StandaloneSessionClusterEntrypoint"
        worker = f"{runtime}.taskexecutor.TaskManagerRunner"
        pool = [sys.executable, "-m", "pipeline.worker_pool", str(self.ports["pool"])]
        return {
            "master": Part(self._java_command("320m", master), "granted leadership"),
            "pool": Part(pool, self.ports["pool"]),
            **{
                f"worker-{number}": Part(
                    [
                        *self._java_command("384m", worker),
                        *("-D", f"taskmanager.resource-id=worker-{number}"),
                    ],
                    "Successful registration at resource manager",
                )
                for number in range(1, self.workers + 1)
            },
        }

    def options(self) -> list[str]:
        return [
            f"--flink_master=localhost:{self.ports['rest']}",
            f"--flink_version={VERSION.rpartition('.')[0]}",
            f"--flink_job_server_jar={self._job_server}",
            "--job_server_jvm_properties=-Xmx512m",
            f"--parallelism={self.workers * SLOTS}",
            "--environment_type=EXTERNAL",
            f"--environment_config=localhost:{self.ports['pool']}",
        ]

    def ask(self, path: str) -> Any:
        """Returns what Flink's REST API answers."""
        with urlopen(f"http://localhost:{self.ports['rest']}/{path}") as reply:
            return json.load(reply)

    def _java_command(self, heap: str, program: str) -> list[str]:
        return [
            *(self._java, f"-Xmx{heap}", "-XX:+UseSerialGC"),
            *(f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in _OPEN),
            f"-Dlog4j.configurationFile={self.folder}/log4j.properties",
            *("-classpath", f"{self._home}/deps/lib/*"),
            *(program, "--configDir", str(self.folder)),
        ]

    def _write_settings(self) -> None:
        settings = _SETTINGS | {
            "jobmanager.rpc.address": "localhost",
            "jobmanager.rpc.port": self.ports["rpc"],
            "jobmanager.bind-host": "localhost",
            "taskmanager.host": "localhost",
            "taskmanager.bind-host": "localhost",
            "rest.address": "localhost",
            "rest.bind-address": "localhost",
            "rest.port": self.ports["rest"],
            "io.tmp.dirs": str(self.folder),
            "web.tmpdir": str(self.folder),
        }
        lines = [f"{name}: {value}\n" for name, value in settings.items()]
        (self.folder / "config.yaml").write_text("".join(lines))
        (self.folder / "log4j.properties").write_text(_LOGGING)
