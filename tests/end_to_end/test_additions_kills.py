"""`make shards ARGS=--append` and `make retry`, killed: the bytes do not change."""

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline import additions, preprocess
from pipeline.dataset import manifest
from pipeline.dataset.manifest import ImageContract
from pipeline.options import RetryOptions, ShardsOptions
from pipeline.system.errors import RunError
from tests.support.files import REPOSITORY, tree
from tests.support.kill_steps import run_until
from tests.support.photos import HEIGHT, WIDTH, jpeg, photo

pytestmark = pytest.mark.slow

KILLS = 12


def options(images: Path, folder: Path, *, append: bool) -> ShardsOptions:
    return ShardsOptions(
        images=images,
        dataset=folder,
        contract=ImageContract(height=HEIGHT, width=WIDTH),
        max_reject_fraction=0.5,
        shards=2,
        workers=1,
        append=append,
    )


def append(images: Path, folder: Path) -> None:
    additions.append(options(images, folder, append=True))


def retry(images: Path, folder: Path) -> None:
    additions.retry(RetryOptions(dataset=folder, images=images, workers=1))


def append_words(images: Path, folder: Path) -> list[str]:
    size = [f"--height={HEIGHT}", f"--width={WIDTH}", "--shards=2", "--workers=1"]
    folders = [f"--images={images}", f"--dataset={folder}"]
    return ["shards", *folders, *size, "--max_reject_fraction=0.5", "--append"]


def retry_words(images: Path, folder: Path) -> list[str]:
    return ["retry", f"--images={images}", f"--dataset={folder}", "--workers=1"]


class Verb(NamedTuple):
    """A way to add to a dataset, in this process and in one of its own."""

    run: Callable[[Path, Path], None]
    words: Callable[[Path, Path], list[str]]


VERBS = {"append": Verb(append, append_words), "retry": Verb(retry, retry_words)}


class Case(NamedTuple):
    """What a verb is tried on.

    Attributes:
        verb: it.
        images: with what is to be added.
        base: DATASET without it; not to be changed.
        expected: the digests of DATASET with it.
    """

    verb: Verb
    images: Path
    base: Path
    expected: dict[str, str]


@pytest.fixture(scope="module", params=[*VERBS, "retry in vain"])
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Case:
    """Photos of three classes, of which copies, a broken one and a class come later."""
    folder = tmp_path_factory.mktemp("additions")
    images, base, at_once = folder / "images", folder / "base", folder / "at once"
    for label, name in enumerate(("blue", "green", "red")):
        (images / name).mkdir(parents=True)
        for index in range(8):
            data = jpeg(photo(label, 10 * label + index, 300, 400))
            (images / name / f"{index}.jpg").write_bytes(data)
    (images / "red/cut.jpg").write_bytes(data[:2000])
    (images / "red/mended.jpg").write_bytes(data[:3000])
    preprocess.run(options(images, base, append=False))
    if request.param == "append":
        shutil.copytree(images / "blue", images / "azure")
        for index in range(8, 60):
            data = jpeg(photo(0, index, 300, 400))
            (images / "blue" / f"{index}.jpg").write_bytes(data)
        (images / "azure/cut.jpg").write_bytes(data[:2000])
    elif request.param == "retry":
        (images / "red/mended.jpg").write_bytes(data)
    verb = VERBS[request.param.split()[0]]
    shutil.copytree(base, at_once)
    verb.run(images, at_once)
    expected = tree(at_once)
    assert (expected == tree(base)) == (request.param == "retry in vain")
    return Case(verb, images, base, expected)


def read_or_told(folder: Path) -> None:
    """A reader sees a whole dataset, or is told what to do."""
    try:
        manifest.load(folder)
    except RunError as error:
        assert "is unfinished. Run `make" in str(error)  # noqa: PT017


def test_every_step_on_disk(case: Case, tmp_path: Path) -> None:
    """Killed before the nth file-system call, for every n; then run again."""
    step, done = 0, False
    while not done:
        folder = Path(shutil.copytree(case.base, tmp_path / f"step {step}"))
        done = run_until(step, "pipeline", case.verb.words(case.images, folder))
        read_or_told(folder)
        if not done:
            case.verb.run(case.images, folder)
        assert tree(folder) == case.expected, f"killed before step {step}"
        shutil.rmtree(folder)
        step += 1
    print(f"{step - 1} steps")
    assert step > 40


def test_random_moments(case: Case, tmp_path: Path) -> None:
    """A real process is killed until it was KILLS times; then it may end."""
    rng = random.Random(0)
    folder = Path(shutil.copytree(case.base, tmp_path / "made"))
    kills = 0
    while True:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pipeline"),
                *case.verb.words(case.images, folder),
            ],
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            if kills % 2:  # once it has begun to write
                deadline = time.monotonic() + 60
                while process.poll() is None and not list(folder.glob("_work/run*")):
                    assert time.monotonic() < deadline
                    time.sleep(0.005)
                process.wait(timeout=rng.uniform(0, 2))
            else:
                process.wait(timeout=rng.uniform(0.1, 5))
        except subprocess.TimeoutExpired:
            if kills == KILLS:
                process.wait(timeout=300)
            else:
                process.kill()
                kills += 1
                process.wait(timeout=60)
        read_or_told(folder)
        if process.returncode == 0:
            assert tree(folder) == case.expected
            if kills == KILLS:
                break
            shutil.rmtree(folder)
            shutil.copytree(case.base, folder)
        else:
            assert process.returncode == -signal.SIGKILL, process.communicate()[1]
