"""Histograms of the source images: fixed buckets, sums that know no order."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from pipeline.dataset import originals
from pipeline.dataset.manifest import ImageContract
from pipeline.dataset.originals import Histograms, Original
from pipeline.images import conversion

CONTRACT = ImageContract(height=32, width=40)


@pytest.mark.parametrize(
    ("original", "size", "expected"),
    [
        (("jpeg", 1200, 1600), 250_000, ("jpeg", "1024x1024", "1.25", "131072")),
        (("jpeg", 533, 400), 26_000, ("jpeg", "512x256", "0.7", "16384")),
        (("png", 1, 1), 1, ("png", "1x1", "0.95", "1")),
        (("png", 1, 50_000), 65_536, ("png", "1x32768", "4", "65536")),
        (("gif", 50_000, 1), 65_535, ("gif", "32768x1", "0", "32768")),
        (("webp", 1080, 1920), 2**20, ("webp", "1024x1024", "1.6", "1048576")),
        (("mpo", 2000, 3000), 3, ("mpo", "1024x2048", "1.4", "2")),
        (("bmp", 300, 200), 7, ("bmp", "256x128", "0.62", "4")),
    ],
)
def test_the_bucket_of_an_image(
    original: tuple[str, int, int], size: int, expected: tuple[str, ...]
) -> None:
    histograms: Histograms = {}
    originals.count(histograms, Original(*original), size)
    kinds = ("format", "height_x_width", "aspect", "bytes")
    assert histograms == {
        kind: {bucket: 1} for kind, bucket in zip(kinds, expected, strict=True)
    }


def test_the_number_of_buckets_is_bounded() -> None:
    histograms: Histograms = {}
    for height, width in itertools.product(range(1, 400, 3), repeat=2):
        originals.count(histograms, Original("jpeg", height, width), height * width)
    assert {kind: len(counts) for kind, counts in histograms.items()} == {
        "format": 1,
        "height_x_width": 64,
        "aspect": 13,
        "bytes": 17,
    }


def test_sums_know_no_order() -> None:
    rng = np.random.default_rng(3)
    images = [
        (Original("jpeg", int(height), int(width)), int(height * width))
        for height, width in rng.integers(1, 3000, (60, 2))
    ]
    sums = []
    for parts in (1, 2, 7):
        shards: list[Histograms] = [{} for _ in range(parts)]
        for index, (original, size) in enumerate(images):
            originals.count(shards[index % parts], original, size)
        sums += [originals.total(shards), originals.total(reversed(shards))]
    assert all(found == sums[0] for found in sums)
    assert sum(sums[0]["bytes"].values()) == len(images)


def encoded(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    pixels = np.zeros((60, 90, 3), np.uint8)
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def sideways() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded("JPEG"), ("jpeg", 60, 90)),
        (encoded("JPEG", progressive=True), ("jpeg", 60, 90)),
        (encoded("JPEG", exif=sideways()), ("jpeg", 90, 60)),
        (encoded("PNG"), ("png", 60, 90)),
        (encoded("PNG", exif=sideways()), ("png", 90, 60)),
        (encoded("GIF"), ("gif", 60, 90)),
        (encoded("BMP"), ("bmp", 60, 90)),
        (encoded("WEBP", exif=sideways()), ("webp", 90, 60)),
    ],
)
def test_what_a_header_says(data: bytes, expected: tuple[str, int, int]) -> None:
    """Of the upright picture, and not of what the decoder scaled it to."""
    stored, original = conversion.convert_described(data, CONTRACT)
    assert original == Original(*expected)
    assert stored == conversion.convert(data, CONTRACT)
