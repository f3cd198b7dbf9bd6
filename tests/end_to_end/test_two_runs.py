"""Two runs of a program on one folder: the second is refused, the first undisturbed."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.files import REPOSITORY, tree
from tests.support.photos import HEIGHT, WIDTH, jpeg, photo
from tests.support.predictions import make_model
from tests.support.training import outcome

pytestmark = pytest.mark.slow

# In place of a real file system without locks.
NO_LOCKS = """
import errno, fcntl, os

def flock(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

fcntl.flock = flock
"""


class Program(NamedTuple):
    """A program that fills a folder.

    Attributes:
        words: of its command line, but for the folder.
        flag: that names the folder.
        notes: where in the folder its holder is noted.
        content: of a finished folder, to be compared.
    """

    words: tuple[str, ...]
    flag: str
    notes: str
    content: Callable[[Path], object]

    def start(self, folder: Path, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", *self.words, f"--{self.flag}={folder}"],
            cwd=REPOSITORY,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So many large photos that a run surely takes more than three seconds."""
    root = tmp_path_factory.mktemp("photos") / "images"
    for name in ("a", "b"):
        folder = root / "train" / name
        folder.mkdir(parents=True)
        data = jpeg(photo(0, ord(name), 1200, 1600))
        for index in range(400):
            (folder / f"{index}.jpg").write_bytes(data)
    return root


def shards(photos: Path) -> Program:
    size = (f"--height={HEIGHT}", f"--width={WIDTH}", "--shards=20", "--workers=2")
    words = ("pipeline", "shards", f"--images={photos}", *size)
    return Program(words, "dataset", "_work", tree)


@pytest.fixture(scope="module", params=["shards", "train", "predict"])
def program(
    request: pytest.FixtureRequest, tf, photos: Path, made_dataset: Path
) -> Program:
    if request.param == "shards":
        return shards(photos)
    if request.param == "train":
        options = ("--weights=none", "--recipe=demo", "--epochs=2", "--seed=1", "--cpu")
        words = ("trainer", "train", f"--dataset={made_dataset}", *options)
        return Program(words, "model", "checkpoint", lambda folder: seen(tf, folder))
    model = make_model(photos.parent, made_dataset, seed=0)
    options = ("--split=train", "--cpu", f"--model={model}")
    words = ("predictor", "predict", f"--images={photos}", *options)
    return Program(words, "predictions", "_work", tree)


def seen(tf, folder: Path) -> list[object]:
    found = outcome(tf, folder)
    weights = [weight.tobytes() for weight in found["weights"]]
    return [found["history"], found["models"], weights]


@pytest.fixture(scope="module")
def alone(program: Program, tmp_path_factory: pytest.TempPathFactory) -> object:
    """What the folder holds after a run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("alone") / "made"
    process = program.start(folder)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return program.content(folder)


@pytest.mark.parametrize("seconds", [0, 1, 3])
def test_the_second_is_refused(
    program: Program, alone: object, tmp_path: Path, seconds: float
) -> None:
    folder = tmp_path / "made"
    first = program.start(folder)
    time.sleep(seconds)
    second = program.start(folder)
    ended = {one.pid: one.communicate(timeout=300) for one in (first, second)}
    if not seconds and first.returncode:  # the second one was faster
        first, second = second, first
    assert first.returncode == 0, ended[first.pid]
    assert second.returncode == 1, ended[second.pid]
    errors = ended[second.pid][1]
    holder = f"(host {platform.node()}, pid {first.pid}, since "
    assert f"error: {folder} is in use: another run {holder}" in errors
    assert "Traceback" not in errors
    assert program.content(folder) == alone
    assert not list(folder.rglob(".*"))


def test_it_is_refused_before_anything_is_read(
    program: Program, tmp_path: Path
) -> None:
    """It imports no TensorFlow, and does not list: its inputs are not there."""
    folder = tmp_path / "made"
    first = program.start(folder)
    while not list(folder.rglob(".holder.json")):
        assert first.poll() is None
        time.sleep(0.05)
    words = [f"{w.partition('=')[0]}=gone" if "/" in w else w for w in program.words]
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('TensorFlow!')")
    second = program._replace(words=tuple(words)).start(
        folder, PYTHONPATH=str(tmp_path)
    )
    _, errors = second.communicate(timeout=60)
    assert f"pid {first.pid}, since" in errors
    assert second.returncode == 1
    first.kill()
    first.communicate()


def test_after_a_kill_the_same_command_goes_on_at_once(
    program: Program, alone: object, tmp_path: Path
) -> None:
    """Its children, which may live for a moment, do not hold the folder."""
    folder = tmp_path / "made"
    first = program.start(folder)
    while not (written := list(folder.glob(f"{program.notes}/*[!.]*.*"))):
        assert first.poll() is None
        time.sleep(0.02)
    assert written
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = program.start(folder)
    _, errors = second.communicate(timeout=300)
    assert second.returncode == 0, errors
    assert program.content(folder) == alone
    assert not list(folder.rglob(".*"))
    first.communicate()


def test_without_locks_a_line_says_so(
    program: Program, alone: object, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_LOCKS)
    process = program.start(tmp_path / "made", PYTHONPATH=str(tmp_path))
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert said.count("cannot be told whether another run writes there") == 1
    assert program.content(tmp_path / "made") == alone


def test_overwriting_a_finished_dataset_holds_it(photos: Path, tmp_path: Path) -> None:
    one, folder = shards(photos), tmp_path / "made"
    assert one.start(folder).wait(timeout=300) == 0
    other = one._replace(words=(*one.words, "--overwrite", "--quality=80"))
    first = other.start(folder)
    while not (folder / "_work" / ".holder.json").is_file():
        assert first.poll() is None
        time.sleep(0.02)
    second = other.start(folder)
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 1
    assert f"pid {first.pid}, since" in errors
    _, errors = first.communicate(timeout=300)
    assert first.returncode == 0, errors
    assert json.loads((folder / "dataset.json").read_text())["image"]["quality"] == 80
