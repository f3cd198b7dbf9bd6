"""The next photos are read while one is decoded, also from disks and file servers."""

import threading
from pathlib import Path

import pytest

from pipeline.images import image_bytes
from pipeline.images.conversion import BadImage


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    for index in range(40):
        (tmp_path / f"{index}").write_bytes(bytes([index]) * (index + 1))
    return [str(tmp_path / f"{index}") for index in range(40)]


def test_local_files_are_read_ahead(
    photos: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is read although nobody has asked for it."""
    real, second = image_bytes.read, threading.Event()

    def read(uri: str) -> bytes:
        content = real(uri)
        if uri == photos[1]:
            second.set()
        return content

    monkeypatch.setattr(image_bytes, "read", read)
    contents = image_bytes.read_ahead(photos)
    next(contents)
    assert second.wait(60), "the second photo is not read"
    contents.close()


def test_the_order_is_that_of_the_uris(photos: list[str]) -> None:
    contents = [content() for content in image_bytes.read_ahead(photos)]
    assert contents == [Path(photo).read_bytes() for photo in photos]


def test_what_cannot_be_read_is_told_in_its_turn(photos: list[str]) -> None:
    Path(photos[20]).unlink()
    for index, content in enumerate(image_bytes.read_ahead(photos)):
        if index == 20:
            with pytest.raises(BadImage, match="unreadable"):
                content()
        else:
            assert len(content()) == index + 1


def test_large_files_wait_for_their_turn(
    photos: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen of them would fill the memory."""
    by, real = [], image_bytes.read

    def read(uri: str) -> bytes:
        by.append((int(Path(uri).name), threading.current_thread()))
        return real(uri)

    monkeypatch.setattr(image_bytes, "read", read)
    monkeypatch.setattr(image_bytes, "_SMALL_BYTES", 10)
    contents = [content() for content in image_bytes.read_ahead(photos)]
    assert [len(content) for content in contents] == list(range(1, 41))
    main = threading.main_thread()
    assert {index for index, thread in by if thread is main} == set(range(10, 40))
