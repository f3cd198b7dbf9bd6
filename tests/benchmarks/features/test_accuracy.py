"""The benchmark of what the size of features costs: what it says."""

import json
from pathlib import Path

import pytest

from tests.support.photos import CLASSES, PER_CLASS


@pytest.fixture
def bench(tf):
    from benchmarks.features import accuracy

    return accuracy


def test_it_is_the_means_of_the_last_epoch_that_are_judged(bench) -> None:
    found = {
        "float32": [[0.5, 0.9], [0.7, 0.9]],
        "float16": [[0.5, 0.9], [0.9, 0.899]],
        "uint8": [[0.7, 0.896], [0.5, 0.9]],
    }
    apart = [one for one in bench.figures(found) if one.unit == "points"]
    assert [one.median for one in apart] == pytest.approx([10, 0, 0.05, 0.2])
    assert [one.target() for one in apart[:2]] == ["", ""]
    assert ["MISSED" in one.target() for one in apart[2:]] == [False, True]


def test_it_runs(bench, dataset: Path, tmp_path: Path) -> None:
    from trainer.recipe import Recipe

    recipe = Recipe(name="small", epochs=2, batch_size=8, hidden=8, learning_rate=1e-6)
    bench.run(dataset, tmp_path / "bench", recipe=recipe, repeats=2, virtual_devices=1)
    found = json.loads((tmp_path / "bench" / "accuracy.json").read_text())
    assert found["examples"]["validation"] == len(CLASSES) * PER_CLASS["validation"]
    for runs in found["accuracies"].values():
        assert [len(epochs) for epochs in runs] == [2, 2]
        assert all(0 <= value <= 1 for epochs in runs for value in epochs)


def test_without_validation_there_is_no_accuracy(
    bench, dataset: Path, tmp_path: Path
) -> None:
    from pipeline.system.errors import UsageError
    from trainer.recipe import Recipe

    manifest = dataset / "dataset.json"
    value = json.loads(manifest.read_text())
    del value["splits"]["validation"]
    manifest.write_text(json.dumps(value))
    recipe = Recipe(name="small", epochs=1, batch_size=8, learning_rate=1e-6)
    with pytest.raises(UsageError, match="has no validation images"):
        bench.run(dataset, tmp_path / "bench", recipe=recipe)
