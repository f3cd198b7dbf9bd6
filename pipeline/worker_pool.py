"""Beam's worker pool: starts a worker process whenever a runner asks for one.

    python -m pipeline.worker_pool PORT

It listens on 127.0.0.1 alone, whereas Beam's own program listens to the world, and who
reaches a pool can have anything run. Workers are of this Python, not of PATH's, and
import our package from where this one does.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from apache_beam.portability.api import beam_fn_api_pb2_grpc
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer

_THREADS = 16  # requests at a time; starting a worker takes milliseconds
_OPTIONS = (
    ("grpc.so_reuseport", 0),  # else a second pool would share the port in silence
    ("grpc.http2.max_pings_without_data", 0),  # as Beam's own: workers may be idle
    ("grpc.http2.max_ping_strikes", 0),
)


def serve(port: int) -> None:
    """Serves until the process is ended.

    Raises:
        RuntimeError: the port is taken.
    """
    root = Path(__file__).parent.parent
    # The servicer starts `python`, with the environment of this process.
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    os.environ["PYTHONPATH"] = f"{root}:{os.environ.get('PYTHONPATH', '')}".rstrip(":")
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=_OPTIONS)
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(
        BeamFnExternalWorkerPoolServicer(use_process=True), server
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
