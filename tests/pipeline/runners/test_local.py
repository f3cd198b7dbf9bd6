"""The local runner: processes that crash, hang or die, signals, errors.

`sitecustomize` stands in for a defect of the decoder: every Python process imports it
at its start, and then certain bytes in a photo crash or stop simplejpeg.
"""

import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath, ObjectPath
from tests.support.defects import DEFECT, SLOW_DISK
from tests.support.files import REPOSITORY
from tests.support.object_servers import Proxy
from tests.support.photos import HEIGHT, WIDTH, jpeg, photo
from tests.support.processes import Program, children, descendants, wait_for_shards

# As where memory is short: only the known photo of the beginning is smaller.
KILLED = DEFECT.replace('b"CRASH-ME" in data', "len(data) > 1500").replace(
    "SIGSEGV", "SIGKILL"
)
SIZE = (f"--height={HEIGHT}", f"--width={WIDTH}", "--max_reject_fraction=0.5")


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """IMAGES with two photos that crash the decoder and one that stops it."""
    folder = tmp_path / "images" / "train" / "a"
    folder.mkdir(parents=True)
    for index in range(30):
        (folder / f"{index:02d}.jpg").write_bytes(jpeg(photo(0, index)))
    for name, word in ((3, b"CRASH-ME"), (17, b"CRASH-ME"), (22, b"STOP-ME")):
        with (folder / f"{name:02d}.jpg").open("ab") as file:
            file.write(word)
    (tmp_path / "defect").mkdir()
    (tmp_path / "defect" / "sitecustomize.py").write_text(DEFECT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "defect"))
    return folder.parent.parent


def test_a_crash_costs_one_image(faulty: Path, program: Program) -> None:
    for name in ("17.jpg", "22.jpg"):
        (faulty / "train" / "a" / name).unlink()
    dataset = faulty.parent / "dataset"
    words = ("pipeline", f"--images={faulty}", f"--dataset={dataset}", *SIZE)
    result = program(*words, "--shards=3", "--workers=2")
    assert result.returncode == 0, result.stderr
    assert "rejected: a/03.jpg: decoder_crash (SIGSEGV)" in result.stderr
    assert "28 images listed = 27 written + 1 rejected" in result.stdout


@pytest.mark.slow
def test_crashes_and_hangs_cost_an_image_each(faulty: Path, program: Program) -> None:
    dataset = faulty.parent / "dataset"
    words = ("pipeline", f"--images={faulty}", f"--dataset={dataset}", *SIZE)
    result = program(*words, "--shards=3", "--workers=2", "--image_timeout=4")
    assert result.returncode == 0, result.stderr
    rejects = pd.read_csv(dataset / "rejects.csv").set_index("id")
    assert rejects.reason.to_dict() == {
        "a/03.jpg": "decoder_crash",
        "a/17.jpg": "decoder_crash",
        "a/22.jpg": "timeout",
    }
    assert rejects.detail["a/03.jpg"] == "SIGSEGV"
    assert rejects.detail["a/22.jpg"] == "no result in 4 s"
    assert "30 images listed = 27 written + 3 rejected" in result.stdout
    assert sorted(path.name for path in dataset.iterdir()) == [
        "classes.txt",
        "dataset.json",
        "rejects.csv",
        *(f"train-0000{index}-of-00003.tfrecord" for index in range(3)),
    ]


def test_the_commit_of_a_shard_is_no_image_that_hangs(
    images: Path, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_DISK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    words = (f"--images={images}", f"--dataset={tmp_path / 'made'}", "--shards=1")
    result = program("pipeline", *words, *SIZE, "--workers=2", "--image_timeout=3")
    assert result.returncode == 0, result.stderr
    assert "no result in 3 s" not in result.stderr
    assert "42 images listed = 40 written + 2 rejected" in result.stdout


def start(
    many: Path, folder: AnyPath, *, image_timeout: int = 60
) -> subprocess.Popen[str]:
    words = [f"--images={many}", f"--dataset={folder}", "--shards=40", *SIZE]
    words.append(f"--image_timeout={image_timeout}")
    found = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", *words],
        cwd=many.parent,  # files beside a folder of a store are written here
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, found))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_process_is_replaced(many: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    process = start(many, folder)
    wait_for_shards(folder, process)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "SIGKILL); going on" in errors
    assert "400 images listed = 400 written + 0 rejected" in output
    assert "Traceback" not in errors


def test_processes_that_die_every_time_end_the_run(
    images: Path, tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel kills them where memory is short: no image is to blame."""
    (tmp_path / "sitecustomize.py").write_text(KILLED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    folder = tmp_path / "made"
    result = program("pipeline", f"--images={images}", f"--dataset={folder}", *SIZE)
    assert result.returncode == 1
    assert "lost 3 times in a row, the last at " in result.stderr
    assert "no image is to blame: the process ended: SIGKILL" in result.stderr
    assert "fewer processes (--workers)" in result.stderr
    assert "rejected: " not in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(folder.glob("*.tfrecord"))


def test_children_end_with_their_launcher(many: Path, tmp_path: Path) -> None:
    process = start(many, tmp_path / "made")
    wait_for_shards(tmp_path / "made", process)
    below = descendants(process.pid)
    assert below
    process.kill()
    process.wait()
    wait_for_end_of(below)


def wait_for_end_of(processes: list[int]) -> None:
    deadline = time.monotonic() + 30
    while left := [pid for pid in processes if os.path.exists(f"/proc/{pid}/exe")]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_but_what_was_committed(
    many: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Its children are at work, with a scratch file each."""
    folder = tmp_path / "made"
    process = start(many, folder)
    wait_for_shards(folder, process)
    below = descendants(process.pid)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == (
        "error: interrupted. What was committed is kept: run the same command again to "
        "go on."
    )
    assert "Traceback" not in errors
    wait_for_end_of(below)
    assert list(folder.rglob(".*")) == []
    assert not (folder / "dataset.json").exists()
    process = start(many, folder)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "going on: " in output
    assert "400 images listed = 400 written + 0 rejected" in output


def test_an_upload_in_flight_is_abandoned(
    many: Path, bucket: ObjectPath, proxy: Proxy
) -> None:
    """The store takes no object any more when Ctrl-C comes."""
    folder = bucket / "made"
    process = start(many, folder, image_timeout=0)
    while len(list((folder / "_work" / "done").glob("*"))) < 3:
        assert process.poll() is None
        time.sleep(0.1)
    with proxy.failing("slow", times=10**6, method="P") as fault:
        seen = fault.seen
        while fault.seen == seen:
            assert process.poll() is None
            time.sleep(0.02)
        below = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    wait_for_end_of(below)
    name = atomic.temporary_name(folder / "_work", "upload")
    assert list(Path(tempfile.gettempdir()).glob(f"{name}*")) == []


def test_a_failing_worker_is_quoted(images: Path, tmp_path: Path) -> None:
    """A folder that stands where a shard should go: its commit fails."""
    folder = tmp_path / "made"
    process = start(images, folder)
    while not (folder / "_work" / "plan").is_dir():
        assert process.poll() is None
        time.sleep(0.001)
    (folder / "test-00000-of-00008.tfrecord").mkdir()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    path = tmp_path / "made" / "test-00000-of-00008.tfrecord"
    assert f"error: Is a directory: {path}. What was committed is kept" in errors
    assert "[while running" not in errors
    assert "Traceback" not in errors


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 KB, which `remount` can enlarge."""
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_said_and_survived(
    many: Path, small_disk: Path, tmp_path: Path, program: Program
) -> None:
    """The dataset takes about 900 KB, with its work folder."""
    words = ("pipeline", f"--images={many}", *SIZE, "--shards=20")
    undisturbed = tmp_path / "undisturbed"
    assert program(*words, f"--dataset={undisturbed}").returncode == 0
    folder = small_disk / "dataset"
    result = program(*words, f"--dataset={folder}")
    assert result.returncode == 1
    assert re.search(r"error: No space left on device: /.*\. What was", result.stderr)
    assert "Traceback" not in result.stderr
    assert not (folder / "dataset.json").exists()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    result = program(*words, f"--dataset={folder}")
    assert result.returncode == 0, result.stderr
    for path in undisturbed.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()
    assert len(list(folder.iterdir())) == len(list(undisturbed.iterdir()))


def test_beam_prints_no_traceback_of_its_own(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log has it; what is printed is the sentence of the program alone."""
    from pipeline.beam_job import Job
    from pipeline.runners import execution

    def fail(name: str) -> None:
        raise ValueError(name)

    monkeypatch.setattr(logging.root, "handlers", [logging.NullHandler()])
    options = execution.beam_options([], workers=1)
    with pytest.raises(RuntimeError, match="ValueError: a shard"):
        execution.run_here(Job(["a shard"], fail, lambda: None), options)
    assert capfd.readouterr().err == ""
