"""Beam's worker pool: starts a worker process whenever a runner asks for one.

    python -m pipeline.worker_pool PORT

It listens on 127.0.0.1 alone, whereas Beam's own program listens to the world, and who
reaches a pool can have anything run. Workers are of this Python, not of PATH's, and
import our package from where this one does.

A worker ends when its runner closes the control connection, and with the pool. Beam's
own pool ends workers by their ids, and two task managers of Flink use the same ones.
"""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc
from apache_beam.runners.worker.sdk_worker import SdkHarness

from pipeline.system.child_process import end_with_the_parent

_THREADS = 16  # requests at a time; starting a worker takes milliseconds
_OPTIONS = (
    ("grpc.so_reuseport", 0),  # else a second pool would share the port in silence
    ("grpc.http2.max_pings_without_data", 0),  # as Beam's own: workers may be idle
    ("grpc.http2.max_ping_strikes", 0),
)


class _Pool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Starts workers, each a process with a pipe to this one."""

    def StartWorker(  # noqa: N802 (Beam's name)
        self,
        request: beam_fn_api_pb2.StartWorkerRequest,
        context: grpc.ServicerContext,
    ) -> beam_fn_api_pb2.StartWorkerResponse:
        """Starts a worker."""
        control = request.control_endpoint.url
        try:
            worker = subprocess.Popen(
                [sys.executable, "-m", __spec__.name, control, request.worker_id],
                stdin=subprocess.PIPE,  # never written to: its end is the pool's
            )
        except OSError as error:
            return beam_fn_api_pb2.StartWorkerResponse(error=str(error))
        # Holds the pipe as long as the worker runs, and leaves no zombie.
        threading.Thread(target=worker.wait, daemon=True).start()
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(  # noqa: N802
        self,
        request: beam_fn_api_pb2.StopWorkerRequest,
        context: grpc.ServicerContext,
    ) -> beam_fn_api_pb2.StopWorkerResponse:
        """Does nothing.

        The id may be that of another runner's worker, too; the worker that is meant
        ends by itself, for its runner closes the control connection.
        """
        return beam_fn_api_pb2.StopWorkerResponse()


def serve(port: int) -> None:
    """Serves until the process is ended.

    Raises:
        RuntimeError: the port is taken.
    """
    root = Path(__file__).parent.parent  # workers inherit the environment
    os.environ["PYTHONPATH"] = f"{root}:{os.environ.get('PYTHONPATH', '')}".rstrip(":")
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=_OPTIONS)
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(_Pool(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def work(control: str, worker_id: str) -> None:
    """Worker entry point: serves a runner until it closes the control connection.

    Args:
        control: HOST:PORT of the runner's control service.
        worker_id: by which the runner knows the worker.
    """
    end_with_the_parent(sys.stdin.fileno())
    code = 1
    try:
        SdkHarness(control, worker_id=worker_id).run()
        code = 0
    except grpc.FutureTimeoutError:
        print(f"no runner answers at {control}", file=sys.stderr)
    except grpc.RpcError as error:
        print(f"the runner at {control} has gone: {error.code()}", file=sys.stderr)
    finally:
        os._exit(code)  # whatever its threads still wait for, nobody takes it


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(int(sys.argv[1]))
    else:
        work(*sys.argv[1:])
