"""Shards in child processes, whatever their images do to those."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.dataset import sidecar
from pipeline.dataset.manifest import MANIFEST, ImageContract
from pipeline.images import conversion, isolation
from pipeline.shards import plan, shard_writer
from pipeline.sources.listing import ImageRef
from pipeline.storage.object_paths import AnyPath, ObjectPath
from pipeline.storage.resumable_folder import ResumableFolder
from pipeline.system.child_process import ChildPool
from pipeline.system.errors import RunError, UnavailableError
from tests.support.defects import DEFECT, SLOW_DISK
from tests.support.files import REPOSITORY
from tests.support.object_servers import Proxy
from tests.support.photos import HEIGHT, WIDTH, jpeg, photo
from tests.support.processes import children

CONTRACT = ImageContract(height=HEIGHT, width=WIDTH)
IMAGES = 6


@pytest.fixture
def pool() -> Iterator[ChildPool]:
    pool = isolation.new_pool(2)
    yield pool
    pool.end()


@pytest.fixture
def planned(tmp_path: Path) -> tuple[Path, str]:
    """A dataset that was started, and the name of its one shard."""
    folder = tmp_path / "dataset"
    return folder, start_dataset(folder, tmp_path / "photos")


def start_dataset(folder: AnyPath, photos: Path) -> str:
    """Starts a dataset of one shard, and returns its name."""
    photos.mkdir()
    for index in range(IMAGES):
        (photos / f"{index}.jpg").write_bytes(jpeg(photo(0, index)))
    ResumableFolder(folder, manifest=MANIFEST).start(
        {"versions": conversion.versions()}
    )
    refs = [
        ImageRef(f"{index}.jpg", str(photos / f"{index}.jpg"), "a", "train")
        for index in range(IMAGES)
    ]
    (name,) = plan.write_plan(folder, {"train": [refs]}, ["a"])
    return name


def append(folder: Path, index: int, word: bytes) -> None:
    with (folder.parent / "photos" / f"{index}.jpg").open("ab") as file:
        file.write(word)


def write(pool: ChildPool, folder: AnyPath, name: str, *, seconds: float = 60) -> None:
    shard_writer.write_isolated(
        name, folder=str(folder), contract=CONTRACT, image_timeout=seconds, pool=pool
    )


def customize(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: str) -> None:
    """Has the children that are started from now on run a few lines first."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(lines)
    monkeypatch.syspath_prepend(tmp_path / "site")


KILLED = DEFECT.replace("signal.SIGSEGV", "signal.SIGKILL")


def test_it_writes_the_bytes_of_one_process(
    pool: ChildPool, planned: tuple[Path, str]
) -> None:
    folder, name = planned
    shard_writer.write(name, str(folder), CONTRACT)
    expected = (folder / name).read_bytes()
    (folder / name).unlink()
    write(pool, folder, name)
    assert (folder / name).read_bytes() == expected
    assert sidecar.read_note(folder, name).shard.examples == IMAGES


@pytest.mark.parametrize(
    ("word", "why"),
    [
        (b"CRASH-ME", ["decoder_crash", "SIGSEGV"]),
        (b"EXIT-ME", ["decoder_crash", "exit code 3"]),
        pytest.param(
            *(b"STOP-ME", ["timeout", "no result in 2 s"]),
            marks=pytest.mark.integration,
        ),
    ],
)
def test_images_that_end_a_child_cost_themselves(
    planned: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    word: bytes,
    why: list[str],
) -> None:
    """Two of them, of which one is the last."""
    customize(monkeypatch, tmp_path, DEFECT)
    folder, name = planned
    images = list(plan.read_plan(folder, name))
    for index in (1, IMAGES - 1):
        with open(images[index].uri, "ab") as file:
            file.write(word)
    pool = isolation.new_pool(1)
    write(pool, folder, name, seconds=2)
    pool.end()
    tally = sidecar.read_note(folder, name).tally
    bad = [images[1].id, images[-1].id]
    assert tally.rejects == [[one, "a", *why] for one in bad]
    assert tally.written == {"a": IMAGES - 2}
    assert f"rejected: {bad[0]}: {why[0]} ({why[1]})" in capsys.readouterr().err


def test_what_is_killed_from_outside_is_no_images_fault(
    planned: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel does where memory is short; the image is named all the same."""
    customize(monkeypatch, tmp_path, KILLED)
    folder, name = planned
    append(folder, 3, b"CRASH-ME")
    pool = isolation.new_pool(1)
    message = r"3 times in a row, the last at 3\.jpg, and no image is to blame: .*KILL"
    with pytest.raises(RunError, match=message):
        write(pool, folder, name)
    pool.end()
    assert sidecar.read_note(folder, name) is None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("import os, sys; sys.orig_argv[1:2] == ['-c'] and os._exit(7)", "exit code 7"),
        ("import sys; sys.modules['simplejpeg'] = None", "said: .*simplejpeg"),
    ],
)
def test_children_that_cannot_live_end_the_run(
    planned: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: str,
    message: str,
) -> None:
    customize(monkeypatch, tmp_path, lines)
    pool = isolation.new_pool(1)
    with pytest.raises(RunError, match=f"the last at no image.*{message}"):
        write(pool, *planned)
    pool.end()


def test_what_it_raises_is_raised(pool: ChildPool, planned: tuple[Path, str]) -> None:
    folder, name = planned
    (folder / name).mkdir()
    with pytest.raises(UnavailableError, match=f"Is a directory: {folder / name}"):
        write(pool, folder, name)


@pytest.mark.parametrize("alone", [False, True])
def test_a_child_that_hangs_ends_with_its_killed_parent(
    planned: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    alone: bool,
) -> None:
    """At its shard, and where it tries an image alone."""
    customize(monkeypatch, tmp_path, DEFECT)
    folder, name = planned
    append(folder, 0, b"STOP-ME")
    code = f"""
from pathlib import Path
from pipeline.images import isolation
from tests.pipeline.images import test_isolation as tests
folder = Path({str(folder)!r})
pool = isolation.new_pool(1)
if {alone}:
    uri = str(folder.parent / "photos" / "0.jpg")
    isolation._try_alone(pool, uri, tests.CONTRACT, 600)
tests.write(pool, folder, {name!r})
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": f"{tmp_path / 'site'}:{REPOSITORY}"},
    )
    wait_until(lambda: children(parent.pid))
    time.sleep(2)  # now it hangs
    (process,) = children(parent.pid)
    parent.kill()
    parent.wait()
    wait_until(lambda: not os.path.exists(f"/proc/{process}/exe"))


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.integration
def test_a_slow_disk_is_no_image_that_hangs(
    planned: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    customize(monkeypatch, tmp_path, SLOW_DISK)
    monkeypatch.setattr(isolation, "_LOSSES", 1)
    folder, name = planned
    pool = isolation.new_pool(1)
    write(pool, folder, name, seconds=3)
    pool.end()
    assert sidecar.read_note(folder, name).shard.examples == IMAGES


def test_a_slow_uplink_is_no_image_that_hangs(
    bucket: ObjectPath, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first uploads get no answer for two seconds each."""
    name = start_dataset(bucket / "dataset", tmp_path / "photos")
    monkeypatch.setattr(isolation, "_LOSSES", 1)
    pool = isolation.new_pool(1)
    with proxy.failing("slow", times=3, method="P") as fault:  # PUT, POST
        write(pool, bucket / "dataset", name, seconds=3)
    pool.end()
    assert fault.seen == 3
    assert sidecar.read_note(bucket / "dataset", name).shard.examples == IMAGES


def test_a_run_names_its_scratch(planned: tuple[Path, str], pool: ChildPool) -> None:
    """Also where a child was started by an earlier run."""
    folder, name = planned
    write(pool, folder, name)
    code = pool.call(_run_of_the_child)
    os.environ["VGG16_RUN"] = "another"
    try:
        write(pool, folder, name)
        assert pool.call(_run_of_the_child) == "another" != code
    finally:
        os.environ["VGG16_RUN"] = code


def _run_of_the_child() -> str:
    return os.environ["VGG16_RUN"]
