"""A program in the background: known by its file, ended with its children."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.engines.background import BackgroundProcess

SLEEP = ("sleep", "600")


@pytest.fixture
def daemon(tmp_path):
    daemon = BackgroundProcess("sleeper", tmp_path / "run")
    yield daemon
    daemon.stop()


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_daemon_is_known_to_another_launcher(daemon: BackgroundProcess) -> None:
    assert daemon.pid is None
    daemon.start(SLEEP, os.environ)
    assert daemon.pid == BackgroundProcess(daemon.name, daemon.folder).pid is not None
    assert os.getpgid(daemon.pid) == daemon.pid != os.getpgid(0)
    pid = daemon.pid
    assert daemon.stop()
    assert not alive(pid)
    assert not daemon.stop()


def test_children_end_with_it(daemon: BackgroundProcess, tmp_path: Path) -> None:
    note = tmp_path / "child"
    script = f"sleep 600 & echo $! > {note}.part; mv {note}.part {note}; wait"
    daemon.start(["bash", "-c", script], os.environ)
    until(note.is_file)
    child = int(note.read_text())
    assert alive(child)
    daemon.stop()
    until(lambda: not alive(child))


def test_children_of_one_that_was_killed_end_too(
    daemon: BackgroundProcess, tmp_path: Path
):
    note = tmp_path / "child"
    script = f"sleep 600 & echo $! > {note}.part; mv {note}.part {note}; wait"
    daemon.start(["bash", "-c", script], os.environ)
    until(note.is_file)
    child, pid = int(note.read_text()), daemon.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: daemon.pid is None)
    assert alive(child)
    daemon.start(SLEEP, os.environ)  # makes room first
    until(lambda: not alive(child))


def test_one_that_ignores_sigterm_is_killed(
    daemon: BackgroundProcess, monkeypatch, tmp_path
):
    monkeypatch.setattr("tests.support.engines.background._PATIENCE", 0.2)
    note = tmp_path / "deaf"
    script = f"trap '' TERM; touch {note}; while true; do sleep 0.1; done"
    daemon.start(["bash", "-c", script], os.environ)
    until(note.is_file)
    pid = daemon.pid
    daemon.stop()
    until(lambda: not alive(pid))


def test_a_number_that_belongs_to_somebody_else_is_left_alone(
    daemon: BackgroundProcess,
) -> None:
    bystander = subprocess.Popen(SLEEP, start_new_session=True)
    try:
        daemon.folder.mkdir()
        (daemon.folder / "sleeper.pid").write_text(f"{bystander.pid} 1\n")
        assert daemon.pid is None
        assert not daemon.stop()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("text", ["", "12", "12 x", "12 34 56", "twelve 34"])
def test_a_damaged_file_is_no_process(daemon: BackgroundProcess, text: str) -> None:
    daemon.folder.mkdir()
    (daemon.folder / "sleeper.pid").write_text(text)
    assert daemon.pid is None
    assert not daemon.stop()


def test_its_last_words(daemon: BackgroundProcess) -> None:
    assert daemon.last_words() == ""
    daemon.start([sys.executable, "-c", "raise SystemExit('no room\\n')"], os.environ)
    until(lambda: daemon.pid is None)
    assert daemon.last_words() == "no room"
