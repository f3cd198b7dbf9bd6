"""What `--runner=flink` is refused for, before Beam is asked."""

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from pipeline.runners.flink import FLINK
from pipeline.system.errors import RunError, UsageError
from tests.support.processes import Program

OPTIONS = {
    "flink_master": "localhost:1",
    "flink_version": "2.2",
    "parallelism": 2,
    "environment_type": "LOOPBACK",
}


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
    assert "`make flink-up`" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "made").exists()


def test_workers_must_be_somewhere() -> None:
    with pytest.raises(UsageError, match=r"--environment_type=LOOPBACK .*EXTERNAL"):
        FLINK.check(OPTIONS | {"environment_type": None})


def test_a_jar_that_is_not_there() -> None:
    with pytest.raises(RunError, match=r"/nowhere\.jar is not there"):
        FLINK.check(OPTIONS | {"flink_job_server_jar": "/nowhere.jar"})


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
