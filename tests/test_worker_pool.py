"""Beam's worker pool of ours: on loopback, with this Python, alone on its port."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY

POOL = [sys.executable, "-m", "pipeline.worker_pool"]
JOB = """
import os, sys
import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.portable_runner import PortableRunner

def note(path):
    import os, sys
    from pipeline import files
    with open(path, "w") as file:
        print(os.getpid(), sys.executable, files.__file__, file=file)

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


@pytest.fixture
def port():
    """Of a pool that runs elsewhere than in our folder."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"}
    pool = subprocess.Popen(
        [*POOL, str(port)], cwd="/", env=environment, start_new_session=True
    )
    deadline = time.monotonic() + 60
    with socket.socket() as probe:
        while probe.connect_ex(("127.0.0.1", port)):
            assert pool.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
    yield port
    pool.kill()
    pool.wait()


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
    assert module == str(REPOSITORY / "pipeline" / "files.py")


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
