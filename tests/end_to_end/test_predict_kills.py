"""Predictions killed anywhere, then run again: the bytes of a run that never was."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pandas as pd
import pytest

from tests.support.files import REPOSITORY, tree
from tests.support.kill_steps import kill_before_step
from tests.support.photos import HEIGHT, WIDTH, jpeg, photo
from tests.support.processes import descendants, started

pytestmark = pytest.mark.slow

PHOTOS = 1000
BAD = 20

# Processes that have imported TensorFlow, but not started it.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["tensorflow", "predictor.predict", "predictor.forward_pass", "trainer.model"]
)


def predict(model: Path, folder: Path, source: dict, environment: dict) -> None:
    """In a process of its own; it ends with the program's exit code."""
    from pipeline.system.errors import RunError
    from predictor import predict
    from predictor.format.file_format import Format
    from predictor.options import PredictionRequest, PredictOptions

    log = os.open(folder.parent / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
    os.environ.update(environment)
    sys.path += environment.get("PYTHONPATH", "").split()  # what children are given
    if step := environment.get("KILL_PARENT_BEFORE"):
        kill_before_step(int(step))
    order = PredictionRequest(
        model=model, folder=folder, format=Format(), max_reject_fraction=1, **source
    )
    try:
        predict.run(PredictOptions(request=order, batch_size=2, writers=2, cpu=True))
    except KeyboardInterrupt:
        sys.exit(130)
    except RunError:
        sys.exit(1)


def start(*arguments: object) -> BaseProcess:
    return started(CONTEXT, predict, *arguments, {})


def assert_gone(processes: list[int]) -> None:
    deadline = time.monotonic() + 30
    while left := [pid for pid in processes if os.path.exists(f"/proc/{pid}")]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A test split, with some broken photos."""
    root = tmp_path_factory.mktemp("photos") / "images"
    folder = root / "test"
    folder.mkdir(parents=True)
    for number in range(PHOTOS):
        pixels = photo(number % 3, number, 240, 300)
        (folder / f"{number:04d}.jpg").write_bytes(jpeg(pixels))
    for number in range(BAD):
        (folder / f"{number * 50:04d} bad.jpg").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module", params=["dataset", "images"])
def source(request: pytest.FixtureRequest, photos: Path) -> dict[str, Path]:
    """What is predicted: the photos, or a DATASET of them."""
    if request.param == "images":
        return {"images": photos}
    from pipeline import preprocess
    from pipeline.dataset.manifest import ImageContract
    from pipeline.options import ShardsOptions

    dataset = photos.parent / "dataset"
    preprocess.run(
        ShardsOptions(
            images=photos,
            dataset=dataset,
            contract=ImageContract(height=HEIGHT, width=WIDTH),
            shards=12,
            max_reject_fraction=0.1,
            workers=1,
        )
    )
    return {"dataset": dataset}


@pytest.fixture(scope="module")
def undisturbed(
    model: Path, source: dict, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("undisturbed") / "predictions"
    process = start(model, folder, source)
    process.join(timeout=300)
    assert process.exitcode == 0
    shards = sorted(folder.glob("predictions-*.csv"))
    assert len(shards) >= 12
    frame = pd.concat(map(pd.read_csv, shards))
    assert sorted(frame.id) == [f"{number:04d}.jpg" for number in range(PHOTOS)]
    return tree(folder)


def kill_everything_at_once(process: BaseProcess, rng: random.Random) -> None:
    process.kill()


def interrupt(process: BaseProcess, rng: random.Random) -> None:
    """As Ctrl-C does: the processes that it started hear it, too."""
    for pid in [*descendants(process.pid), process.pid]:
        send(pid, signal.SIGINT)


def terminate(process: BaseProcess, rng: random.Random) -> None:
    process.terminate()


def kill_something(process: BaseProcess, rng: random.Random) -> None:
    """A writer, or a decoder, which costs nothing."""
    if below := descendants(process.pid):
        send(rng.choice(below), signal.SIGKILL)


def send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


@pytest.mark.parametrize(
    ("disturb", "times", "codes"),
    [
        (kill_everything_at_once, 32, {-signal.SIGKILL}),
        (interrupt, 12, {130}),
        (terminate, 12, {130, -signal.SIGTERM}),
        (kill_something, 16, {0, 1}),
    ],
)
def test_random_moments(
    model: Path,
    source: dict,
    undisturbed: dict[str, str],
    tmp_path: Path,
    disturb: Callable,
    times: int,
    codes: set[int],
) -> None:
    """Disturbed so many times; every run that gets to its end is compared."""
    rng = random.Random(f"{disturb.__name__} {list(source)}")
    disturbed = finished = stopped = 0
    folder = tmp_path / "predictions"
    while disturbed < times or not finished:
        process = start(model, folder, source)
        process.join(timeout=rng.uniform(0.2, 5) if disturbed < times else 300)
        below = descendants(process.pid)
        if process.is_alive():
            disturb(process, rng)
            disturbed += 1
            process.join(timeout=120)
            assert process.exitcode in {0, *codes}, (tmp_path / "log").read_text()
            stopped += process.exitcode != 0
        assert_gone(below)
        if process.exitcode == 0:
            assert tree(folder) == undisturbed
            shutil.rmtree(folder)
            finished += 1
    said = (tmp_path / "log").read_text()
    assert "Traceback" not in said, said
    assert stopped > times / 8
    print(f"{disturb.__name__}: {disturbed} times, {stopped} stopped, {finished} ended")


DEFECT = f"""
import os, sys

if "child_process" in " ".join(sys.orig_argv) and "KILL_WRITER_BEFORE" in os.environ:
    sys.path.insert(0, {str(REPOSITORY)!r})
    from tests.support.kill_steps import kill_before_step

    kill_before_step(int(os.environ["KILL_WRITER_BEFORE"]))
"""


@pytest.mark.parametrize("victim", ["PARENT", "WRITER"])
def test_every_step_on_disk(
    model: Path, made_dataset: Path, tmp_path: Path, victim: str
) -> None:
    """Killed before its nth call of the file system, for every n; then run again.

    `sitecustomize` reaches the writers.
    """
    (tmp_path / "defect").mkdir()
    (tmp_path / "defect" / "sitecustomize.py").write_text(DEFECT)
    source = {"dataset": made_dataset}

    def run(folder: Path, environment: dict[str, str]) -> int | None:
        arguments = (model, folder, source, environment)
        process = CONTEXT.Process(target=predict, args=arguments)
        process.start()
        process.join(timeout=300)
        return process.exitcode

    assert run(tmp_path / "undisturbed", {}) == 0
    expected = tree(tmp_path / "undisturbed")
    step, code = 0, None
    while code != 0:
        folder = tmp_path / f"step {step}"
        defect = {"PYTHONPATH": str(tmp_path / "defect")}
        code = run(folder, {f"KILL_{victim}_BEFORE": str(step), **defect})
        assert code in (0, 1 if victim == "WRITER" else -signal.SIGKILL)
        if code != 0:
            assert run(folder, {}) == 0
        assert tree(folder) == expected, f"killed before step {step}"
        shutil.rmtree(folder)
        step += 1
    assert step > 5
    print(f"{victim}: {step - 1} steps")


def until_imported(process: subprocess.Popen[str], folder: Path) -> bool:
    return "tensorflow" in Path(f"/proc/{process.pid}/maps").read_text()


def until_loading(process: subprocess.Popen[str], folder: Path) -> bool:
    return process.stdout.readline().startswith("replicas: 1")


def until_at_work(process: subprocess.Popen[str], folder: Path) -> bool:
    return any(folder.glob("predictions-*.csv"))


@pytest.mark.parametrize("until", [until_imported, until_loading, until_at_work])
def test_ctrl_c_is_a_line(
    model: Path, photos: Path, tmp_path: Path, until: Callable
) -> None:
    """The program itself, with all of its processes."""
    folder = tmp_path / "predictions"
    words = [f"--model={model}", f"--images={photos}", f"--predictions={folder}"]
    words.append("--max_reject_fraction=1")
    process = subprocess.Popen(
        [sys.executable, "-m", "predictor", *words, "--cpu", "--batch_size=1"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not until(process, folder):
        assert process.poll() is None
        time.sleep(0.01)
    below = descendants(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "error: interrupted. What was committed is kept" in errors
    assert_gone(below)
