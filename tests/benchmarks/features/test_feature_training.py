"""The benchmark of features: what it says, not how fast anything is."""

import json
from pathlib import Path

import pytest

from benchmarks.harness import isolated
from tests.support.photos import CLASSES, PER_CLASS


@pytest.fixture
def results(tf):
    from benchmarks.features import feature_results

    return feature_results


def samples(results) -> dict[str, list[float]]:
    """Two epochs from everything, and a third from pixels and float32 alone."""
    taken = {
        results.FORWARD: [20.0, 40.0],
        results.APART: [1e-8],
        results.ASTRAY: [0.5],
    }
    for way in (results.PIXELS, *results.DTYPES):
        long = way in (results.PIXELS, results.EXACT)
        seconds = 10.0 if way == results.PIXELS else 2.0
        epochs = [seconds, 2 * seconds, *([3 * seconds] if long else [])]
        taken[results.TRAIN.format(way)] = epochs
        taken[results.VALIDATE.format(way)] = [one / 2 for one in epochs]
        taken[results.WAIT.format(way)] = [0.02] * len(epochs)
        for loss in (results.LOSS, results.VALIDATION_LOSS):
            taken[loss.format(way)] = [4.0] * len(epochs)
        taken[results.EXTRACT.format(way)] = [5.0, 2.5]
        taken[results.EXTRACT_REST.format(way)] = [1.0]
    return taken


def test_ratios_are_within_a_turn(results) -> None:
    figures = results.speed(samples(results), images=100)
    ratios = [one for one in figures if one.at_least == 4.7]
    assert [one.values for one in ratios] == [(5, 5, 5), (5, 5), (5, 5)]
    (extraction,) = [one for one in figures if one.at_least == 0.9]
    assert extraction.values == (1, 1)
    waits = [one for one in figures if one.at_most == 1]
    assert [one.values for one in waits] == [(2, 2, 2), (2, 2), (2, 2)]


def test_all_epochs_include_the_extraction(results) -> None:
    taken = samples(results)
    totals = [one for one in results.speed(taken, images=100) if one.at_least == 3.2]
    alone, validated = (one.values[0] for one in totals)
    assert alone == pytest.approx(60 / (12 + 3.75))
    assert validated == pytest.approx(90 / (18 + 3.75 + 1))


def test_without_validation_there_are_no_figures_of_it(results) -> None:
    taken = {
        name: values
        for name, values in samples(results).items()
        if "validation" not in name
    }
    figures = [
        *results.speed(taken, images=100),
        *results.sameness(taken, epochs=2),
    ]
    assert not [one.name for one in figures if "validation" in one.name]


def test_differences_are_of_the_first_epochs(results) -> None:
    taken = samples(results)
    taken[results.LOSS.format(results.EXACT)] = [4.0, 3.0, 1.0]
    figures = results.sameness(taken, epochs=2)
    assert [one.values for one in figures] == [(0, 0.25), (0, 0), (1e-8,), (0.5,)]
    assert ["MISSED" in one.target() for one in figures] == [True, False, False, True]


def test_a_recipe_that_trains_all_layers_is_refused(tf, dataset: Path) -> None:
    from benchmarks.features import feature_training
    from pipeline.system.errors import UsageError
    from trainer.recipe import Recipe

    recipe = Recipe(
        name="small", epochs=1, batch_size=8, learning_rate=1e-6, trainable="all"
    )
    with pytest.raises(UsageError, match="no features to measure: trainable is 'all'"):
        feature_training.run(dataset, dataset.parent / "bench", recipe=recipe)


def test_it_runs(
    tf, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On so few images, with less of everything that takes time.

    Memory is measured in a process for each dtype; here, of none of them.
    """
    from benchmarks.features import feature_training
    from trainer.recipe import Recipe

    monkeypatch.setattr(
        isolated, "training", lambda *_, **__: isolated.MemoryUse(1, 2, 3)
    )
    monkeypatch.setattr(feature_training, "_EPOCHS", 3)
    monkeypatch.setattr(feature_training, "_FORWARD_SECONDS", 0.1)
    recipe = Recipe(name="small", epochs=1, batch_size=8, hidden=8, learning_rate=1e-6)
    feature_training.run(
        dataset, tmp_path / "bench", recipe=recipe, repeats=1, virtual_devices=1
    )
    found = json.loads((tmp_path / "bench" / "features.json").read_text())
    assert found["examples"]["train"] == len(CLASSES) * PER_CLASS["train"]
    assert found["replicas"] == 1
    figures = {one["name"]: one for one in found["figures"]}
    ratios = [one for one in found["figures"] if one["unit"] == "times"]
    assert len(ratios) >= 6
    assert all(one["median"] > 0 for one in ratios)
    for dtype in ("float16", "uint8"):
        assert 0.999 <= figures[f"cosine, {dtype}, mean"]["median"] <= 1.000001
        assert figures[f"memory, {dtype}: peak"]["median"] == 3
    taken = found["samples"]
    for loss in ("loss", "validation loss"):
        from_pixels = taken[f"{loss}, pixels"]
        assert len(from_pixels) == 3
        assert taken[f"{loss}, float32"] == pytest.approx(from_pixels, rel=1e-3)
    sizes = [figures[f"an image as {name}"]["median"] for name in ("float32", "uint8")]
    values = (32 // 16) * (40 // 16) * 512
    assert sizes == pytest.approx([values * 4 / 1e3, (values + 512 * 4) / 1e3])


def test_memory_is_that_of_a_process_that_trains(tf, dataset: Path) -> None:
    from pipeline.dataset import manifest
    from trainer.recipe import Recipe

    recipe = Recipe(name="small", epochs=1, batch_size=8, hidden=8, learning_rate=1e-6)
    memory = isolated.training(
        manifest.load(dataset),
        recipe,
        features=None,
        folder=dataset.parent,
        virtual_devices=1,
        cpu=False,
    )
    assert min(memory) > 10
    assert memory.peak < 20_000
    assert memory.own <= memory.peak
