"""A shard in a process of its own; see test_engine for crashes and hangs."""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.dataset import sidecar
from pipeline.dataset.manifest import MANIFEST, ImageContract
from pipeline.images import conversion
from pipeline.shards import image_in_progress, isolated_process, plan, shard_writer
from pipeline.sources.listing import ImageRef
from pipeline.storage import atomic, worker_signs
from pipeline.storage.object_paths import AnyPath, ObjectPath
from pipeline.storage.resumable_folder import WORK, ResumableFolder
from tests.support.defects import DEFECT, SLOW_DISK
from tests.support.files import REPOSITORY
from tests.support.object_servers import Proxy
from tests.support.photos import HEIGHT, WIDTH, jpeg, photo
from tests.support.processes import children

CONTRACT = ImageContract(height=HEIGHT, width=WIDTH)


@pytest.fixture
def planned(tmp_path: Path) -> tuple[Path, str]:
    """A dataset that was started, and the name of its one shard."""
    folder = tmp_path / "dataset"
    return folder, start_dataset(folder, tmp_path / "photo.jpg")


def start_dataset(folder: AnyPath, path: Path) -> str:
    """Starts a dataset of one shard with one photo, and returns its name."""
    path.write_bytes(jpeg(photo(0, 0)))
    ResumableFolder(folder, manifest=MANIFEST).start(
        {"versions": conversion.versions()}
    )
    refs = [ImageRef("photo.jpg", str(path), "a", "train")]
    (name,) = plan.write_plan(folder, {"train": [refs]}, ["a"])
    return name


def write(folder: AnyPath, name: str, *, seconds: float = 60) -> None:
    isolated_process.write(
        name, folder=str(folder), contract=CONTRACT, image_timeout=seconds
    )


def test_it_writes_the_bytes_of_a_worker(planned: tuple[Path, str]) -> None:
    folder, name = planned
    shard_writer.write(name, str(folder), CONTRACT)
    expected = (folder / name).read_bytes()
    (folder / name).unlink()
    write(folder, name)
    assert (folder / name).read_bytes() == expected
    assert sidecar.read_note(folder, name).shard.examples == 1


def test_what_is_committed_is_not_made_again(planned: tuple[Path, str]) -> None:
    """As where a worker is lost just afterwards, and its part is given to another."""
    folder, name = planned
    write(folder, name)
    before = (folder / name).stat()
    write(folder, name)
    assert (folder / name).stat() == before


def test_a_dataset_that_is_complete_is_left_alone(planned: tuple[Path, str]) -> None:
    """As where a runner tries a part again, after the last step."""
    folder, name = planned
    ResumableFolder(folder, manifest=MANIFEST).finish({})
    write(folder, name)
    assert [path.name for path in folder.iterdir()] == [MANIFEST]


def test_a_worker_with_another_decoder_is_refused(planned: tuple[Path, str]) -> None:
    folder, name = planned
    versions = conversion.versions() | {"simplejpeg": "0.1"}
    atomic.write_json(folder / WORK / "run.json", {"versions": versions})
    message = "versions.simplejpeg is 0.1 there and .* here.*constraints.txt"
    with pytest.raises(RuntimeError, match=message):
        write(folder, name)
    assert not (folder / name).exists()


def test_what_it_raises_is_quoted(planned: tuple[Path, str]) -> None:
    folder, name = planned
    (folder / name).mkdir()
    with pytest.raises(RuntimeError, match=f"Is a directory: {folder / name}"):
        write(folder, name)


def test_it_ends_with_its_worker(
    planned: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker is killed while its process is at a photo that never ends."""
    folder, name = planned
    with (tmp_path / "photo.jpg").open("ab") as file:
        file.write(b"STOP-ME")
    (tmp_path / "sitecustomize.py").write_text(DEFECT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code = f"""
from pathlib import Path
from tests.pipeline.shards.test_isolated_process import write

write(Path({str(folder)!r}), {name!r})
"""
    worker = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}"},
    )
    while not (folder / WORK / "in_progress" / f"{platform.node()}-{name}").is_file():
        assert worker.poll() is None
        time.sleep(0.02)
    (process,) = children(worker.pid)
    worker.kill()
    worker.wait()
    deadline = time.monotonic() + 30
    while os.path.exists(f"/proc/{process}"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_slow_disk_is_no_image_that_hangs(
    planned: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_DISK)
    monkeypatch.syspath_prepend(tmp_path)
    folder, name = planned
    write(folder, name, seconds=3)
    assert sidecar.read_note(folder, name).shard.examples == 1


def test_a_slow_uplink_is_no_image_that_hangs(
    bucket: ObjectPath, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first uploads get no answer for two seconds each."""
    name = start_dataset(bucket / "dataset", tmp_path / "photo.jpg")
    monkeypatch.setattr(isolated_process, "_TRIES", 1)
    worker_signs.announce_worker(bucket / "dataset")
    with proxy.failing("slow", times=3, method="P") as fault:  # PUT, POST
        write(bucket / "dataset", name, seconds=3)
    assert fault.seen == 3
    assert sidecar.read_note(bucket / "dataset", name).shard.examples == 1


def test_what_another_machine_is_at_is_not_watched_here(
    planned: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was given up goes on there, by a clock of its own."""
    folder, name = planned
    with monkeypatch.context() as patch:
        patch.setattr(platform, "node", lambda: "elsewhere")
        there = image_in_progress.ImageInProgress(folder, name)
        there.__enter__().at(0)
    assert (
        image_in_progress.suspects(folder)
        == image_in_progress.suspects(folder, only=name)
        == []
    )
    with image_in_progress.ImageInProgress(folder, name) as here:
        here.at(0)
        image_in_progress.clear(folder)
        there.at(0)
        assert image_in_progress.suspects(folder) == []
