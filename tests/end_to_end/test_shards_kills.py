"""`make shards` killed at random moments and at every step: the bytes do not change."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import preprocess
from pipeline.dataset.manifest import ImageContract
from pipeline.options import ShardsOptions
from tests.support.files import REPOSITORY, tree
from tests.support.kill_steps import kill_before_step
from tests.support.photos import HEIGHT, WIDTH, jpeg, photo
from tests.support.processes import descendants

pytestmark = pytest.mark.slow

KILLS = 30
SHARDS = 12


def make(images: Path, folder: Path) -> None:
    """As the command line of `start` does, in this process."""
    preprocess.run(
        ShardsOptions(
            images=images,
            dataset=folder,
            contract=ImageContract(height=HEIGHT, width=WIDTH),
            shards=SHARDS,
            max_reject_fraction=0.1,
            workers=1,
            beam_arguments=["--direct_running_mode=in_memory"],
        )
    )


def start(images: Path, folder: Path) -> subprocess.Popen[bytes]:
    words = [
        *(f"--images={images}", f"--dataset={folder}", f"--shards={SHARDS}"),
        *(f"--height={HEIGHT}", f"--width={WIDTH}", "--max_reject_fraction=0.1"),
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", *words],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with some 300 photos, copies and a broken one among them."""
    root = tmp_path_factory.mktemp("photos") / "images"
    for label in range(3):
        folder = root / f"class {label}"
        folder.mkdir(parents=True)
        for index in range(100):
            data = jpeg(photo(label, index % 90, 600, 800))
            (folder / f"{index}.jpg").write_bytes(data)
    (root / "class 0" / "cut.jpg").write_bytes(data[:5000])
    return root


@pytest.fixture(scope="module")
def undisturbed(photos: Path) -> dict[str, str]:
    folder = photos.parent / "undisturbed"
    make(photos, folder)
    return tree(folder)


def kill_launcher(process: subprocess.Popen[bytes], rng: random.Random) -> None:
    process.kill()


def interrupt(process: subprocess.Popen[bytes], rng: random.Random) -> None:
    process.send_signal(signal.SIGINT)


def kill_something(process: subprocess.Popen[bytes], rng: random.Random) -> None:
    """One of the launcher's processes: Beam, a worker, a helper of Python's."""
    if below := descendants(process.pid):
        try:
            os.kill(rng.choice(below), signal.SIGKILL)
        except ProcessLookupError:
            return


@pytest.mark.parametrize("kill", [kill_launcher, interrupt, kill_something])
def test_random_moments(
    photos: Path, undisturbed: dict[str, str], tmp_path: Path, kill: Callable
) -> None:
    """Kills until there were KILLS; every dataset that gets finished is compared."""
    rng = random.Random(kill.__name__)
    kills = finished = 0
    folder = tmp_path / "made"
    while kills < KILLS or not finished:
        process = start(photos, folder)
        try:
            process.wait(timeout=rng.uniform(0.1, 6) if kills < KILLS else 120)
        except subprocess.TimeoutExpired:
            kill(process, rng)
            kills += 1
            code = process.wait(timeout=120)
            # Killed by SIGINT: it had not even imported what hears it.
            assert code in (0, 1, 130, -signal.SIGINT, -signal.SIGKILL)
        if process.returncode == 0:
            assert tree(folder) == undisturbed
            finished += 1
            shutil.rmtree(folder)
        time.sleep(0.2)


def run_until(step: int, images: Path, folder: Path) -> bool:
    """Runs the job in a forked child that kills itself before its nth step on disk.

    Returns whether the child got to its end.
    """
    child = os.fork()
    if child == 0:
        kill_before_step(step)
        make(images, folder)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status == 0


def test_every_step_on_disk(images: Path, tmp_path: Path) -> None:
    """Killed before the nth file-system call, for every n; then run again."""
    make(images, tmp_path / "undisturbed")
    expected = tree(tmp_path / "undisturbed")
    step, done = 0, False
    while not done:
        folder = tmp_path / f"step {step}"
        done = run_until(step, images, folder)
        if not done:
            make(images, folder)
        assert tree(folder) == expected, f"killed before step {step}"
        shutil.rmtree(folder)
        step += 1
    assert step > 100
