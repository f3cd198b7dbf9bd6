"""The benchmark of the shard job: what it makes of numbers, and what it compares."""

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from benchmarks import harness, shards
from benchmarks.options import ShardsOptions
from pipeline.dataset.manifest import ImageContract
from pipeline.system.errors import RunError
from tests.support.photos import HEIGHT, WIDTH, jpeg, photo
from tests.support.processes import Program

CONTRACT = ImageContract(height=HEIGHT, width=WIDTH)
LARGE = {"height": 4 * HEIGHT, "width": 4 * WIDTH}


def options(images: Path, output: Path, **changed: object) -> ShardsOptions:
    given = {"contract": CONTRACT, "bench_images": 1600, "workers": 2, **changed}
    return ShardsOptions(images=images, output=output, **given)


def judged(**changed: list[float]) -> dict[str, harness.Figure]:
    """A job of 10 s to start and 100 images/s, and a baseline of 50 and 40."""
    samples = {
        shards.SMALL: [12, 12.5],
        shards.LARGE: [26, 26.5],
        shards.ALONE_SMALL: [13.5, 13.5],
        shards.ALONE_LARGE: [41.5, 41.5],
        shards.EMPTY: [9, 9],
        shards.RESIZER: [50, 40],
        **changed,
    }
    shards.derive(samples, options(Path(), Path()))
    found = harness.figures(samples, shards.TARGETS, shards.UNITS)
    return {figure.name: figure for figure in found}


def test_slopes_and_start_up_are_apart() -> None:
    figures = judged()
    assert figures[shards.JOB].values == (100, 100)
    assert figures[shards.ALONE].values == (50, 50)
    ratio = figures[f"{shards.JOB} / {shards.RESIZER}"]
    assert (ratio.values, ratio.target()) == ((2, 2.5), "≥ 1.85  met")
    assert figures[shards.START].values == (10, 10.5)
    assert figures[shards.ABOVE].values == (1, 1.5)
    assert figures[shards.ABOVE].target() == "≤ 1.5  met"


@pytest.mark.parametrize(
    ("slower", "missed"),
    [
        # 14 s more for the images between the two sizes: half the rate.
        ({"large job": [40, 40.5]}, f"{shards.JOB} / {shards.RESIZER}"),
        # As much more for both sizes: the start-up alone.
        ({"small job": [14, 14.5], "large job": [28, 28.5]}, shards.ABOVE),
        # No slope at all.
        ({"large job": [12, 26.5]}, f"{shards.JOB} / {shards.RESIZER}"),
    ],
)
def test_a_slower_job_misses_its_target(
    slower: dict[str, list[float]], missed: str
) -> None:
    assert "MISSED" in judged(**slower)[missed].target()


@pytest.mark.parametrize("name", shards.BASELINES)
def test_every_baseline_makes_the_same_image(tf, name: str) -> None:
    contract = ImageContract(height=HEIGHT, width=WIDTH, quality=95, chroma="444")
    large = jpeg(photo(1, 2, **LARGE))
    ours, theirs = (
        simplejpeg.decode_jpeg(shards.BASELINES[one](contract)(large))
        for one in (shards.BARE, name)
    )
    assert theirs.shape == (HEIGHT, WIDTH, 3)
    assert shards.psnr(ours, theirs) > 35  # area, bicubic and chroma differ


def dawdle(contract: ImageContract) -> shards.Convert:
    """Prepares the bare image function, 20 ms slower."""
    convert = shards.bare(contract)

    def slowly(data: bytes) -> bytes:
        time.sleep(0.02)
        return convert(data)

    return slowly


def test_a_slower_baseline_is_found_slower(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg(photo(0, 1)))
    fast, slow = (
        shards.rate(prepare, [path], CONTRACT, 20, 2)
        for prepare in (shards.bare, dawdle)
    )
    assert slow <= 2 / 0.02  # of two processes
    assert fast > slow


def test_psnr() -> None:
    black = np.zeros((2, 2, 3), np.uint8)
    assert shards.psnr(black, black) == 100
    assert shards.psnr(black, black + 255) == pytest.approx(0)
    assert shards.psnr(black, black + 1) == pytest.approx(48.13, abs=0.01)


def test_scaled_decoding_loses_what_it_leaves_out() -> None:
    """Nothing where it decodes in full, little in a smooth photo, more in noise."""
    noise = np.random.default_rng(1).integers(
        0, 256, (4 * HEIGHT, 4 * WIDTH, 3), np.uint8
    )
    pictures = [photo(0, 1), photo(0, 1, **LARGE), noise]
    full, smooth, grainy = shards.scaled_decoding(list(map(jpeg, pictures)), CONTRACT)
    assert full > 50
    assert full >= smooth > grainy > 20


def test_encodings_trade_loss_for_bytes() -> None:
    data = [jpeg(photo(channel, channel)) for channel in range(3)]
    found = shards.encodings(data, CONTRACT, repeats=2, seconds=0.01)
    assert [len(one["rates"]["simplejpeg"]) for one in found] == [2] * 6
    for chroma in ("420", "444"):
        rows = [one for one in found if one["chroma"] == chroma]
        for key in ("quality", "psnr", "bytes"):
            values = [one[key] for one in rows]
            assert values == sorted(values)


@pytest.mark.integration
def test_a_short_benchmark(
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In one child process, beside one baseline; the JSON says what the table says."""
    monkeypatch.setattr(shards, "BASELINES", {shards.BARE: shards.bare})
    small = {"bench_images": 16, "workers": 1, "repeats": 1, "seconds": 0.01}
    shards.run(options(images, tmp_path / "bench", **small))
    text = capsys.readouterr().out
    value = json.loads((tmp_path / "bench" / "shards.json").read_text())
    assert value["setup"]["photos"] == 40  # two of the 42 are broken
    assert value["machine"]["processor"] in text
    names = {figure["name"] for figure in value["figures"]}
    assert f"{shards.JOB} / {shards.BARE}" in names
    assert all(name in text for name in names)
    seconds = {one["name"]: one["median"] for one in value["figures"]}
    assert seconds[shards.SMALL] > 0
    assert len(value["encodings"]) == 6


@pytest.mark.slow
def test_the_whole_benchmark(images: Path, program: Program, tmp_path: Path) -> None:
    result = program(
        *("benchmarks", "shards", f"--images={images}", "--bench_images=32"),
        *(f"--height={HEIGHT}", f"--width={WIDTH}", "--repeats=1", "--workers=2"),
        f"--output={tmp_path / 'bench'}",
    )
    assert result.returncode == 0, result.stderr
    value = json.loads((tmp_path / "bench" / "shards.json").read_text())
    figures = {one["name"]: one for one in value["figures"]}
    assert figures[f"{shards.JOB} / {shards.ALONE}"]["at_least"] == 1.9
    for name in (*shards.BASELINES, shards.ALONE_SMALL, shards.EMPTY):
        assert math.isfinite(figures[name]["median"])


def test_photos_are_needed(tmp_path: Path) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "images" / "a" / "x.jpg").write_text("no photo")
    with pytest.raises(RunError, match=r"none of 1 files of .* is a JPEG"):
        shards.run(options(tmp_path / "images", tmp_path / "bench"))
    assert not (tmp_path / "bench").exists()
