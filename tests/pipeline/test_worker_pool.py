"""Beam's worker pool of ours: on loopback, with this Python, alone on its port."""

import os
import queue
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from apache_beam.portability.api import (
    beam_fn_api_pb2,
    beam_fn_api_pb2_grpc,
    endpoints_pb2,
)

from tests.support.files import REPOSITORY
from tests.support.processes import children

pytestmark = pytest.mark.integration

POOL = [sys.executable, "-m", "pipeline.worker_pool"]
JOB = """
import os, sys
import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.portable_runner import PortableRunner

def note(path):
    import os, sys
    from pipeline.storage import atomic
    with open(path, "w") as file:
        print(os.getpid(), sys.executable, atomic.__file__, file=file)

note_path, port = sys.argv[1:]
options = PipelineOptions([
    "--job_endpoint=embed",
    "--environment_type=EXTERNAL",
    f"--environment_config=localhost:{port}",
])
with beam.Pipeline(runner=PortableRunner(), options=options) as pipeline:
    _ = pipeline | beam.Create([note_path]) | beam.Map(note)
print(os.getpid())
"""


class Pool(NamedTuple):
    port: int
    process: subprocess.Popen[bytes]


@pytest.fixture
def pool() -> Iterator[Pool]:
    """A pool that runs elsewhere than in our folder."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen(
        [*POOL, str(port)], cwd="/", env=environment, start_new_session=True
    )
    deadline = time.monotonic() + 60
    with socket.socket() as probe:
        while probe.connect_ex(("127.0.0.1", port)):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
    yield Pool(port, process)
    left = children(process.pid)
    process.kill()
    process.wait()
    for pid in left:
        if os.path.exists(f"/proc/{pid}"):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def port(pool: Pool) -> int:
    return pool.port


class Runner(beam_fn_api_pb2_grpc.BeamFnControlServicer):
    """The control service of a runner: workers connect to it, and are given nothing."""

    def __init__(self) -> None:
        self.connected: queue.Queue[str] = queue.Queue()
        self.server = grpc.server(ThreadPoolExecutor(4))
        beam_fn_api_pb2_grpc.add_BeamFnControlServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def Control(self, responses: Iterator[Any], context: Any) -> Iterator[Any]:  # noqa: N802
        self.connected.put(dict(context.invocation_metadata())["worker_id"])
        yield from ()
        while context.is_active():
            time.sleep(0.05)

    def start_worker(self, pool: Pool, name: str) -> int:
        """Has the pool start a worker; returns its process, once it is connected."""
        before = set(children(pool.process.pid))
        url = f"127.0.0.1:{self.port}"
        request = beam_fn_api_pb2.StartWorkerRequest(
            worker_id=name, control_endpoint=endpoints_pb2.ApiServiceDescriptor(url=url)
        )
        with grpc.insecure_channel(f"127.0.0.1:{pool.port}") as channel:
            stub = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
            assert not stub.StartWorker(request).error
        assert self.connected.get(timeout=60) == name
        (worker,) = set(children(pool.process.pid)) - before
        return worker

    def stop_worker(self, pool: Pool, name: str) -> None:
        request = beam_fn_api_pb2.StopWorkerRequest(worker_id=name)
        with grpc.insecure_channel(f"127.0.0.1:{pool.port}") as channel:
            stub = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
            assert not stub.StopWorker(request).error


@pytest.fixture
def runner() -> Iterator[Callable[[], Runner]]:
    """Makes runners, as task managers of Flink are."""
    made: list[Runner] = []

    def make() -> Runner:
        made.append(Runner())
        return made[-1]

    yield make
    for one in made:
        one.server.stop(None)


def lives(pid: int) -> bool:
    """Whether a process runs; one that nobody has asked how it ended does not."""
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        )
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for_end(pid: int) -> None:
    deadline = time.monotonic() + 60
    while lives(pid):
        assert time.monotonic() < deadline, "the worker waits for ever"
        time.sleep(0.05)


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_runner_ends_its_own_worker_alone(
    pool: Pool, runner: Callable[[], Runner], stopped: int
) -> None:
    """Two task managers number their workers alike."""
    runners = [runner(), runner()]
    workers = [one.start_worker(pool, "1-1") for one in runners]
    runners[stopped].stop_worker(pool, "1-1")
    runners[stopped].server.stop(None)
    wait_for_end(workers[stopped])
    time.sleep(1)  # for a signal to the other one to arrive
    assert lives(workers[1 - stopped])
    runners[1 - stopped].server.stop(None)
    wait_for_end(workers[1 - stopped])


def test_a_worker_ends_with_its_runner(
    pool: Pool, runner: Callable[[], Runner]
) -> None:
    """As where a task manager is killed, which asks for nothing any more."""
    one = runner()
    worker = one.start_worker(pool, "1-1")
    one.server.stop(None)
    wait_for_end(worker)
    assert pool.process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_pool(
    pool: Pool, runner: Callable[[], Runner], number: signal.Signals
) -> None:
    worker = runner().start_worker(pool, "1-1")
    pool.process.send_signal(number)
    pool.process.wait()
    wait_for_end(worker)


def test_a_worker_is_a_process_of_this_python_with_our_package(
    port: int, tmp_path: Path
) -> None:
    note = tmp_path / "note"
    job = subprocess.run(
        [sys.executable, "-c", JOB, str(note), str(port)],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert job.returncode == 0, job.stderr
    worker, executable, module = note.read_text().split()
    assert worker != job.stdout.strip()
    assert Path(executable).parent == Path(sys.executable).parent
    assert module == str(REPOSITORY / "pipeline" / "storage" / "atomic.py")


def test_it_is_alone_on_its_port(port: int) -> None:
    second = subprocess.run(
        [*POOL, str(port)], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    assert second.returncode == 1
    assert str(port) in second.stderr


def test_it_listens_on_loopback_alone(port: int) -> None:
    listening = [
        line.split()[1]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[1].endswith(f":{port:04X}")
    ]
    assert listening in (
        ["0100007F:" + f"{port:04X}"],
        ["0000000000000000FFFF00000100007F:" + f"{port:04X}"],
    )
