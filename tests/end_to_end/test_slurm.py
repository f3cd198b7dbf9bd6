"""docs/train.sbatch: the signals of SLURM, the exit codes of a real training, requeue.

SLURM itself is not here: `scontrol` notes what it is told.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.files import REPOSITORY

SCRIPT = REPOSITORY / "docs" / "train.sbatch"
FLAGS = ("--recipe=demo", "--weights=none", "--batch_size=8", "--epochs=500", "--cpu")
Start = Callable[..., subprocess.Popen]


@pytest.fixture
def start(made_dataset: Path, tmp_path: Path) -> Start:
    """Starts the script as SLURM would, in a shell of its own."""
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (tmp_path / "scontrol").chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "DATASET": str(made_dataset),
        "MODEL": str(tmp_path / "model"),
        "SLURM_JOB_ID": "7",
    }

    def start(*flags: str) -> subprocess.Popen:
        with (tmp_path / "log").open("ab") as log:
            return subprocess.Popen(
                ["bash", str(SCRIPT), *flags],
                cwd=REPOSITORY,
                env=environment,
                stdout=log,
                stderr=log,
            )

    return start


def wait_for(text: str, log: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while text not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_job_near_its_limit_is_saved_and_requeued_and_a_preempted_one_saved(
    start: Start, tmp_path: Path
) -> None:
    log, asked = tmp_path / "log", tmp_path / "asked"
    job = start(*FLAGS)
    wait_for("epoch 1: loss", log, job)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=300) == 130
    assert asked.read_text() == "requeue 7\n"
    assert "is saved; the same command goes on" in log.read_text()

    log.write_text("")
    job = start(*FLAGS)
    wait_for("going on after", log, job)
    wait_for(" of 24 images", log, job)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=300) == 130
    assert asked.read_text() == "requeue 7\n"


def test_a_job_that_fails_is_not_requeued(start: Start, tmp_path: Path) -> None:
    assert start("--recipe=unknown").wait(timeout=300) == 2
    assert start(*FLAGS, "--batch_size=4096").wait(timeout=300) == 1
    assert not (tmp_path / "asked").exists()
