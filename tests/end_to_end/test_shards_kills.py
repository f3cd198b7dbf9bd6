"""`make shards` killed at random moments and at every step: the bytes do not change."""

import contextlib
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
from pipeline.system.errors import RunError
from tests.support.files import REPOSITORY, tree
from tests.support.photos import HEIGHT, WIDTH, jpeg, photo
from tests.support.processes import descendants

pytestmark = pytest.mark.slow

KILLS = 30
SHARDS = 12


def make(images: Path, folder: Path, *, shards: int = SHARDS) -> None:
    """As the command line of `start` does, in this process."""
    preprocess.run(
        ShardsOptions(
            images=images,
            dataset=folder,
            contract=ImageContract(height=HEIGHT, width=WIDTH),
            shards=shards,
            max_reject_fraction=0.1,
            workers=1,
        )
    )


def start(images: Path, folder: Path, mark: str) -> subprocess.Popen[bytes]:
    """Starts a run, whose processes all have a variable of that value."""
    words = [
        *(f"--images={images}", f"--dataset={folder}", f"--shards={SHARDS}"),
        *(f"--height={HEIGHT}", f"--width={WIDTH}", "--max_reject_fraction=0.1"),
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", *words],
        cwd=REPOSITORY,
        env=os.environ | {"KILLS_MARK": mark},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def marked(mark: str) -> list[int]:
    """The processes of a run that `start` began."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended, or is another user's
            if f"KILLS_MARK={mark}\0".encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


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


def terminate(process: subprocess.Popen[bytes], rng: random.Random) -> None:
    process.send_signal(signal.SIGTERM)


def kill_a_child(process: subprocess.Popen[bytes], rng: random.Random) -> None:
    if below := descendants(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(below), signal.SIGKILL)


def wait_for_a_shard(process: subprocess.Popen[bytes], folder: Path) -> None:
    while process.poll() is None and not list(folder.glob("_work/done/*")):
        time.sleep(0.01)


@pytest.mark.parametrize("kill", [kill_launcher, interrupt, terminate, kill_a_child])
def test_random_moments(
    photos: Path, undisturbed: dict[str, str], tmp_path: Path, kill: Callable
) -> None:
    """Kills until there were KILLS; every dataset that gets finished is compared.

    Every other kill comes after the first commit of its run, and the next run begins
    at once after each.
    """
    rng = random.Random(kill.__name__)
    kills = finished = 0
    folder = tmp_path / "made"
    while kills < KILLS or not finished:
        mark = f"{kill.__name__} {kills} {finished}"
        process = start(photos, folder, mark)
        try:
            if kills == KILLS:
                process.wait(timeout=120)
            elif kills % 2:
                wait_for_a_shard(process, folder)
                process.wait(timeout=rng.uniform(0, 0.5))
            else:
                process.wait(timeout=rng.uniform(0.1, 3))
        except subprocess.TimeoutExpired:
            kill(process, rng)
            kills += 1
            code = process.wait(timeout=120)
            # Killed by a signal: it had not even imported what hears it.
            assert code in (0, 1, 130, -signal.SIGINT, -signal.SIGTERM, -signal.SIGKILL)
        if process.returncode == 0:
            assert tree(folder) == undisturbed
            finished += 1
            shutil.rmtree(folder)
        deadline = time.monotonic() + 30
        while left := marked(mark):
            assert time.monotonic() < deadline, left


RUN = """
import sys
from pathlib import Path
from tests.end_to_end.test_shards_kills import make
from tests.support.kill_steps import kill_before_step

kill_before_step(int(sys.argv[1]))
make(Path(sys.argv[2]), Path(sys.argv[3]), shards=1)
"""


def run_until(step: int, images: Path, folder: Path) -> bool:
    """Runs the job in a process that kills itself before its nth step on disk.

    Not by a fork: gRPC's threads, of Beam in this process, do not live on in one.

    Returns whether it got to its end.
    """
    words = [sys.executable, "-c", RUN, step, images, folder]
    result = subprocess.run(
        list(map(str, words)),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode in (0, -signal.SIGKILL), result.stderr
    return result.returncode == 0


def test_every_step_on_disk(images: Path, tmp_path: Path) -> None:
    """Killed before the nth file-system call, for every n; then run again."""
    make(images, tmp_path / "undisturbed", shards=1)
    expected = tree(tmp_path / "undisturbed")
    step, done = 0, False
    while not done:
        folder = tmp_path / f"step {step}"
        done = run_until(step, images, folder)
        if not done:
            make(images, folder, shards=1)
        assert tree(folder) == expected, f"killed before step {step}"
        shutil.rmtree(folder)
        step += 1
    assert step > 20


KILLED_BEFORE_STEP = """
import sys
if "child_process" in " ".join(sys.orig_argv):
    from tests.support.kill_steps import kill_before_step
    kill_before_step({step})
"""


def test_every_step_of_a_child(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every child is killed before its nth file-system call, for every n."""
    make(images, tmp_path / "undisturbed", shards=1)
    expected = tree(tmp_path / "undisturbed")
    step, lost = 0, True
    while lost:
        folder, site = tmp_path / f"step {step}", tmp_path / f"site {step}"
        site.mkdir()
        text = KILLED_BEFORE_STEP.format(step=step)
        (site / "sitecustomize.py").write_text(text)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(site)
            # Three losses in a row end the run: less than a shard takes more steps.
            with contextlib.suppress(RunError):
                make(images, folder, shards=1)
        lost = "a process was lost" in capsys.readouterr().err
        if not (folder / "dataset.json").exists():
            make(images, folder, shards=1)
        assert tree(folder) == expected, f"killed before step {step}"
        shutil.rmtree(folder)
        step += 1
    assert step > 20
