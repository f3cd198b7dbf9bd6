"""Photos as batches: listed once, decoded by children that are kept."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset.manifest import ImageContract
from pipeline.images import isolation
from predictor.inputs import inputs, photo_listing
from predictor.inputs.inputs import FromImages
from tests.support.defects import DEFECT
from tests.support.photos import jpeg, photo

CONTRACT = ImageContract(height=32, width=40)
PHOTOS = 80


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(PHOTOS):
        data = jpeg(photo(index % 3, index, 60, 50))
        (folder / f"{index:02d}.jpg").write_bytes(data)
    return folder


@pytest.fixture
def source(photos: Path) -> FromImages:
    listed = photo_listing.list_photos(photos, split="test")
    return FromImages(listed, "test", CONTRACT)


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The children of every pool that is made."""
    made: list[int] = []
    new_pool: Callable = isolation.new_pool

    def noted(count: int) -> object:
        made.append(count)
        return new_pool(count)

    monkeypatch.setattr(isolation, "new_pool", noted)
    monkeypatch.setattr(inputs.resources, "cores", lambda: 64)
    return made


def test_what_was_listed_is_kept(photos: Path, tmp_path: Path) -> None:
    """Also names that are not UTF-8."""
    (photos / "caf\udce9.jpg").write_bytes(b"")
    listed = photo_listing.list_photos(photos, split="test")
    assert len(listed.images) + len(listed.rejects) == PHOTOS + 1
    listed.write(tmp_path / "photos.json", scratch=tmp_path)
    found = photo_listing.read(tmp_path / "photos.json")
    assert (found.images, found.rejects) == (listed.images, listed.rejects)
    assert found.fingerprint() == listed.fingerprint()


def test_decoders_are_kept_for_the_next_shard(
    source: FromImages, pools: list[int]
) -> None:
    """And there are no more of them than have something to do."""
    assert len(source.sizes) == 2
    ids = [
        image_id
        for shard in (0, 1)
        for batch in source.batches([shard], batch_size=16, at_once=1)
        for image_id in batch.ids
    ]
    source.end()
    assert ids == list(source.ids())
    assert pools == [PHOTOS / 8]


def test_who_leaves_does_not_wait_for_a_photo_that_hangs(
    photos: Path,
    source: FromImages,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """It would be given up after a minute."""
    (tmp_path / "sitecustomize.py").write_text(DEFECT)
    monkeypatch.syspath_prepend(tmp_path)
    with (photos / "20.jpg").open("ab") as file:
        file.write(b"STOP-ME")
    batches = source.batches([0, 1], batch_size=16, at_once=1)
    first = next(batches)
    assert first.images.dtype == np.uint8
    started = time.monotonic()
    batches.close()
    assert time.monotonic() - started < 30
