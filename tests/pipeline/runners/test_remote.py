"""Jobs on other runners of Beam, on this machine: servers and workers are real.

`sitecustomize` stands in for a defect of the decoder; see tests/support/defects.py.
"""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.support.defects import DEFECT
from tests.support.files import REPOSITORY, tree
from tests.support.job_service import free_port, started
from tests.support.photos import HEIGHT, WIDTH, jpeg, photo
from tests.support.processes import Program, wait_for_shards

FLAGS = (f"--height={HEIGHT}", f"--width={WIDTH}", "--max_reject_fraction=0.5")
BARE = Path(sys.base_prefix, "bin", "python3")


def test_workers_of_a_job_service_write_the_same_bytes(
    cluster: tuple[str, ...],
    images: Path,
    made_dataset: Path,
    tmp_path: Path,
    program: Program,
) -> None:
    words = ("pipeline", f"--images={images}", f"--dataset={tmp_path / 'made'}")
    there = ("--runner=PortableRunner", "--", *cluster)
    result = program(*words, *FLAGS, "--shards=2", *there)
    assert result.returncode == 0, result.stderr
    assert "42 images listed = 40 written + 2 rejected" in result.stdout
    assert tree(tmp_path / "made") == tree(made_dataset)
    result = program(*words, *FLAGS, "--shards=2", *there)
    assert "complete already" in result.stdout


def test_what_a_job_service_left_the_local_runner_goes_on_with(
    cluster: tuple[str, ...], images: Path, tmp_path: Path, program: Program
) -> None:
    """Too much is rejected: all shards are there, but the last step refuses."""
    words = ("pipeline", f"--images={images}", f"--dataset={tmp_path / 'made'}")
    strict = program(
        *words, *FLAGS[:2], "--shards=2", "--runner=PortableRunner", "--", *cluster
    )
    assert strict.returncode == 1
    assert "error: 2 of 42 images were rejected (4.76%)" in strict.stderr
    assert "--max_reject_fraction allows 1.00%" in strict.stderr
    assert not (tmp_path / "made" / "dataset.json").exists()
    result = program(*words, *FLAGS, "--shards=2")
    assert result.returncode == 0, result.stderr
    assert "going on: 6 of 6 shards are committed" in result.stdout


def test_ctrl_c_cancels_the_job_and_the_next_run_goes_on(
    cluster: tuple[str, ...], many: Path, tmp_path: Path, program: Program
) -> None:
    dataset = tmp_path / "made"
    words = [f"--images={many}", f"--dataset={dataset}", "--shards=40", *FLAGS]
    there = ["--runner=PortableRunner", "--", *cluster]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *words, *there],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_shards(dataset, process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "asking PortableRunner to cancel the job" in output
    assert "Traceback" not in errors
    assert not (dataset / "dataset.json").exists()
    result = program("pipeline", *words)
    assert result.returncode == 0, result.stderr
    assert "going on: " in result.stdout
    assert "400 images listed = 400 written + 0 rejected" in result.stdout


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """IMAGES with a photo that crashes the decoder and one that stops it."""
    folder = tmp_path / "images" / "train" / "a"
    folder.mkdir(parents=True)
    for index in range(10):
        (folder / f"{index}.jpg").write_bytes(jpeg(photo(0, index)))
    for name, word in ((3, b"CRASH-ME"), (7, b"STOP-ME")):
        with (folder / f"{name}.jpg").open("ab") as file:
            file.write(word)
    (tmp_path / "defect").mkdir()
    (tmp_path / "defect" / "sitecustomize.py").write_text(DEFECT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "defect"))
    return folder.parent.parent


def test_a_crash_and_a_hang_cost_an_image_each(faulty: Path, program: Program) -> None:
    dataset = faulty.parent / "dataset"
    words = ("pipeline", f"--images={faulty}", f"--dataset={dataset}", *FLAGS)
    result = program(*words, "--runner=FnApiRunner", "--image_timeout=3")
    assert result.returncode == 0, result.stderr
    rejects = pd.read_csv(dataset / "rejects.csv").set_index("id")
    assert rejects.reason.to_dict() == {
        "a/3.jpg": "decoder_crash",
        "a/7.jpg": "timeout",
    }
    assert (
        json.loads((dataset / "dataset.json").read_text())["splits"]["train"][
            "examples"
        ]
        == 8
    )


def test_a_failing_worker_is_quoted(
    images: Path, tmp_path: Path, program: Program
) -> None:
    """A folder that stands where a shard should go: its commit fails."""
    dataset = tmp_path / "made"
    words = ("pipeline", f"--images={images}", f"--dataset={dataset}", *FLAGS)
    assert program(*words, "--shards=2", "--max_reject_fraction=0").returncode == 1
    shard = dataset / "train-00001-of-00002.tfrecord"
    shard.unlink()
    shard.mkdir()
    (shard / "file").touch()
    result = program(*words, "--shards=2", "--runner=FnApiRunner")
    assert result.returncode == 1
    assert f"error: Is a directory: {shard}. What was committed is" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--runner=fink",), "--runner=fink: "),
        (
            ("--runner=flink", "--", "--flink_mister=x"),
            "knows no option --flink_mister",
        ),
        (("--runner=local", "--", "--runner=FlinkRunner"), "--runner goes before"),
        (("--runner=PortableRunner",), "-- --job_endpoint=HOST:PORT"),
        (("--runner=PrismRunner",), "-- --prism_location=PATH"),
    ],
)
def test_wrong_usage(
    images: Path, tmp_path: Path, program: Program, words: tuple[str, ...], message: str
) -> None:
    result = program(
        "pipeline", f"--images={images}", f"--dataset={tmp_path / 'made'}", *words
    )
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_job_service_that_is_not_there(
    images: Path, tmp_path: Path, program: Program
) -> None:
    port = free_port()
    words = ("pipeline", f"--images={images}", f"--dataset={tmp_path / 'made'}")
    result = program(
        *words, "--runner=PortableRunner", "--", f"--job_endpoint=localhost:{port}"
    )
    assert result.returncode == 1
    assert f"nothing answers at --job_endpoint=localhost:{port}" in result.stderr
    assert not (tmp_path / "made").exists()


@pytest.mark.slow
def test_a_worker_without_the_package(
    images: Path, tmp_path: Path, program: Program
) -> None:
    """Its Python has no Beam: it ends at once, and Beam would wait for it."""
    words = ("pipeline", f"--images={images}", f"--dataset={tmp_path / 'made'}")
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {BARE} -I -S "$@"\n')
    (tmp_path / "python").chmod(0o755)
    with started(str(tmp_path)) as options:
        result = program(*words, *FLAGS, "--runner=PortableRunner", "--", *options)
    assert result.returncode == 1
    assert "no worker has begun in 60 s" in result.stderr
    assert "with this package and its requirements installed" in result.stderr


def test_a_job_service_that_never_answers(
    images: Path, tmp_path: Path, program: Program
) -> None:
    """Something listens there, and says nothing."""
    words = ("pipeline", f"--images={images}", f"--dataset={tmp_path / 'made'}")
    with socket.create_server(("localhost", 0)) as mute:
        endpoint = f"--job_endpoint=localhost:{mute.getsockname()[1]}"
        result = program(*words, "--runner=PortableRunner", "--", endpoint)
    assert result.returncode == 1
    assert "but is no job service of Beam, or too busy: no answer in 5 s" in (
        result.stderr
    )
    assert "Traceback" not in result.stderr
