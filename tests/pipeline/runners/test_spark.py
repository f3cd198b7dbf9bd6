"""What `--runner=spark` is refused for, before Beam is asked.

The answers of real masters are in tests/clusters; here they are files of a web server.
"""

import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.runners import execution
from pipeline.runners.spark import SPARK
from pipeline.system.errors import RunError, UsageError
from tests.support.answers import Answers

PAGE = '<span class="version" style="margin-right: 15px;">3.5.6</span>'


@pytest.fixture
def master() -> Iterator[str]:
    """Where somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"spark://localhost:{server.getsockname()[1]}"


@pytest.fixture
def options(answers: Answers, master: str) -> dict[str, object]:
    """Options for a master that agrees with them."""
    answers.give("index.html", PAGE)
    state = {"url": master, "aliveworkers": 2, "cores": 2}
    answers.give("json/index.html", state)
    return {
        "spark_master_url": master,
        "spark_page": f"http://{answers.address}",
        "environment_type": "LOOPBACK",
        "job_server_java_launcher": "sh",
    }


def job_server(path: Path, version: str) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("spark-version-info.properties", f"version={version}\n")
    return str(path)


@pytest.mark.parametrize("version", ["3.5.6", "3.5.0"])
def test_a_cluster_that_agrees(
    options: dict[str, object], tmp_path: Path, version: str
) -> None:
    SPARK.check(options)
    jar = job_server(tmp_path / "a.jar", version)
    SPARK.check(options | {"spark_job_server_jar": jar})


def test_a_job_server_of_another_spark(
    options: dict[str, object], tmp_path: Path
) -> None:
    jar = job_server(tmp_path / "a.jar", "3.4.4")
    with pytest.raises(RunError, match=r"runs Spark 3\.5\.6.* was made for 3\.4\.4;"):
        SPARK.check(options | {"spark_job_server_jar": jar})


def test_what_is_no_jar(options: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(
        RunError, match=r"/nowhere\.jar is not there.*spark-3-job-server"
    ):
        SPARK.check(options | {"spark_job_server_jar": "/nowhere.jar"})


def test_no_worker(options: dict[str, object], answers: Answers, master: str) -> None:
    state = {"url": master, "aliveworkers": 0, "cores": 0}
    answers.give("json/index.html", state)
    with pytest.raises(RunError, match=f"={master} has no worker.*start-worker"):
        SPARK.check(options)


def test_a_page_of_another_master(options: dict[str, object], answers: Answers) -> None:
    state = {"url": "spark://other:1", "aliveworkers": 0, "cores": 0}
    answers.give("json/index.html", state)
    with pytest.raises(RunError, match=r"--spark_page=.* is of .* spark://other:1"):
        SPARK.check(options)


def test_a_page_that_is_none(options: dict[str, object], answers: Answers) -> None:
    """The one that is tried where none is named may be anything."""
    answers.give("json/index.html", "<html>a printer</html>")
    with pytest.raises(RunError, match="no page of a Spark master is at --spark_page"):
        SPARK.check(options)
    SPARK.check(options | {"spark_page": None})


def test_no_master(options: dict[str, object]) -> None:
    with pytest.raises(RunError, match="nothing answers at --spark_master_url=localh"):
        SPARK.check(options | {"spark_master_url": "spark://localhost:1"})


def test_workers_must_be_somewhere(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"--runner=spark needs .*environment_type="):
        SPARK.check(options | {"environment_type": None})


@pytest.mark.parametrize("master", ["local", "local[4]", "yarn"])
def test_what_is_no_standalone_cluster_is_left_alone(
    options: dict[str, object], master: str
) -> None:
    SPARK.check(options | {"spark_master_url": master})


def test_options_of_the_job_server_are_handed_on() -> None:
    inside = ("--spark_master_url=local", "--storage_level=DISK_ONLY")
    options = execution.engine_options("spark", inside, 3, {}).get_all_options(
        retain_unknown_options=True
    )
    assert options["storage_level"] == "DISK_ONLY"
    assert "-Dspark.default.parallelism=24" in options["job_server_jvm_properties"]
    with pytest.raises(UsageError, match="knows no option --storage_lovel"):
        execution.engine_options("spark", ["--storage_lovel=1"], 1, {})
