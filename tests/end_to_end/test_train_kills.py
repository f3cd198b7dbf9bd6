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
from typing import Any, NamedTuple

import numpy as np
import pytest

from pipeline.dataset import manifest
from tests.support.kill_steps import kill_before_step
from tests.support.processes import started
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


class Case(NamedTuple):
    """What a run is given.

    Attributes:
        dataset: DATASET.
        cache: --cache, and the recipe for it.
        extend: MODEL to start from.
    """

    dataset: Path
    cache: str
    extend: Path | None = None


# Processes that have imported TensorFlow, but not started it.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tensorflow", "trainer.train"])


def train(case: Case, folder: Path, kill_before: int | None = None) -> None:
    """In a process of its own."""
    from trainer.options import TrainOptions
    from trainer.train import run

    log = os.open(folder.parent / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
    if kill_before is not None:
        kill_before_step(kill_before)
    options = TrainOptions(
        dataset=case.dataset,
        model=folder,
        recipe=RECIPES_BY_CACHE[case.cache],
        weights=None if case.extend else "none",
        extend=case.extend,
        seed=3,
        cpu=True,
        save_minutes=0,  # saved after every step
        cache=case.cache,
    )
    run(options)


def start(*arguments: Any) -> BaseProcess:
    return started(CONTEXT, train, *arguments)


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


@pytest.fixture(scope="module")
def base(made_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MODEL of the classes of `made_dataset`; not to be changed."""
    folder = tmp_path_factory.mktemp("base") / "model"
    assert finish(Case(made_dataset, "auto"), folder) == 0
    return folder


@pytest.fixture(scope="module", params=[*RECIPES_BY_CACHE, "extended"])
def case(
    request: pytest.FixtureRequest, made_dataset: Path, grown_dataset: Path
) -> Case:
    if request.param == "extended":
        return Case(grown_dataset, "auto", request.getfixturevalue("base"))
    return Case(made_dataset, request.param)


@pytest.fixture(scope="module")
def undisturbed(
    tf, case: Case, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed") / "model"
    assert finish(case, folder) == 0
    found = outcome(tf, folder)
    assert [row[0] for row in found["history"]] == [1, 2, 3]
    assert len(set(found["tensorboard"])) == len(found["tensorboard"])
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_random_moments(
    tf,
    case: Case,
    undisturbed: dict[str, Any],
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    """Signals until there were KILLS; every run that gets to its end is compared."""
    rng = random.Random(int(number))
    kills = finished = 0
    folder = tmp_path / "model"
    while kills < KILLS or not finished:
        process = start(case, folder)
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
    case: Case,
    undisturbed: dict[str, Any],
    tmp_path: Path,
) -> None:
    """Killed before the nth call of the file system, for every third n: inside saves,
    of features, states, snapshots and the result, and between phases."""
    step, done = 0, False
    while not done:
        folder = tmp_path / f"step {step}"
        done = finish(case, folder, step) == 0
        if not done:
            killed = f"killed before step {step}"
            assert finish(case, folder) == 0, killed
        assert_same(outcome(tf, folder), undisturbed)
        shutil.rmtree(folder)
        step += 3
    assert step > 40


def test_a_dataset_that_grows_between_a_kill_and_the_next_run(
    tf, made_dataset: Path, grown_dataset: Path, tmp_path: Path
) -> None:
    """Killed before every tenth step on disk. Once a state is saved, the run goes on
    with the images of then; before that it begins with those of now."""
    whole = {}
    for dataset in (made_dataset, grown_dataset):
        assert finish(Case(dataset, "auto"), tmp_path / "whole") == 0
        whole[dataset] = outcome(tf, tmp_path / "whole")
        shutil.rmtree(tmp_path / "whole")
    step, done, with_state = 0, False, 0
    while not done:
        folder = tmp_path / f"step {step}"
        done = finish(Case(made_dataset, "auto"), folder, step) == 0
        begun = (folder / "checkpoint/state.npz").is_file()
        if not done:
            # A MODEL that was complete when DATASET grew is refused.
            complete = (folder / "model.json").is_file()
            assert finish(Case(grown_dataset, "auto"), folder) == complete
        assert_same(
            outcome(tf, folder), whole[made_dataset if begun else grown_dataset]
        )
        shutil.rmtree(folder)
        with_state += begun
        step += 10
    assert with_state > 3


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
