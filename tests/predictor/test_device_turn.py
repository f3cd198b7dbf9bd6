"""Turns on the devices of a machine, of threads and of processes."""

import multiprocessing
import threading
import time
from pathlib import Path

import pytest

from predictor.device_turn import device_turn

TURNS = 5


def take_turns(log: Path) -> None:
    for _ in range(TURNS):
        with device_turn(), log.open("a") as file:
            file.write("begins\n")
            file.flush()
            time.sleep(0.02)
            file.write("ends\n")


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path / "log"


def test_threads_take_turns(log: Path) -> None:
    threads = [threading.Thread(target=take_turns, args=[log]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.read_text() == "begins\nends\n" * TURNS * 3


def test_processes_take_turns(log: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=take_turns, args=[log]) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert log.read_text() == "begins\nends\n" * TURNS * 3


def test_a_killed_process_gives_its_turn_back(log: Path) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=take_turns, args=[log])
    process.start()
    while not log.exists():
        time.sleep(0.01)
    process.kill()
    process.join()
    with device_turn():
        pass
