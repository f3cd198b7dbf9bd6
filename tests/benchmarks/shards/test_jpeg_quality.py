"""PSNR, scaled decoding, and the ways to store a small image."""

import numpy as np
import pytest

from benchmarks.shards import jpeg_quality
from pipeline.dataset.manifest import ImageContract
from tests.support.photos import HEIGHT, WIDTH, jpeg, photo

CONTRACT = ImageContract(height=HEIGHT, width=WIDTH)


def noise(seed: int, height: int, width: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return jpeg(pixels)


def test_psnr() -> None:
    black = np.zeros((2, 2, 3), np.uint8)
    assert jpeg_quality.psnr(black, black) == jpeg_quality.MAX_PSNR
    assert jpeg_quality.psnr(black, black + 255) == pytest.approx(0)
    assert jpeg_quality.psnr(black, black + 1) == pytest.approx(48.13, abs=0.01)


def test_scaled_decoding_loses_what_it_leaves_out() -> None:
    """Nothing where it decodes in full, little in a smooth photo, more in noise."""
    full, smooth, grainy = jpeg_quality.scaled_decoding(
        [
            jpeg(photo(0, 1)),
            jpeg(photo(0, 1, height=4 * HEIGHT, width=4 * WIDTH)),
            noise(1, 4 * HEIGHT, 4 * WIDTH),
        ],
        CONTRACT,
    )
    assert full > 50
    assert full >= smooth > grainy > 20


def test_encodings_trade_loss_for_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(jpeg_quality.DECODERS, "tensorflow")
    data = [jpeg(photo(channel, channel)) for channel in range(3)]
    found = jpeg_quality.encodings(data, CONTRACT, decodes=4, repeats=2)
    assert [(one.quality, one.chroma) for one in found] == list(jpeg_quality.SETTINGS)
    assert all(len(one.rates["simplejpeg"]) == 2 for one in found)
    for chroma in ("420", "444"):
        rows = [one for one in found if one.chroma == chroma]
        assert [one.psnr for one in rows] == sorted(one.psnr for one in rows)
        assert [one.bytes for one in rows] == sorted(one.bytes for one in rows)


def test_tensorflow_decodes_what_simplejpeg_does(tf) -> None:
    data = [jpeg(photo(channel, 5, HEIGHT, WIDTH)) for channel in range(3)]
    ours = jpeg_quality.DECODERS["simplejpeg"](CONTRACT)(data)
    theirs = jpeg_quality.DECODERS["tensorflow"](CONTRACT)(data)
    np.testing.assert_array_equal(ours, theirs)
