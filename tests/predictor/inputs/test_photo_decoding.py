"""Photos decoded by other processes, in order: whatever a photo does to them.

`sitecustomize` stands in for a defect of the decoder; see tests/support/defects.py.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.dataset.manifest import ImageContract
from pipeline.images import conversion, image_bytes
from pipeline.images.conversion import BadImage
from pipeline.system.errors import RunError
from predictor.inputs.photo_decoding import Decoders
from tests.support.defects import DEFECT
from tests.support.photos import jpeg, photo
from tests.support.processes import children

CONTRACT = ImageContract(height=32, width=40, resize="crop")
PHOTOS = 40

# What makes a process that was spawned unable to live; others are not touched.
SPAWNED = """
import os, resource, signal, sys
if "child_process" in " ".join(sys.orig_argv):
"""
UNABLE = {
    "a library that does not load": "sys.modules['simplejpeg'] = None",
    "no memory": "resource.setrlimit(resource.RLIMIT_AS, (200 << 20, 200 << 20))",
    "ended at once": "os._exit(7)",
}
LITTLE_MEMORY = """
    import cv2, numpy, PIL.Image, simplejpeg
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + (100 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
"""
KILLED = """
    import simplejpeg
    sound = simplejpeg.decode_jpeg
    def decode_jpeg(data, *args, **kwargs):
        if b"KILL-ME" in data:
            os.kill(os.getpid(), signal.SIGKILL)
        return sound(data, *args, **kwargs)
    simplejpeg.decode_jpeg = decode_jpeg
"""


@pytest.fixture
def uris(tmp_path: Path) -> list[str]:
    """Photos of many sizes."""
    for index in range(PHOTOS):
        pixels = photo(index % 3, index, 60 + 7 * index, 50 + 11 * index)
        (tmp_path / f"{index:02d}.jpg").write_bytes(jpeg(pixels))
    return [str(path) for path in sorted(tmp_path.glob("*.jpg"))]


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    decoders = Decoders(CONTRACT, count=2)
    yield decoders
    decoders.end()


@pytest.fixture
def faulty(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Certain bytes in a photo crash the decoder, or stop it."""
    folder = tmp_path_factory.mktemp("defect")
    (folder / "sitecustomize.py").write_text(DEFECT)
    monkeypatch.syspath_prepend(folder)


@pytest.fixture
def in_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Has spawned processes run a few lines at their start."""

    def run(lines: str) -> None:
        (tmp_path / "start").mkdir()
        text = f"{SPAWNED}    {lines.strip()}\n"
        (tmp_path / "start" / "sitecustomize.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path / "start")

    return run


def pids(decoders: Decoders) -> list[int]:
    pool = decoders._pool
    return [child.pid for child in (*pool._busy, *(one for _, one in pool._idle))]


def append(uri: str, content: bytes) -> None:
    with open(uri, "ab") as file:
        file.write(content)


def reasons(found: list[np.ndarray | BadImage]) -> dict[int, tuple[str, str]]:
    return {
        index: (one.reason, one.detail)
        for index, one in enumerate(found)
        if isinstance(one, BadImage)
    }


def assert_decoded(found: list[np.ndarray | BadImage], uris: list[str]) -> None:
    """All that are no BadImage are what this process makes of them."""
    assert len(found) == len(uris)
    for one, uri in zip(found, uris, strict=True):
        if not isinstance(one, BadImage):
            pixels = conversion.decode(image_bytes.read(uri), CONTRACT)
            np.testing.assert_array_equal(one, conversion.resize(pixels, CONTRACT))


def test_photos_come_in_order(decoders: Decoders, uris: list[str]) -> None:
    found = list(decoders.decode(uris))
    assert reasons(found) == {}
    assert found[0].shape == (32, 40, 3)
    assert_decoded(found, uris)
    assert list(decoders.decode([])) == []


def test_bad_files_are_no_others_fault(decoders: Decoders, uris: list[str]) -> None:
    Path(uris[3]).write_bytes(b"")
    Path(uris[4]).write_text("<html>not found</html>")
    Path(uris[20]).write_bytes(Path(uris[20]).read_bytes()[:900])
    Path(uris[39]).unlink()
    found = list(decoders.decode(uris))
    assert {index: reason for index, (reason, _) in reasons(found).items()} == {
        **{3: "empty", 4: "not_an_image"},
        **{20: "damaged", 39: "unreadable"},
    }
    assert_decoded(found, uris)


def test_a_crash_costs_one_photo(faulty: None, uris: list[str]) -> None:
    """Two in a row, of different processes; the first and the last."""
    for index in (0, 17, 18, PHOTOS - 1):
        append(uris[index], b"CRASH-ME")
    decoders = Decoders(CONTRACT, count=2)
    found = list(decoders.decode(uris))
    decoders.end()
    crash = ("decoder_crash", "SIGSEGV")
    assert reasons(found) == dict.fromkeys((0, 17, 18, PHOTOS - 1), crash)
    assert_decoded(found, uris)


@pytest.mark.slow
def test_a_photo_that_takes_for_ever_is_given_up(faulty: None, uris: list[str]) -> None:
    append(uris[5], b"STOP-ME")
    decoders = Decoders(CONTRACT, count=2, seconds=4)
    found = list(decoders.decode(uris))
    decoders.end()
    assert reasons(found) == {5: ("timeout", "no result in 4 s")}
    assert_decoded(found, uris)


def test_a_process_that_something_else_ends_costs_nothing(
    decoders: Decoders, uris: list[str]
) -> None:
    """Once for each process, at work and idle."""
    results = decoders.decode(uris)
    found = []
    for index in range(PHOTOS):
        if index in (5, 12):
            os.kill(pids(decoders)[-1], signal.SIGKILL)
        found.append(next(results))
    assert reasons(found) == {}
    assert_decoded(found, uris)
    for pid in pids(decoders):
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.1)
    assert_decoded(list(decoders.decode(uris)), uris)


def refusal(uris: list[str]) -> str:
    """What decoding is refused with; every photo before that is a good one."""
    decoders = Decoders(CONTRACT, count=2)
    found: list[np.ndarray | BadImage] = []
    try:
        with pytest.raises(RunError) as refused:
            found.extend(decoders.decode(uris))  # keeps what came before an error
    finally:
        decoders.end()
    assert reasons(found) == {}
    return str(refused.value)


@pytest.mark.parametrize("why", UNABLE)
def test_processes_that_cannot_live_end_the_run(
    in_children: Callable, uris: list[str], why: str
) -> None:
    """No photo is rejected for what a library or the memory lacks."""
    in_children(UNABLE[why])
    said = refusal(uris[:6])
    assert "were lost 3 times in a row, the last at no image" in said
    assert "no image is to blame: the process ended: " in said
    assert "enough memory for 2 of them" in said
    assert "What was committed is kept" in said


def test_what_kills_a_process_from_outside_is_no_fault_of_its_photo(
    in_children: Callable, uris: list[str]
) -> None:
    """As the kernel does when the memory is full; it names the photo all the same."""
    in_children(KILLED)
    append(uris[3], b"KILL-ME")
    said = refusal(uris)
    assert f"the last at {uris[3]}, and no image is to blame" in said
    assert "the process ended: SIGKILL" in said


def test_a_photo_that_the_memory_does_not_hold_ends_the_run(
    in_children: Callable, uris: list[str]
) -> None:
    """A PNG of 9,000 x 9,000 pixels, in a process that may take 100 MB."""
    in_children(LITTLE_MEMORY)
    large = Path(uris[2]).with_suffix(".png")
    Image.new("RGB", (9000, 9000)).save(large)
    uris[2] = str(large)
    assert f"out of memory: {large}. What was committed is" in refusal(uris)


def test_ended_in_the_middle_nothing_is_left(uris: list[str]) -> None:
    decoders = Decoders(CONTRACT, count=2)
    results = decoders.decode(uris)
    next(results)
    processes = pids(decoders)
    assert set(processes) <= set(children(os.getpid()))
    decoders.end()
    assert not set(processes) & set(children(os.getpid()))
