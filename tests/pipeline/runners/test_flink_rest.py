"""What a Flink cluster says, and what is said where there is none.

The answers of a real one are in test_flink; here they are files of a web server.
"""

import json
import socket
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.runners import flink_rest
from pipeline.system.errors import RunError

TWO = {
    "taskmanagers": [
        {"id": "a", "slotsNumber": 2, "timeSinceLastHeartbeat": 1_795_614_282_516},
        {"id": "b", "slotsNumber": 3, "timeSinceLastHeartbeat": 1_795_614_290_000},
    ]
}


@pytest.fixture
def answers(tmp_path):
    """(address, function that sets what is answered under a path)."""
    root = tmp_path / "answers"
    root.mkdir()

    def answer(path: str, value: object) -> None:
        text = value if isinstance(value, str) else json.dumps(value)
        (root / path).write_text(text)

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=root))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"localhost:{server.server_port}", answer
    server.shutdown()
    server.server_close()


@pytest.fixture
def closed_port():
    """A port where nobody listens; it is bound, so nobody can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_a_cluster_that_agrees(answers, scheme: str) -> None:
    address, answer = answers
    answer("config", {"flink-version": "2.2.1"})
    answer("taskmanagers", TWO)
    flink_rest.check(f"{scheme}{address}", version="2.2")
    flink_rest.check(f"{scheme}{address}", version="2.2.1")


@pytest.mark.parametrize("version", ["1.20", "2.1", "2.20", "2.2.0"])
def test_versions_that_differ(answers, version: str) -> None:
    address, answer = answers
    answer("config", {"flink-version": "2.2.1"})
    answer("taskmanagers", TWO)
    with pytest.raises(
        RunError, match=rf"runs Flink 2\.2\.1, .* made for {version};.*flink-2\.2-job"
    ):
        flink_rest.check(address, version=version)


def test_a_task_manager_that_fell_silent_does_not_count(answers) -> None:
    address, answer = answers
    answer("taskmanagers", TWO)
    assert flink_rest.slots(address) == 5
    assert flink_rest.slots(address, since=1_795_614_282) == 5
    assert flink_rest.slots(address, since=1_795_614_285) == 3
    assert flink_rest.slots(address, since=1_795_614_291) == 0


def test_a_cluster_without_slots(answers) -> None:
    address, answer = answers
    answer("config", {"flink-version": "2.2.1"})
    answer("taskmanagers", {"taskmanagers": []})
    with pytest.raises(RunError, match=rf"{address} has no task slot.*make flink-up"):
        flink_rest.check(address, version="2.2")


def test_a_job_that_wants_more_slots_than_there_are(answers) -> None:
    address, answer = answers
    answer("config", {"flink-version": "2.2.1"})
    answer("taskmanagers", TWO)
    flink_rest.check(address, version="2.2", parallelism=5)
    with pytest.raises(RunError, match=r"has 5 task slots, .* wants 6.*lelism=5 or"):
        flink_rest.check(address, version="2.2", parallelism=6)


def test_nobody_answers(closed_port: int) -> None:
    with pytest.raises(
        RunError, match=rf"localhost:{closed_port}: .*refused.*flink-up"
    ):
        flink_rest.check(f"localhost:{closed_port}", version="2.2")


def test_somebody_else_answers(answers) -> None:
    address, answer = answers
    with pytest.raises(RunError, match=f"no Flink cluster answers at {address}: .*404"):
        flink_rest.config(address)
    answer("config", "<html>a printer</html>")
    with pytest.raises(RunError, match="no Flink cluster answers"):
        flink_rest.config(address)


def test_a_host_that_does_not_exist() -> None:
    with pytest.raises(RunError, match=r"no Flink cluster answers at nowhere\.invalid"):
        flink_rest.slots("nowhere.invalid:8081")


def test_one_that_accepts_and_is_silent(monkeypatch) -> None:
    monkeypatch.setattr(flink_rest, "_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(RunError, match=f"at localhost:{port}: timed out"):
            flink_rest.slots(f"localhost:{port}")


def test_jobs_are_told_in_the_order_of_their_start(answers, tmp_path: Path) -> None:
    address, answer = answers
    (tmp_path / "answers" / "jobs").mkdir()
    jobs = [
        {"jid": "b", "name": "shards", "state": "RUNNING", "start-time": 2},
        {"jid": "a", "name": "shards", "state": "FINISHED", "start-time": 1},
    ]
    answer("jobs/overview", {"jobs": jobs})
    assert list(flink_rest.jobs(address).items()) == [
        ("shards a", "FINISHED"),
        ("shards b", "RUNNING"),
    ]
