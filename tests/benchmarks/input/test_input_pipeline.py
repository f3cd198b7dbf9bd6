"""The benchmark of the input pipeline: what it says, not how fast anything is."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset import manifest
from tests.support.photos import CLASSES, PER_CLASS
from tests.support.processes import Program

TRAIN = len(CLASSES) * PER_CLASS["train"]  # 24


@pytest.fixture
def results(tf):
    from benchmarks.input import results

    return results


def samples(results, **changed: list[float]) -> dict[str, list[float]]:
    from benchmarks.input import stages

    names = [
        *(*stages.STAGES, results.ENCODED, results.DECODED, results.MODEL),
        *(results.THREADS, results.TURBO, results.ELEMENT, results.GATHER),
        *(results.KERAS, results.FLOW, results.ONE_CORE, results.ALL_CORES),
    ]
    return {name: [100.0, 200.0] for name in names} | {
        results.FIRST_BATCH: [0.5, 0.7],
        **changed,
    }


def test_ratios_are_within_a_repeat(results) -> None:
    from benchmarks.input import stages

    taken = samples(results, **{stages.DECODE: [300.0, 400.0]})
    figures = {one.name: one for one in results.comparisons(taken, cores=2)}
    ratio = figures[f"{stages.DECODE} / {results.ELEMENT}"]
    assert ratio.values == (3, 2)
    assert ratio.at_least == 1.2
    assert figures["1 → 2 cores"].values == (1, 1)
    assert figures["1 → 2 cores"].at_least == 1.85
    assert figures[results.FIRST_BATCH].values == (0.5, 0.7)
    assert not any("originals" in name for name in figures)


def test_originals_count_when_they_were_measured(results) -> None:
    taken = samples(results, **{results.FLOW_ORIGINALS: [2.0, 4.0]})
    figures = {one.name: one for one in results.comparisons(taken, cores=1)}
    (name,) = [name for name in figures if "originals" in name]
    assert figures[name].values == (50, 50)


def test_memory_is_a_slope_without_the_first_epochs(results) -> None:
    resident = [500, 900, *(1000 + 2 * epoch for epoch in range(18))]
    figure = results.memory("from shards", resident)
    assert figure.median == pytest.approx(2)
    assert figure.name == "memory over 20 epochs, from shards"
    assert figure.target().endswith("MISSED")


def test_stages_say_what_they_hand_out(results) -> None:
    from benchmarks.input import stages

    taken = samples(results, **{stages.READ: [1e5], stages.DECODE: [1e4, 3e4, 2e4]})
    lines = results.stage_table(taken, jpeg=1e4, pixels=9e4)
    assert len(lines) == 1 + len(stages.STAGES)
    (read,) = [line for line in lines if line.startswith("read")]
    assert read.split() == ["read", "100,000", "100,000", "100,000", "1", "GB/s"]
    (decode,) = [line for line in lines if line.startswith("decode and batch")]
    assert decode.split()[-5:] == ["20,000", "10,000", "30,000", "1.8", "GB/s"]


def test_a_part_is_the_first_shards(dataset: Path, tf) -> None:
    from benchmarks.input import fixtures

    whole = manifest.load(dataset)
    shards = whole.split("train").shards
    for examples, count in ((1, 1), (shards[0].examples, 1), (TRAIN, 2), (999, 2)):
        part = fixtures.part(whole, examples).split("train")
        assert part.shards == shards[:count]
        assert part.examples == sum(shard.examples for shard in part.shards)


def test_the_same_pictures_as_files(dataset: Path, tmp_path: Path, tf) -> None:
    from benchmarks.input import fixtures

    records = fixtures.records(manifest.load(dataset))
    fixtures.as_files(records, tmp_path / "files")
    found = sorted(tmp_path.glob("files/*/*.jpg"))
    assert sorted(path.read_bytes() for path in found) == sorted(
        one.encoded for one in records
    )
    assert {int(path.parent.name) for path in found} == {0, 1, 2}
    fixtures.as_links(found[:3], tmp_path / "links", 8)
    links = list(tmp_path.glob("links/*/*.jpg"))
    assert len(links) == 8
    assert {link.resolve() for link in links} == set(found[:3])


def test_rates_count_images(tf) -> None:
    """A stream that pauses 10 ms for a batch of 5 gives 500 images/s at most."""
    import time

    from trainer.doctor import throughput

    started = []

    def start():
        started.append(True)
        while True:
            time.sleep(0.01)
            yield None

    rate = throughput.of_batches(start, 5)
    assert 50 < rate(0.1) < 500
    rate(0.1)
    assert len(started) == 2  # anew each time


def test_threads_share_out_the_batches(tf) -> None:
    from trainer.doctor import throughput

    seen = []
    rate = throughput.in_threads(seen.append, [1, 2, 3, 4, 5], threads=2, batch_size=8)
    assert rate(0.01) > 0
    assert set(seen) == {1, 2, 3, 4, 5}


def test_one_process_per_core_decodes(dataset: Path, tf) -> None:
    from benchmarks.input import decode_limit, fixtures

    jpegs = [one.encoded for one in fixtures.records(manifest.load(dataset))]
    assert decode_limit.limit(jpegs, processes=2)(0.05) > 0


def test_the_chart_is_a_picture(results, tmp_path: Path) -> None:
    from PIL import Image

    from benchmarks.harness.figures import Figure
    from benchmarks.input import bar_chart

    ours = [Figure("ours", "images/s", (100.0, 120.0))]
    others = [Figure(f"other {n}", "images/s", (10.0 * n,)) for n in (1, 2, 3)]
    model = Figure("the model", "images/s", (70.0,))
    bar_chart.draw(tmp_path / "bars.png", ours, others, model, title="somewhere")
    pixels = np.asarray(Image.open(tmp_path / "bars.png").convert("RGB"))
    blue = np.abs(pixels.astype(int) - (0, 0x72, 0xB2)).max(axis=2) < 3
    assert blue.any()
    assert [path.name for path in tmp_path.iterdir()] == ["bars.png"]


def test_photos_are_needed(program: Program, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = program(
        *("benchmarks", "input", f"--dataset={dataset}", "--batch_size=8"),
        *(f"--images={tmp_path / 'empty'}", f"--output={tmp_path / 'bench'}"),
    )
    assert result.returncode == 1
    assert not (tmp_path / "bench").exists()


@pytest.mark.slow
def test_the_whole_benchmark(
    program: Program, made_dataset: Path, images: Path, tmp_path: Path
) -> None:
    output = tmp_path / "bench"
    result = program(
        *("benchmarks", "input", f"--dataset={made_dataset}", "--recipe=demo"),
        *("--batch_size=8", f"--images={images}", f"--output={output}"),
        *("--repeats=1", "--cpu"),
    )
    assert result.returncode == 0, result.stderr
    value = json.loads((output / "bench.json").read_text())
    assert value["verdict"][0] in result.stdout
    for figure in value["figures"]:
        assert figure["name"] in result.stdout
        assert math.isfinite(figure["median"])
    names = {figure["name"] for figure in value["figures"]}
    assert "decode and batch / flow_from_directory, originals" in names
    assert "memory over 50 epochs, decoded" in names
    assert {path.name for path in output.iterdir()} == {"bench.json", "bench.png"}
