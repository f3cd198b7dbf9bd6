"""Beam's job service, and the pool that starts workers for it: real servers."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.files import REPOSITORY
from tests.support.processes import children

POOL = "apache_beam.runners.worker.worker_pool_main"
SERVICE = "apache_beam.runners.portability.local_job_service_main"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    while True:
        assert process.poll() is None
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)


@contextlib.contextmanager
def started(path: str | None = None) -> Iterator[tuple[str, ...]]:
    """Beam options for a job service, whose workers a pool starts as processes.

    Args:
        path: where the pool looks for `python`; without it, beside this one.
    """
    ours = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    service, pool = free_port(), free_port()
    servers = [
        subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=REPOSITORY,
            env=os.environ | {"PATH": path or ours},
            stderr=subprocess.DEVNULL,
        )
        for words in ((SERVICE, f"--port={service}"), (POOL, f"--service_port={pool}"))
    ]
    try:
        for port, server in zip((service, pool), servers, strict=True):
            wait_for_port(port, server)
        yield (
            f"--job_endpoint=localhost:{service}",
            "--environment_type=EXTERNAL",
            f"--environment_config=localhost:{pool}",
        )
    finally:
        for server in servers:
            for child in children(server.pid):
                os.kill(child, signal.SIGKILL)
            server.kill()
            server.wait()
