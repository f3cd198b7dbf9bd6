"""The benchmark, on a handful of small photos: what it says, not how fast it is."""

import json
from pathlib import Path

import pytest

from benchmarks.shards import jpeg_quality, shard_job
from benchmarks.shards.baselines import BASELINES, Baseline
from benchmarks.shards.job_timings import Setup
from pipeline.dataset.manifest import ImageContract
from pipeline.system.errors import RunError
from tests.support.photos import HEIGHT, WIDTH
from tests.support.processes import Program

CONTRACT = ImageContract(height=HEIGHT, width=WIDTH)
SIZE = (f"--height={HEIGHT}", f"--width={WIDTH}")


def test_slopes_and_start_up_are_apart() -> None:
    """10 s to start, 100 images/s, and a contender of 50."""
    setup = Setup([], CONTRACT, images=1600, workers=2, repeats=2)
    samples = {
        "small job": [12, 12.5],
        "large job": [26, 26.5],
        "small job, one worker": [13.5, 13.5],
        "large job, one worker": [41.5, 41.5],
        "empty Beam job": [9, 9],
        BASELINES[1].name: [50, 40],
    }
    figures = {one.name: one for one in shard_job.figures(setup, samples)}
    assert figures["shard job, 2 processes"].values == (100, 100)
    assert figures[f"shard job / {BASELINES[1].name}"].values == (2, 2.5)
    assert figures["1 → 2 processes"].values == (2, 2)
    assert figures["1 → 2 processes"].at_least == 1.9
    assert figures["start-up of the shard job"].values == (10, 10.5)
    assert figures["start-up above an empty job"].values == (1, 1.5)


def test_a_short_benchmark(
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Everything but TensorFlow, in one process; the JSON says what the table says."""
    monkeypatch.setattr(Baseline, "installed", lambda one: one.package == "numpy")
    monkeypatch.delitem(jpeg_quality.DECODERS, "tensorflow")
    output = tmp_path / "bench.json"
    shard_job.run(
        images,
        contract=CONTRACT,
        count=16,
        workers=1,
        repeats=1,
        output=output,
        beam_arguments=["--direct_running_mode=in_memory"],
    )
    text = capsys.readouterr().out
    assert "skipped: TensorFlow" in text
    value = json.loads(output.read_text())
    assert value["setup"]["photos"] == 40  # two of the 42 are broken
    assert value["machine"]["cores"] >= 1
    assert value["machine"]["processor"] in text
    names = {figure["name"] for figure in value["figures"]}
    assert "shard job / the bare image function" in names
    assert all(name in text for name in names)
    assert len(value["encodings"]) == len(jpeg_quality.SETTINGS)


@pytest.mark.slow
def test_the_whole_benchmark(images: Path, program: Program, tmp_path: Path) -> None:
    result = program(
        *("benchmarks", "shards", f"--images={images}", "--bench_images=32"),
        *("--repeats=1", "--workers=2", *SIZE, f"--output={tmp_path / 'bench'}"),
    )
    assert result.returncode == 0, result.stderr
    value = json.loads((tmp_path / "bench" / "shards.json").read_text())
    names = {figure["name"] for figure in value["figures"]}
    assert {"1 → 2 processes", "TensorFlow, full decode, area"} <= names
    assert set(value["encodings"][0]["rates"]) == {"simplejpeg", "tensorflow"}


def test_photos_are_needed(tmp_path: Path) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "images" / "a" / "x.jpg").write_text("no photo")
    with pytest.raises(RunError, match=r"none of 1 files of .* is a JPEG"):
        shard_job.run(
            tmp_path / "images", contract=CONTRACT, count=8, workers=1, repeats=1
        )


def test_the_folder_of_the_json_is_there_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no folder"):
        shard_job.run(
            tmp_path,
            contract=CONTRACT,
            count=8,
            workers=1,
            repeats=1,
            output=tmp_path / "missing" / "bench.json",
        )
