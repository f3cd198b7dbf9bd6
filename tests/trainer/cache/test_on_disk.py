"""The cache on disk: reused, stale, damaged, full, in use, left by a killed run."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset import manifest
from pipeline.system.errors import RunError
from tests.support.files import REPOSITORY
from tests.support.photos import CLASSES, HEIGHT, PER_CLASS, WIDTH

TRAIN = len(CLASSES) * PER_CLASS["train"]  # 24


@pytest.fixture
def fill(tf):
    from trainer.cache import content, on_disk

    def fill(dataset: manifest.Dataset, split: str, folder: Path):
        return on_disk.fill(content.pixels(dataset, split), folder)

    return fill


@pytest.fixture
def dataset(made_dataset: Path) -> manifest.Dataset:
    return manifest.load(made_dataset)


@pytest.fixture
def filled(fill, dataset: manifest.Dataset, tmp_path: Path) -> Path:
    """A complete cache that nobody uses."""
    fill(dataset, "train", tmp_path / "cache")
    return tmp_path / "cache"


def test_it_holds_what_memory_would(fill, dataset, tmp_path: Path) -> None:
    from trainer.cache import content, in_memory

    columns = fill(dataset, "train", tmp_path / "cache")
    expected = in_memory.fill(content.pixels(dataset, "train"))
    for name in ("pixels", "labels"):
        np.testing.assert_array_equal(columns[name], expected[name])
    names = {path.name for path in (tmp_path / "cache").iterdir()}
    assert names == {"cache.json", "labels.npy", "pixels.npy"}
    pixels = np.load(tmp_path / "cache" / "pixels.npy", mmap_mode="r")
    assert pixels.shape == (TRAIN, HEIGHT, WIDTH, 3)


def test_it_is_reused(fill, dataset, filled: Path, capsys) -> None:
    before = (filled / "pixels.npy").stat()
    columns = fill(dataset, "train", filled)
    assert "is complete" in capsys.readouterr().out
    assert (filled / "pixels.npy").stat().st_mtime_ns == before.st_mtime_ns
    assert len(columns["pixels"]) == TRAIN


def test_an_untouched_one_is_not_read_again(
    fill, dataset, filled: Path, monkeypatch, capsys
) -> None:
    """265 GB took 35 minutes at every start; a copy is read once."""
    from trainer.cache import on_disk

    read, real = [], on_disk._sound_parts

    def noting(path: Path, *arguments: object) -> int:
        read.append(path.name)
        return real(path, *arguments)

    monkeypatch.setattr(on_disk, "_sound_parts", noting)
    fill(dataset, "train", filled)
    assert read == []
    os.utime(filled / "pixels.npy", ns=(1, 1))
    for _ in range(2):
        fill(dataset, "train", filled)
    assert sorted(read) == ["labels.npy", "pixels.npy"]
    assert capsys.readouterr().out.count("is complete") == 3


@pytest.mark.parametrize("name", ["dataset", "split", "tensorflow", "version"])
def test_a_stale_one_is_made_anew(
    fill, dataset, filled: Path, capsys, name: str
) -> None:
    value = json.loads((filled / "cache.json").read_text())
    (filled / "cache.json").write_text(json.dumps({**value, name: "other"}))
    pixels = np.load(filled / "pixels.npy", mmap_mode="r+")
    expected = pixels.tobytes()
    pixels[:] = 0
    pixels.flush()
    columns = fill(dataset, "train", filled)
    said = capsys.readouterr().out
    assert f"is of something else ({name} is other there" in said
    assert columns["pixels"].tobytes() == expected
    made = json.loads((filled / "cache.json").read_text())
    assert made.pop("seals") != value.pop("seals")  # of other files
    assert made == value


def flip(folder: Path) -> None:
    pixels = np.load(folder / "pixels.npy", mmap_mode="r+")
    pixels[7, 3, 2, 1] ^= 1
    pixels.flush()


def cut(folder: Path) -> None:
    os.truncate(folder / "pixels.npy", 5000)


def lose(folder: Path) -> None:
    (folder / "labels.npy").unlink()


@pytest.mark.parametrize("damage", [flip, cut, lose])
def test_a_damaged_one_is_made_anew(
    fill, dataset, filled: Path, capsys, damage
) -> None:
    expected = (filled / "pixels.npy").read_bytes()
    damage(filled)
    fill(dataset, "train", filled)
    assert "is damaged: made anew" in capsys.readouterr().out
    assert (filled / "pixels.npy").read_bytes() == expected


def test_a_folder_of_something_else_is_refused(fill, dataset, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "thesis.txt").write_text("the only copy")
    with pytest.raises(RunError, match="is not empty"):
        fill(dataset, "train", tmp_path / "cache")
    assert (tmp_path / "cache" / "thesis.txt").read_text() == "the only copy"


SCRIPT = """
import sys, time
from pathlib import Path
from pipeline.dataset import manifest
from trainer.cache import content, on_disk

original = content.Content.make

def slow(self, first):
    for batch in original(self, first):
        print(f"filling from {first}", flush=True)
        yield batch
        time.sleep(float(sys.argv[3]))

content.Content.make = slow
content._DECODED_TOGETHER, content._PART_ROWS = 4, 8
pixels = content.pixels(manifest.load(Path(sys.argv[1])), "train")
columns = on_disk.fill(pixels, Path(sys.argv[2]))
print("filled", flush=True)
time.sleep(60)
"""


def start(dataset: Path, folder: Path, seconds: float, line: str) -> subprocess.Popen:
    """Another process that fills a cache; returns when it has said `line`."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, dataset, folder, str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=REPOSITORY,
    )
    hear(process, line)
    return process


def hear(process: subprocess.Popen, line: str) -> None:
    assert process.stdout
    while line not in (said := process.stdout.readline()):
        assert said, "it ended without a word"


@pytest.mark.integration
@pytest.mark.parametrize("kept", [0, 1, 2])
def test_one_left_by_a_killed_run_is_finished(
    fill, dataset, made_dataset: Path, filled: Path, tmp_path: Path, kept: int
) -> None:
    """Killed while it fills the part after `kept`; the last row of it is broken off."""
    folder = tmp_path / "killed"
    process = start(made_dataset, folder, 0.2, "filling")
    with pytest.raises(RunError, match=r"another run uses the cache in .*killed"):
        fill(dataset, "train", folder)
    work = folder / "_work"
    while len(list(work.glob("part-*.json"))) < kept:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(folder.glob("*.npy"))
    with (work / "pixels.npy").open("ab") as file:
        file.write(b"half a row")
    kept = len(list(work.glob("part-*.json")))
    process = start(made_dataset, folder, 0, f"filling from {8 * kept}")
    hear(process, "filled")
    process.kill()
    process.wait()
    assert {path.name for path in folder.iterdir()} == {
        *("cache.json", "labels.npy", "pixels.npy")
    }
    expected = (filled / "pixels.npy").read_bytes()
    assert (folder / "pixels.npy").read_bytes() == expected


def test_runs_read_one_cache_together(
    fill, dataset, made_dataset: Path, filled: Path, capsys
) -> None:
    process = start(made_dataset, filled, 0, "filled")
    columns = fill(dataset, "train", filled)
    assert len(columns["pixels"]) == TRAIN
    assert "is complete; another run reads it, too" in capsys.readouterr().out
    process.kill()
    process.wait()


def test_without_locks_it_is_made_all_the_same(
    fill, dataset, filled: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    def flock(*_: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    fill(dataset, "train", tmp_path / "other")
    said = capsys.readouterr().out
    assert said.count("it cannot be told whether another run writes there") == 1
    expected = (filled / "pixels.npy").read_bytes()
    assert (tmp_path / "other" / "pixels.npy").read_bytes() == expected


def test_a_stale_one_that_another_run_uses_is_left_alone(
    fill, dataset, made_dataset: Path, filled: Path
) -> None:
    process = start(made_dataset, filled, 0, "filled")
    before = (filled / "pixels.npy").read_bytes()
    with pytest.raises(RunError, match="another run uses the cache"):
        fill(dataset, "validation", filled)
    process.kill()
    process.wait()
    assert (filled / "pixels.npy").read_bytes() == before


def test_what_was_damaged_meanwhile_is_made_again(
    fill, dataset, made_dataset: Path, filled: Path, tmp_path: Path, capsys
) -> None:
    folder = tmp_path / "killed"
    process = start(made_dataset, folder, 0.3, "filling")
    while len(list((folder / "_work").glob("part-*.json"))) < 2:
        time.sleep(0.01)
    process.kill()
    process.wait()
    with (folder / "_work" / "pixels.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)  # of the second part, of which 8 rows are whole
        file.write(b"\0")
    process = start(made_dataset, folder, 0, "filling from 8")
    hear(process, "filled")
    process.kill()
    process.wait()
    expected = (filled / "pixels.npy").read_bytes()
    assert (folder / "pixels.npy").read_bytes() == expected


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 64 KB; the pixels take 92."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_a_small_disk_is_refused(fill, dataset, small_disk: Path) -> None:
    with pytest.raises(RunError, match=r"has [\d.]+ KB free, and .* need 92.4 KB"):
        fill(dataset, "train", small_disk / "cache")


def test_a_disk_that_fills_up_leaves_nothing(
    fill, dataset, small_disk: Path, monkeypatch
) -> None:
    """Others write, too: the space that was there has gone meanwhile."""
    from trainer.cache import on_disk

    monkeypatch.setattr(on_disk, "_refuse_small_disk", lambda *_: None)
    with pytest.raises(OSError, match="No space left"):
        fill(dataset, "train", small_disk / "cache")
    assert not list((small_disk / "cache").glob("*.npy"))
    assert not (small_disk / "cache" / "cache.json").exists()
