"""The painted photos of `make demo`."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.demo import sample_photos
from pipeline.sources.layout import list_images


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One photo of each class in each split, for speed."""
    monkeypatch.setattr(
        sample_photos, "IMAGES", {"train": 2, "validation": 1, "test": 1}
    )


def test_a_collection_is_painted(few, tmp_path: Path) -> None:
    root = tmp_path / "new" / "images"
    sample_photos.write(root, seed=1)
    listing = list_images(root)
    assert listing.classes == tuple(sorted(sample_photos.SCENES))
    assert listing.splits() == ["train", "validation", "test"]
    broken = 2  # added; a third is one of the photos, cut short
    assert len(listing.refs) == len(sample_photos.SCENES) * 4 + broken
    assert not list(root.parent.glob(".*"))


def test_a_seed_decides_every_byte(few, tmp_path: Path) -> None:
    collections = []
    for name in ("a", "b"):
        root = tmp_path / name
        sample_photos.write(root, seed=1)
        paths = sorted(root.rglob("*.jpg"))
        collections.append([(p.relative_to(root), p.read_bytes()) for p in paths])
    assert collections[0] == collections[1]


def test_what_is_there_is_left_alone(few, tmp_path: Path) -> None:
    (tmp_path / "mine.jpg").write_bytes(b"my photo")
    sample_photos.write(tmp_path, seed=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.jpg"]


@pytest.mark.parametrize("label", sorted(sample_photos.SCENES))
def test_photos_are_large_and_differ(label: str) -> None:
    rng = np.random.default_rng(0)
    one, two = (sample_photos.paint(sample_photos.SCENES[label], rng) for _ in range(2))
    assert one != two
    assert 100_000 < len(one) < 1_000_000
    assert Image.open(io.BytesIO(one)).size == (
        sample_photos.WIDTH,
        sample_photos.HEIGHT,
    )
