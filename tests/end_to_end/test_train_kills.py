"""Training killed anywhere, then run again: as if it had never been stopped."""

import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.dataset import manifest
from tests.support.kill_steps import kill_before_step
from tests.support.training import outcome
from trainer.recipe import NO_AUGMENTATION, RECIPES

pytestmark = pytest.mark.slow

# Two phases, a schedule, dropout, augmentation, weights: all that has a state.
RECIPE = replace(
    RECIPES["finetune"],
    epochs=3,
    head_epochs=1,
    warmup_epochs=0.5,
    batch_size=8,
    hidden=16,
    precision="float32",
)
# The same without augmentation, and with its features kept in MODEL.
RECIPES_BY_CACHE = {
    "auto": RECIPE,
    "features": replace(RECIPE, augmentation=NO_AUGMENTATION),
}
KILLS = 24

# Processes that have imported TensorFlow, but not started it.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tensorflow", "trainer.train"])


def train(
    dataset: Path, folder: Path, cache: str, kill_before: int | None = None
) -> None:
    """In a process of its own; it ends with the program's exit code."""
    from trainer.options import TrainOptions
    from trainer.train import run

    log = os.open(folder.parent / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
    if kill_before is not None:
        kill_before_step(kill_before)
    options = TrainOptions(
        dataset=dataset,
        model=folder,
        recipe=RECIPES_BY_CACHE[cache],
        weights="none",
        seed=3,
        cpu=True,
        save_minutes=0,  # saved after every step
        cache=cache,
    )
    try:
        run(options)
    except KeyboardInterrupt:
        sys.exit(130)


def start(*arguments: Any) -> BaseProcess:
    process = CONTEXT.Process(target=train, args=arguments)
    process.start()
    return process


def finish(*arguments: Any) -> int | None:
    process = start(*arguments)
    process.join(timeout=300)
    return process.exitcode


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name in ("history", "tensorboard", "models"):
        assert found[name] == expected[name]
    for ours, theirs in zip(found["weights"], expected["weights"], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    untimed = [
        [n for n in one["files"] if "events" not in n] for one in (found, expected)
    ]
    assert untimed[0] == untimed[1]


@pytest.fixture(scope="module", params=list(RECIPES_BY_CACHE))
def cache(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def undisturbed(
    tf, made_dataset: Path, cache: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed") / "model"
    assert finish(made_dataset, folder, cache) == 0
    found = outcome(tf, folder)
    assert [row[0] for row in found["history"]] == [1, 2, 3]
    assert len(set(found["tensorboard"])) == len(found["tensorboard"])
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_random_moments(
    tf,
    made_dataset: Path,
    cache: str,
    undisturbed: dict[str, Any],
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    """Signals until there were KILLS; every run that gets to its end is compared."""
    rng = random.Random(int(number))
    kills = finished = 0
    folder = tmp_path / "model"
    while kills < KILLS or not finished:
        process = start(made_dataset, folder, cache)
        process.join(timeout=rng.uniform(0.5, 8) if kills < KILLS else 300)
        if process.is_alive():
            os.kill(process.pid, number)
            kills += 1
            process.join(timeout=60)
            said = (tmp_path / "log").read_text()[-5000:]
            assert process.exitcode in (0, 130, -number), said
        if process.exitcode == 0:
            assert_same(outcome(tf, folder), undisturbed)
            shutil.rmtree(folder)
            finished += 1
        time.sleep(0.1)


def test_every_step_on_disk(
    tf,
    made_dataset: Path,
    cache: str,
    undisturbed: dict[str, Any],
    tmp_path: Path,
) -> None:
    """Killed before the nth call of the file system, for every third n: inside saves,
    of features, states, snapshots and the result, and between phases."""
    step, done = 0, False
    while not done:
        folder = tmp_path / f"step {step}"
        done = finish(made_dataset, folder, cache, step) == 0
        if not done:
            killed = f"killed before step {step}"
            assert finish(made_dataset, folder, cache) == 0, killed
        assert_same(outcome(tf, folder), undisturbed)
        shutil.rmtree(folder)
        step += 3
    assert step > 40


def test_sigterm_says_how_to_go_on(made_dataset: Path, tmp_path: Path) -> None:
    """The program itself: exit code 130 and one line, after a step has been taken."""
    import subprocess

    words = [
        *(
            f"--dataset={made_dataset}",
            f"--model={tmp_path / 'model'}",
            "--recipe=demo",
        ),
        *("--weights=none", "--cpu", "--batch_size=8", "--epochs=500"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    history = tmp_path / "model" / "history.csv"
    while not history.is_file():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in said
    assert manifest.load(made_dataset).split("train").examples == 24
