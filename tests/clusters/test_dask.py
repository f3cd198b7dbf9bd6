"""Dask as several processes: the same bytes, also when a worker is killed."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.files import REPOSITORY, tree
from tests.support.job_service import dask_cluster
from tests.support.photos import HEIGHT, WIDTH
from tests.support.predictions import make_model
from tests.support.processes import Program

pytest.importorskip("distributed", reason="needs the extra dask")

FLAGS = (f"--height={HEIGHT}", f"--width={WIDTH}", "--max_reject_fraction=0.5")


@pytest.fixture
def cluster() -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    with dask_cluster(workers=2) as started:
        yield started


def words(images: Path, dataset: Path, address: str) -> list[str]:
    ours = (f"--images={images}", f"--dataset={dataset}", *FLAGS, "--shards=2")
    there = ("--runner=dask", "--", f"--dask_client_address={address}")
    return ["pipeline", "shards", *ours, *there]


def test_the_same_bytes_twice_on_living_workers(
    cluster: tuple[str, list[subprocess.Popen[bytes]]],
    images: Path,
    made_dataset: Path,
    tf: object,
    tmp_path: Path,
    program: Program,
) -> None:
    address, _ = cluster
    for _ in range(2):
        dataset = tmp_path / "dataset"
        result = program(*words(images, dataset, address))
        assert result.returncode == 0, result.stderr
        assert tree(dataset) == tree(made_dataset)
        for path in dataset.iterdir():
            path.unlink()
    model = make_model(tmp_path, made_dataset, seed=1)
    for out, *there in (
        ("here", "--cpu"),
        ("there", "--runner=dask", "--", f"--dask_client_address={address}"),
    ):
        ours = (f"--model={model}", f"--dataset={made_dataset}")
        result = program("predictor", *ours, f"--predictions={tmp_path / out}", *there)
        assert result.returncode == 0, result.stderr
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


def test_a_killed_worker_costs_nothing(
    cluster: tuple[str, list[subprocess.Popen[bytes]]],
    images: Path,
    made_dataset: Path,
    tmp_path: Path,
) -> None:
    address, workers = cluster
    dataset = tmp_path / "dataset"
    process = subprocess.Popen(
        [sys.executable, "-m", *words(images, dataset, address)],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    begun = dataset / "_work" / "workers"
    while not (begun.is_dir() and len(list(begun.glob("[!.]*"))) == 2):  # both work
        assert process.poll() is None
        time.sleep(0.05)
    workers[0].send_signal(signal.SIGKILL)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert tree(dataset) == tree(made_dataset)
