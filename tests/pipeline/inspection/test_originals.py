"""Originals: which file an id means, and what is shown of it."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from pipeline.inspection.originals import SIDE, Originals, PhotoDecoder
from tests.support.photos import jpeg, photo
from tests.support.pictures import encode, exif, png


@pytest.fixture(scope="module")
def decoder() -> Iterator[PhotoDecoder]:
    made = PhotoDecoder()
    yield made
    made.close()


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("layout", "image_id", "path"),
    [
        ("splits", "hat/1.jpg", "train/hat/1.jpg"),
        ("classes", "hat/1.jpg", "hat/1.jpg"),
        ("manifest", "hat/1.jpg", "hat/1.jpg"),
        ("manifest", "hat/1", "hat/1.jpg"),
        ("manifest", "0a1b2c", "0/a/1/0a1b2c.jpg"),
        ("manifest", "http://host/hat/1.jpg?w=9", "hat/1.jpg"),
    ],
)
def test_where_an_id_lies(
    tmp_path: Path, layout: str, image_id: str, path: str
) -> None:
    found = write(tmp_path / "second" / path, b"x")
    roots = [tmp_path / "first", tmp_path / "second"]
    assert Originals(roots, layout).find("train", image_id) == str(found)
    assert Originals(roots[:1], layout).find("train", image_id) is None
    assert Originals([], layout).find("train", image_id) is None


@pytest.mark.parametrize("layout", ["splits", "classes", "manifest"])
@pytest.mark.parametrize(
    "image_id", ["../secret.jpg", "a/../../secret.jpg", "a\0.jpg", "", "x" * 5000]
)
def test_an_id_of_no_file_below_the_root(
    tmp_path: Path, layout: str, image_id: str
) -> None:
    """A dataset of others may name anything."""
    write(tmp_path / "secret.jpg", b"x")
    (tmp_path / "images" / "train").mkdir(parents=True)
    assert Originals([tmp_path / "images"], layout).find("train", image_id) is None


def test_an_absolute_id_means_a_file_below_the_root(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.jpg", b"x")
    (tmp_path / "images").mkdir()
    originals = Originals([tmp_path / "images"], "classes")
    assert originals.find("train", str(secret)) is None


def test_a_photo_is_upright_and_small(tmp_path: Path, decoder: PhotoDecoder) -> None:
    data = jpeg(photo(0, 1, 600, 900), exif=exif(6))
    found = decoder.thumbnail(str(write(tmp_path / "x.jpg", data)))
    assert found is not None
    assert Image.open(io.BytesIO(found.jpeg)).size == (round(SIDE / 1.5), SIDE)
    assert found.about.startswith("600×900 JPEG, ")  # noqa: RUF001
    assert found.whole


def test_what_can_be_shown_of_a_reject(tmp_path: Path, decoder: PhotoDecoder) -> None:
    whole = jpeg(photo(0, 1, 300, 400))
    picture = Image.fromarray(photo(1, 2))

    def shown(data: bytes) -> bool:
        found = decoder.thumbnail(str(write(tmp_path / "x", data)))
        assert not (found and found.whole)
        return found is not None

    assert shown(whole[: len(whole) // 2])
    assert shown(encode(picture, "TIFF"))
    assert not shown(whole[:400])  # nothing but grey
    assert not shown(b"")
    assert not shown(b"<html>")
    assert not shown(png(30_000, 30_000, bytes([8, 2, 0, 0, 0])))
    assert decoder.thumbnail(str(tmp_path / "gone.jpg")) is None
    assert decoder.thumbnail(None) is None
