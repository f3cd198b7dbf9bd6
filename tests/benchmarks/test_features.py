"""The benchmark of features: what it says, not how fast anything is."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import harness
from benchmarks.options import FeaturesOptions
from pipeline.system.errors import UsageError
from tests.support.photos import CLASSES, PER_CLASS
from trainer.recipe import Recipe

SMALL = Recipe(name="small", epochs=2, batch_size=8, hidden=8, learning_rate=1e-6)


@pytest.fixture
def bench(tf):
    from benchmarks import features

    return features


def samples(bench) -> dict[str, list[float]]:
    """Two epochs from everything, and a third from pixels and float32 alone."""
    taken = {bench.FORWARD: [20.0, 40.0]}
    for way in bench.WAYS:
        long = way in (bench.PIXELS, bench.EXACT)
        seconds = 10.0 if way == bench.PIXELS else 2.0
        epochs = [seconds, 2 * seconds, *([3 * seconds] if long else [])]
        taken[bench.TRAIN.format(way)] = epochs
        taken[bench.VALIDATE.format(way)] = [one / 2 for one in epochs]
        taken[bench.WAIT.format(way)] = [2.0] * len(epochs)
        for loss in bench.LOSSES:
            taken[f"{loss}, {way}"] = [4.0] * len(epochs)
        taken[bench.EXTRACT.format(way)] = [20.0, 40.0]
    return taken


def judged(bench, taken: dict[str, list[float]]) -> dict[str, harness.Figure]:
    bench.derive(taken, images=120, compared=2)
    found = harness.figures(taken, bench.TARGETS, bench.UNITS)
    return {figure.name: figure for figure in found}


def test_ratios_are_within_a_turn(bench) -> None:
    figures = judged(bench, samples(bench))
    ratios = [one for one in figures.values() if one.at_least == 4.7]
    assert [one.values for one in ratios] == [(5, 5, 5), (5, 5), (5, 5)]
    (extraction,) = [one for one in figures.values() if one.at_least == 0.9]
    assert extraction.values == (1, 1)
    waits = [one for one in figures.values() if one.at_most == 1]
    assert [one.values for one in waits] == [(2, 2, 2), (2, 2), (2, 2)]


def test_slower_epochs_miss_their_target(bench) -> None:
    taken = samples(bench)
    slow = bench.TRAIN.format("uint8")
    taken[slow] = [2 * one for one in taken[slow]]
    missed = [
        one.name
        for one in judged(bench, taken).values()
        if one.at_least == 4.7 and "MISSED" in one.target()
    ]
    assert missed == [f"{bench.TRAIN.format(bench.PIXELS)} / {slow}"]


def test_all_epochs_include_the_extraction(bench) -> None:
    """Its median is 30 images/s, or 4 s for 120 images."""
    (total,) = [
        one for one in judged(bench, samples(bench)).values() if one.at_least == 3.2
    ]
    assert total.values == (pytest.approx(90 / (18 + 4)),)


def test_without_validation_there_are_no_figures_of_it(bench) -> None:
    taken = {
        name: values
        for name, values in samples(bench).items()
        if "validation" not in name
    }
    figures = judged(bench, taken)
    assert not [name for name in figures if "validation" in name]
    (total,) = [one for one in figures.values() if one.at_least == 3.2]
    assert total.values == (pytest.approx(60 / (12 + 4)),)


def test_losses_of_the_first_epochs_are_compared(bench) -> None:
    taken = samples(bench)
    taken[f"loss, {bench.EXACT}"] = [4.0, 3.0, 1.0]
    figures = judged(bench, taken)
    one, other = (figures[bench.APART.format(loss)] for loss in bench.LOSSES)
    assert (one.values, one.target()) == ((0, 0.25), "≤ 0.0001  MISSED")
    assert (other.values, other.target()) == ((0, 0), "≤ 0.0001  met")


def test_a_recipe_that_trains_all_layers_is_refused(
    bench, made_dataset: Path, tmp_path: Path
) -> None:
    recipe = Recipe(
        name="small", epochs=1, batch_size=8, learning_rate=1e-6, trainable="all"
    )
    options = FeaturesOptions(dataset=made_dataset, output=tmp_path, recipe=recipe)
    with pytest.raises(UsageError, match="no features to measure: trainable is 'all'"):
        bench.run(options)


@pytest.mark.integration
def test_a_short_benchmark(
    bench, made_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory is measured in a process for each way; here, of pixels alone."""
    isolated = harness.isolated

    def of_pixels(function: Any, *arguments: Any) -> dict[str, float]:
        return isolated(function, *arguments) if arguments[-1] == bench.PIXELS else {}

    monkeypatch.setattr(harness, "isolated", of_pixels)
    output = tmp_path / "bench"
    bench.run(
        FeaturesOptions(
            dataset=made_dataset,
            output=output,
            recipe=SMALL,
            repeats=1,
            epochs=3,
            seconds=0.1,
            virtual_devices=1,
        )
    )
    found = json.loads((output / "features.json").read_text())
    assert found["examples"] == {
        split: len(CLASSES) * count for split, count in PER_CLASS.items()
    }
    assert found["replicas"] == 1
    figures = {one["name"]: one for one in found["figures"]}
    ratios = [one for one in found["figures"] if one["unit"] == "times"]
    assert len(ratios) == 8
    assert all(one["median"] > 0 for one in ratios)
    # Pixels and float32 features train alike.
    for loss in bench.LOSSES:
        from_pixels = found["samples"][f"{loss}, {bench.PIXELS}"]
        assert len(from_pixels) == 3
        assert len(found["samples"][f"{loss}, uint8"]) == 1
        apart = figures[bench.APART.format(loss)]
        assert apart["median"] <= apart["at_most"] == 1e-4
    sizes = [
        figures[bench.SIZE.format(dtype)]["median"] for dtype in (bench.EXACT, "uint8")
    ]
    values = (32 // 16) * (40 // 16) * 512
    assert sizes == pytest.approx([values * 4 / 1e3, (values + 512 * 4) / 1e3])
    own, peak = (
        figures[bench.MEMORY.format(bench.PIXELS, field)]["median"]
        for field in ("own", "peak")
    )
    assert 10 < own <= peak < 20_000
