"""What `--runner=flink` is refused for, before Beam is asked.

The answers of real clusters are in tests/clusters; here they are files of a web server.
"""

import os
import socket
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from pipeline.runners import flink
from pipeline.runners.flink import FLINK
from pipeline.system.errors import RunError, UsageError
from tests.support.answers import Answers
from tests.support.processes import Program

OPTIONS = {
    "flink_master": "localhost:1",
    "flink_version": "2.2",
    "parallelism": 2,
    "environment_type": "LOOPBACK",
    "job_server_java_launcher": "sh",
}
TWO = {"taskmanagers": [{"slotsNumber": 2}, {"slotsNumber": 3}]}
BEAM = flink._BEAM


def test_a_cluster_that_is_not_there(
    images: Path, tmp_path: Path, program: Program
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # free again in a moment
    words = ("pipeline", f"--images={images}", f"--dataset={tmp_path / 'made'}")
    there = (f"--flink_master=localhost:{port}", "--environment_type=LOOPBACK")
    result = program(*words, "--runner=flink", "--", *there)
    assert result.returncode == 1
    assert f"no Flink cluster answers at localhost:{port}: " in result.stderr
    assert "Connection refused" in result.stderr
    assert "`make cluster-up ENGINE=flink`" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "made").exists()


def agreeing(answers: Answers) -> dict[str, object]:
    """Options for a cluster that agrees with them."""
    answers.give("config", {"flink-version": "2.2.1"})
    answers.give("taskmanagers", TWO)
    return OPTIONS | {"flink_master": answers.address}


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_a_cluster_that_agrees(answers: Answers, scheme: str) -> None:
    options = agreeing(answers) | {"flink_master": f"{scheme}{answers.address}"}
    FLINK.check(options)
    FLINK.check(options | {"flink_version": "2.2.1", "parallelism": 5})


@pytest.mark.parametrize("version", ["1.20", "2.1", "2.20", "2.2.0"])
def test_versions_that_differ(answers: Answers, version: str) -> None:
    with pytest.raises(
        RunError, match=rf"runs Flink 2\.2\.1, .* made for {version};.*flink-2\.2-job"
    ):
        FLINK.check(agreeing(answers) | {"flink_version": version})


def test_a_cluster_without_slots(answers: Answers) -> None:
    options = agreeing(answers)
    answers.give("taskmanagers", {"taskmanagers": []})
    with pytest.raises(RunError, match=r"has no task slot.*taskmanager.sh start"):
        FLINK.check(options)


def test_a_job_that_wants_more_slots_than_there_are(answers: Answers) -> None:
    with pytest.raises(RunError, match=r"has 5 task slots, .* wants 6.*lelism=5 or"):
        FLINK.check(agreeing(answers) | {"parallelism": 6})


def test_somebody_else_answers(answers: Answers) -> None:
    options = OPTIONS | {"flink_master": answers.address}
    with pytest.raises(RunError, match=f"answers at {answers.address}: .*404"):
        FLINK.check(options)
    answers.give("config", "<html>a printer</html>")
    with pytest.raises(RunError, match="no Flink cluster answers"):
        FLINK.check(options)


def test_a_host_that_does_not_exist() -> None:
    with pytest.raises(RunError, match=r"no Flink cluster answers at nowhere\.invalid"):
        FLINK.check(OPTIONS | {"flink_master": "nowhere.invalid:8081"})


def test_one_that_accepts_and_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flink, "_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = f"localhost:{server.getsockname()[1]}"
        with pytest.raises(RunError, match=f"at {there}: timed out"):
            FLINK.check(OPTIONS | {"flink_master": there})


def test_no_java(answers: Answers) -> None:
    with pytest.raises(RunError, match=r"there is no `/nowhere/java` here.*launcher="):
        FLINK.check(agreeing(answers) | {"job_server_java_launcher": "/nowhere/java"})


def test_no_pool(answers: Answers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        pool = f"localhost:{server.getsockname()[1]}"
        there = {"environment_type": "EXTERNAL", "environment_config": pool}
        FLINK.check(agreeing(answers) | there)
    with pytest.raises(RunError, match=f"at --environment_config={pool}: .*refused"):
        FLINK.check(agreeing(answers) | there)


def test_workers_must_be_somewhere() -> None:
    with pytest.raises(UsageError, match=r"--environment_type=LOOPBACK .*EXTERNAL"):
        FLINK.check(OPTIONS | {"environment_type": None})


def test_a_jar_that_is_not_there() -> None:
    with pytest.raises(RunError, match=r"/nowhere\.jar is not there"):
        FLINK.check(OPTIONS | {"flink_job_server_jar": "/nowhere.jar"})


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (f"beam-runners-flink-1.20-job-server-{BEAM}.jar", "Flink 1.20 "),
        ("beam-runners-flink-2.2-job-server-2.60.0.jar", "Flink 2.2 and Beam 2.60.0"),
    ],
)
def test_a_job_server_of_other_versions(tmp_path: Path, name: str, found: str) -> None:
    jar = zipped(tmp_path / name)
    with pytest.raises(RunError, match=f"made for {found}.*here are Flink 2.2 and"):
        FLINK.check(OPTIONS | {"flink_job_server_jar": str(jar)})


def test_a_job_server_of_ones_own(answers: Answers, tmp_path: Path) -> None:
    right = f"beam-runners-flink-2.2-job-server-{BEAM}.jar"
    for name in (right, "built-by-us.jar"):
        jar = zipped(tmp_path / name)
        FLINK.check(agreeing(answers) | {"flink_job_server_jar": str(jar)})
    text = tmp_path / "text.jar"
    text.write_text("no jar")
    with pytest.raises(RunError, match=rf"text.jar is no jar\. .* the file {right} of"):
        FLINK.check(OPTIONS | {"flink_job_server_jar": str(text)})


def zipped(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "a")
    return path


@pytest.mark.parametrize("master", ["[auto]", "[local]"])
def test_a_job_server_that_is_flink_itself(master: str) -> None:
    FLINK.check(OPTIONS | {"flink_master": master})


def test_a_job_service_knows_its_cluster() -> None:
    service = grpc.server(ThreadPoolExecutor(1))
    endpoint = f"127.0.0.1:{service.add_insecure_port('127.0.0.1:0')}"
    service.start()
    try:
        FLINK.check(OPTIONS | {"job_endpoint": endpoint})
    finally:
        service.stop(None)


@pytest.mark.parametrize("options", [(), ("--prism_location=/nowhere/prism",)])
def test_prism_is_not_downloaded(
    options: tuple[str, ...], images: Path, tmp_path: Path, program: Program
) -> None:
    """Beam would fetch what it does not find, and run it."""
    environment = os.environ | {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    made = tmp_path / "made"
    words = ("pipeline", "shards", f"--images={images}", f"--dataset={made}")
    there = ("--runner=PrismRunner", "--", *options)
    result = program(*words, *there, env=environment)
    assert result.returncode in (1, 2)
    assert "make prism" in result.stderr
    assert not (tmp_path / ".apache_beam").exists()
    assert not made.exists()


def test_an_option_of_the_job_server_is_handed_on() -> None:
    from pipeline.runners import execution

    inside = ("--flink_master=[local]", "--execution_mode_for_batch=BATCH_FORCED")
    options = execution.engine_options("flink", inside, 1, {})
    assert (
        options.get_all_options(retain_unknown_options=True)["execution_mode_for_batch"]
        == "BATCH_FORCED"
    )
    with pytest.raises(UsageError, match="knows no option --execution_mode_for_bitch"):
        execution.engine_options("flink", ["--execution_mode_for_bitch=1"], 1, {})
    with pytest.raises(UsageError, match="knows no option --execution_mode_for_batch"):
        execution.beam_options(inside, workers=1)
