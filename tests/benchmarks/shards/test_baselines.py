"""Every contender does the same work: a small image of the same photo."""

import pytest
import simplejpeg

from benchmarks.shards import baselines, jpeg_quality
from benchmarks.shards.baselines import BASELINES, Baseline
from pipeline.dataset.manifest import ImageContract
from tests.support.photos import HEIGHT, WIDTH, jpeg, photo

CONTRACT = ImageContract(height=HEIGHT, width=WIDTH, quality=95, chroma="444")
PHOTO = jpeg(photo(1, 2, height=4 * HEIGHT, width=4 * WIDTH))


@pytest.mark.parametrize("contender", BASELINES, ids=lambda one: one.name)
def test_every_contender_makes_the_same_image(tf, contender: Baseline) -> None:
    ours = simplejpeg.decode_jpeg(baselines.bare(CONTRACT)(PHOTO))
    theirs = simplejpeg.decode_jpeg(contender.prepare(CONTRACT)(PHOTO))
    assert theirs.shape == (HEIGHT, WIDTH, 3)
    assert jpeg_quality.psnr(ours, theirs) > 35  # area, bicubic and chroma differ


def test_a_rate_is_that_of_all_processes(tmp_path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(PHOTO)
    rate = baselines.rate(BASELINES[0], [path], CONTRACT, images=6, processes=2)
    assert rate > 0


def test_a_package_may_be_missing() -> None:
    assert BASELINES[0].installed()
    assert not Baseline("x", baselines.bare, 1, package="no_such_package").installed()
