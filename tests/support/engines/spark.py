"""Spark: a master, workers of one core, and a pool of Beam's workers."""

import json
import sys
from typing import Any
from urllib.request import urlopen

from tests.support.engines import downloads
from tests.support.engines.cluster import Cluster, Part
from tests.support.files import REPOSITORY

VERSION = "3.5.6"
SHA256 = "f8b1c4360e41ab398c64904fae08740503bcb6bd389457d659fa6d9f2952cc48"
_POM = REPOSITORY / "tests" / "support" / "engines" / "spark_job_server.xml"
_HOST = ("--host", "127.0.0.1")
_SETTINGS = {  # of a job
    "spark.executor.memory": "512m",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.ui.enabled": "false",
}


class Spark(Cluster):
    """See `Cluster`."""

    engine = "spark"
    ports_of = ("master", "page", "pool")

    def fetch(self) -> None:
        self._java = downloads.java()
        self._home = downloads.unpacked_sdist("pyspark", VERSION, SHA256) / "deps"
        self._job_server = downloads.job_server(_POM)

    def parts(self) -> dict[str, Part]:
        start = ["bash", f"{self._home}/bin/spark-class"]
        deploy = "org.apache.spark.deploy"
        page = ["--webui-port", str(self.ports["page"])]
        master = [*start, f"{deploy}.master.Master", *_HOST, *page]
        master += ["--port", str(self.ports["master"])]
        worker = [*start, f"{deploy}.worker.Worker", *_HOST, "--webui-port", "0"]
        worker += ["--cores", "1", "--memory", "640m"]
        worker += ["--work-dir", f"{self.folder}/work", self._master]
        pool = [sys.executable, "-m", "pipeline.worker_pool", str(self.ports["pool"])]
        return {
            "master": Part(master, "New state: ALIVE"),
            "pool": Part(pool, self.ports["pool"]),
            **{
                f"worker-{number}": Part(worker, "Successfully registered with master")
                for number in range(1, self.workers + 1)
            },
        }

    def environment(self) -> dict[str, str]:
        return super().environment() | {
            "SPARK_HOME": str(self._home),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_DAEMON_MEMORY": "256m",
        }

    def options(self) -> list[str]:
        return [
            f"--spark_master_url={self._master}",
            f"--spark_page={self._page}",
            f"--spark_job_server_jar={self._job_server}",
            "--job_server_jvm_properties=-Xmx512m",
            *(
                f"--job_server_jvm_properties=-D{name}={value}"
                for name, value in _SETTINGS.items()
            ),
            "--environment_type=EXTERNAL",
            f"--environment_config=localhost:{self.ports['pool']}",
        ]

    def ask(self) -> Any:
        """Returns what the master's page says, as JSON."""
        with urlopen(f"{self._page}/json/") as reply:
            return json.load(reply)

    @property
    def _master(self) -> str:
        return f"spark://127.0.0.1:{self.ports['master']}"

    @property
    def _page(self) -> str:
        return f"http://127.0.0.1:{self.ports['page']}"
