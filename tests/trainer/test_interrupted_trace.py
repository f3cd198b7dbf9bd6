"""A signal at the worst moment of a run: while a strategy starts its threads."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.files import REPOSITORY

pytestmark = pytest.mark.integration

# A strategy traces a step in a thread of its own, which waits for the main thread. What
# the main thread raises between the thread's start and the wait leaves it waiting, and
# Python waits for it at the end of the process.
SCRIPT = """
import os, runpy, signal, sys
from tensorflow.python.distribute import mirrored_run
from trainer.cache import feature_extraction
from trainer.training import loop

where, *words = sys.argv[1:]
owner, name = {
    "validation": (loop.Loop, "evaluate"),
    "extraction": (feature_extraction, "_extract"),
}[where]
original, begun = getattr(owner, name), []
start = mirrored_run._MirroredReplicaThread.start

def begin(*arguments, **options):
    begun.append(where)
    return original(*arguments, **options)

def start_and_interrupt(thread):
    start(thread)
    if begun:
        os.kill(os.getpid(), signal.SIGINT)

setattr(owner, name, begin)
mirrored_run._MirroredReplicaThread.start = start_and_interrupt
sys.argv = ["trainer", *words]
runpy.run_module("trainer", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("where", "cache"), [("validation", "decoded"), ("extraction", "features")]
)
def test_a_process_ends(
    made_dataset: Path, tmp_path: Path, where: str, cache: str
) -> None:
    words = [
        *(f"--dataset={made_dataset}", f"--model={tmp_path / 'model'}", "--cpu"),
        *("--recipe=article", "--weights=none", "--batch_size=8", "--epochs=1"),
        f"--cache={cache}",
    ]
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, where, *words],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=120,
        check=False,
    )
    assert result.returncode == 130, result.stderr[-3000:]
    assert "is saved; the same command goes on" in result.stdout
