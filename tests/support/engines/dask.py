"""Dask: a scheduler and workers of one thread, which no nanny starts again."""

import importlib.util
import sys

from pipeline.system.errors import RunError
from tests.support.engines.cluster import Cluster, Part


class Dask(Cluster):
    """See `Cluster`."""

    engine = "dask"
    ports_of = ("scheduler",)

    def fetch(self) -> None:
        if not importlib.util.find_spec("distributed"):
            raise RunError("Dask is not installed: `make install EXTRAS=,dask`.")

    def parts(self) -> dict[str, Part]:
        address = f"tcp://127.0.0.1:{self.ports['scheduler']}"
        here = ["--host=127.0.0.1", "--no-dashboard"]
        scheduler = [*_start("scheduler"), f"--port={self.ports['scheduler']}"]
        worker = [*_start("worker"), address, "--nthreads=1", "--no-nanny"]
        return {
            "scheduler": Part([*scheduler, *here], "Scheduler at:"),
            **{
                f"worker-{number}": Part([*worker, *here], "Registered to:")
                for number in range(1, self.workers + 1)
            },
        }

    def options(self) -> list[str]:
        return [f"--dask_client_address=tcp://127.0.0.1:{self.ports['scheduler']}"]


def _start(kind: str) -> list[str]:
    return [sys.executable, "-m", f"distributed.cli.dask_{kind}"]
