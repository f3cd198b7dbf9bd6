"""Each engine as several processes: the same bytes, also when one of them is killed.

A job that is refused says so within seconds; the deadline of `program` is for hanging.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners.runner import create_runner

from pipeline.runners import execution
from tests.support.engines import downloads
from tests.support.engines.__main__ import ENGINES
from tests.support.engines.cluster import Cluster
from tests.support.engines.dask import Dask
from tests.support.engines.flink import Flink
from tests.support.engines.spark import Spark
from tests.support.files import REPOSITORY, tree
from tests.support.photos import HEIGHT, WIDTH, jpeg, photo
from tests.support.predictions import make_model
from tests.support.processes import Program, children, wait_for_shards

# A job of small photos would be over before anything is killed.
SLOW = """
import time
import simplejpeg

sound = simplejpeg.decode_jpeg

def decode_jpeg(*args, **kwargs):
    time.sleep(0.2)
    return sound(*args, **kwargs)

simplejpeg.decode_jpeg = decode_jpeg
"""
FLAGS = (f"--height={HEIGHT}", f"--width={WIDTH}", "--max_reject_fraction=0.5")
SECONDS = 300  # after which something that must happen will not

engines = pytest.mark.parametrize("name", sorted(ENGINES))


@pytest.fixture(scope="module", params=sorted(ENGINES))
def started(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "sitecustomize.py").write_text(SLOW)
    slow = {"PYTHONPATH": str(folder)}
    with up(ENGINES[request.param](folder / "run", environment=slow)) as cluster:
        yield cluster


@pytest.fixture
def cluster(started: Cluster) -> Cluster:
    """The cluster, whole, whatever the test before did to it."""
    started.up()
    return started


@contextlib.contextmanager
def up(cluster: Cluster) -> Iterator[Cluster]:
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


@pytest.fixture(scope="module")
def locally(
    images: Path, tmp_path_factory: pytest.TempPathFactory, program: Program
) -> Path:
    """DATASET of the local runner."""
    dataset = tmp_path_factory.mktemp("locally") / "dataset"
    succeed(program(*shards(images, dataset)))
    return dataset


def shards(images: Path, dataset: Path, *more: str) -> list[str]:
    where = (f"--images={images}", f"--dataset={dataset}")
    return ["pipeline", "shards", *where, *FLAGS, "--shards=8", *more]


def on(cluster: Cluster, *more: str) -> list[str]:
    return [f"--runner={cluster.engine}", "--", *cluster.options(), *more]


def succeed(result: subprocess.CompletedProcess[str]) -> None:
    assert result.returncode == 0, result.stderr


@contextlib.contextmanager
def at_work(
    cluster: Cluster, images: Path, dataset: Path, *more: str
) -> Iterator[subprocess.Popen[str]]:
    """A job, from when some of its shards are committed, but not all."""
    with subprocess.Popen(
        [sys.executable, "-m", *shards(images, dataset, *on(cluster, *more))],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            wait_for_shards(dataset, process)
            yield process
        finally:
            process.kill()


def idle(cluster: Cluster) -> bool:
    """Whether no job runs."""
    if isinstance(cluster, Spark):
        return cluster.ask()["activeapps"] == []
    if isinstance(cluster, Flink):
        jobs = cluster.ask("jobs/overview")["jobs"]
        return {job["state"] for job in jobs} <= {"FINISHED", "CANCELED", "FAILED"}
    import distributed

    (option,) = cluster.options()
    with distributed.Client(option.partition("=")[2]) as client:
        return not any(client.processing().values())


def job_servers() -> set[str]:
    """The processes that run a job server of Beam."""
    found = subprocess.run(["pgrep", "-f", "_job_server-.*jar"], capture_output=True)
    return set(found.stdout.decode().split())


def test_the_same_bytes_twice_on_living_workers(
    cluster: Cluster, images: Path, locally: Path, tmp_path: Path, program: Program
) -> None:
    """No run leaves its job server behind."""
    dataset, before = tmp_path / "dataset", job_servers()
    for _ in range(2):
        succeed(program(*shards(images, dataset, *on(cluster))))
        assert tree(dataset) == tree(locally)
        shutil.rmtree(dataset)
    assert job_servers() == before


def test_predictions_are_the_same(
    cluster: Cluster, locally: Path, tf: object, tmp_path: Path, program: Program
) -> None:
    model = make_model(tmp_path, locally, seed=1)
    words = ("predictor", f"--model={model}", f"--dataset={locally}")
    for out, where in (("here", ["--cpu"]), ("there", on(cluster))):
        succeed(program(*words, f"--predictions={tmp_path / out}", *where))
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


def test_what_is_added_is_the_same(
    cluster: Cluster, images: Path, locally: Path, tmp_path: Path, program: Program
) -> None:
    """New photos by --append, and a reject that is good now by `retry`."""
    photos = Path(shutil.copytree(images, tmp_path / "images"))
    here = Path(shutil.copytree(locally, tmp_path / "here"))
    there = Path(shutil.copytree(locally, tmp_path / "there"))
    red = photos / "train" / "red"
    for index in range(6):
        (red / f"new {index}.jpg").write_bytes(jpeg(photo(0, 5000 + index)))
    for dataset, where in ((here, []), (there, on(cluster))):
        succeed(program(*shards(photos, dataset, "--append", *where)))
    (red / "cut.jpg").write_bytes(jpeg(photo(0, 6000)))
    for dataset, where in ((here, []), (there, on(cluster))):
        flags = (f"--images={photos}", f"--dataset={dataset}")
        succeed(program("pipeline", "retry", *flags, *where))
    assert list(there.glob("train-g02-*"))
    assert tree(there) == tree(here)


@pytest.mark.parametrize("victim", ["worker", "executor"])
def test_what_is_killed_costs_nothing(
    cluster: Cluster, images: Path, locally: Path, tmp_path: Path, victim: str
) -> None:
    """A worker, or the process that Spark's workers start for a job."""
    dataset, worker = tmp_path / "dataset", cluster.process("worker-1").pid
    assert worker is not None
    if victim == "executor" and not isinstance(cluster, Spark):
        pytest.skip("it has no executors")
    # Else a job that uses every slot of Flink waits for another task manager.
    flink = ["--execution_mode_for_batch=BATCH_FORCED"]
    more = flink if isinstance(cluster, Flink) else []
    with at_work(cluster, images, dataset, *more) as job:
        # An executor of the job before may be there, too.
        for killed in [worker] if victim == "worker" else children(worker):
            os.kill(killed, signal.SIGKILL)
        assert not (dataset / "dataset.json").exists()
        _, said = job.communicate(timeout=SECONDS)
    assert job.returncode == 0, said
    assert tree(dataset) == tree(locally)


def test_an_interrupted_job_is_cancelled_and_gone_on_with(
    cluster: Cluster, images: Path, locally: Path, tmp_path: Path, program: Program
) -> None:
    dataset, before = tmp_path / "dataset", job_servers()
    with at_work(cluster, images, dataset) as job:
        job.send_signal(signal.SIGINT)
        _, said = job.communicate(timeout=SECONDS)
    assert job.returncode == 130, said
    assert job_servers() == before
    deadline = time.monotonic() + SECONDS
    while not idle(cluster):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert not (dataset / "dataset.json").exists()
    succeed(program(*shards(images, dataset, *on(cluster))))
    assert tree(dataset) == tree(locally)


@pytest.fixture
def refused(images: Path, tmp_path: Path, program: Program) -> Callable[..., str]:
    """Runs a job that must be refused, on an engine; returns what is said."""

    def run(cluster: Cluster, *more: str) -> str:
        result = program(*shards(images, tmp_path / "dataset", *on(cluster, *more)))
        assert result.returncode == 1, result.stderr
        assert "Traceback" not in result.stderr
        assert not (tmp_path / "dataset").exists()
        return result.stderr

    return run


@engines
def test_no_cluster_is_refused(
    refused: Callable[..., str], name: str, tmp_path: Path
) -> None:
    cluster = ENGINES[name](tmp_path / name)
    cluster.fetch()
    cluster.take_ports()
    said = {
        "dask": "no Dask scheduler answers at --dask_client_address=tcp://127.0.0.1:",
        "flink": "no Flink cluster answers at localhost:",
        "spark": "nothing answers at --spark_master_url=",
    }
    assert said[name] in refused(cluster)


@engines
def test_a_cluster_without_workers_is_refused(
    refused: Callable[..., str], name: str, tmp_path: Path
) -> None:
    said = {
        "dask": "has no worker. Start some",
        "flink": "has no task slot",
        "spark": "has no worker. Start one",
    }
    with up(ENGINES[name](tmp_path / name, workers=0)) as cluster:
        assert said[name] in refused(cluster)


def test_another_version_of_flink_is_refused(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    with up(Flink(tmp_path / "flink", workers=1)) as cluster:
        said = refused(cluster, "--flink_version=1.20")
    assert "runs Flink 1.19.3, and the job server was made for 1.20" in said


def test_another_version_of_spark_is_refused(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    jar = tmp_path / "job-server.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr("spark-version-info.properties", "version=3.4.4\n")
    with up(Spark(tmp_path / "spark", workers=1)) as cluster:
        said = refused(cluster, f"--spark_job_server_jar={jar}")
    assert f"runs Spark 3.5.6, and the job server {jar} was made for 3.4.4" in said


@pytest.mark.parametrize("older", ["scheduler", "worker"])
def test_another_version_of_dask_is_refused(
    refused: Callable[..., str], tmp_path: Path, older: str
) -> None:
    pinned = ("dask==2026.7.1", "distributed==2026.7.1")
    path = {"PYTHONPATH": str(downloads.python_packages(*pinned))}
    workers = 2 if older == "scheduler" else 1
    older_dask = Dask(tmp_path / "older", workers=workers, environment=path)
    if older == "scheduler":
        with up(older_dask):
            said = refused(older_dask)
    else:
        with up(Dask(tmp_path / "dask", workers=1)) as cluster:
            older_dask.ports = cluster.ports
            try:
                older_dask.start(["worker-1"])
                said = refused(cluster)
            finally:
                older_dask.down()
    assert f"the {older} " in said
    assert "has dask 2026.7.1, distributed 2026.7.1, Python 3.11, and this" in said


@pytest.mark.parametrize("name", ["flink", "spark"])
def test_the_job_server_knows_what_is_handed_on(name: str, tmp_path: Path) -> None:
    cluster = ENGINES[name](tmp_path / name)
    cluster.fetch()
    cluster.take_ports()
    options = PipelineOptions(cluster.options())
    runner = create_runner(execution.RUNNERS[name])
    server = runner.default_job_server(options)
    try:
        asked = beam_job_api_pb2.DescribePipelineOptionsRequest()
        told = server.start().DescribePipelineOptions(asked).options
    finally:
        server.stop()
    assert execution.engine(name).server_options <= {option.name for option in told}
