"""What the size of features costs: validation accuracy from each dtype, over seeds.

A seed decides the weights, the order and the dropout; within a seed they are the same
for every dtype.
"""

import contextlib
import io
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import tensorflow as tf

from benchmarks.features.feature_results import DTYPES, EXACT
from benchmarks.harness import machine, unsaved_training
from benchmarks.harness.figures import Figure, table
from pipeline.dataset import manifest
from pipeline.dataset.manifest import Dataset
from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath
from pipeline.system import resources
from pipeline.system.console import progress
from pipeline.system.errors import UsageError
from trainer.cache.features import Features
from trainer.data import input_pipeline as data
from trainer.recipe import Recipe
from trainer.training import distribution

_POINTS = 0.1  # of 100, that a smaller dtype may differ by

Accuracies = Mapping[str, Sequence[Sequence[float]]]  # by dtype: of seeds, of epochs


def run(
    folder: AnyPath,
    output: Path,
    *,
    recipe: Recipe,
    repeats: int = 3,
    virtual_devices: int | None = None,
    cpu: bool = False,
) -> None:
    """Trains from every dtype with every seed; prints a table; writes accuracy.json.

    Args:
        folder: DATASET.
        output: folder to make, for the results.
        recipe: of the model, in its last phase.
        repeats: seeds.
        virtual_devices, cpu: see distribution.strategy.

    Raises:
        RunError: DATASET is at fault.
        UsageError: the recipe leaves nothing to keep, or nothing validates.
    """
    resources.limit_arenas()
    dataset = manifest.load(folder)
    data.steps_per_epoch(dataset, recipe.batch_size)
    if "validation" not in dataset.splits or not dataset.split("validation").examples:
        raise UsageError(f"--bench=accuracy: {folder} has no validation images")
    plans = unsaved_training.plans(recipe, dataset.image, DTYPES)
    strategy = distribution.strategy(virtual_devices=virtual_devices, cpu=cpu)
    here = machine.describe()
    examples = {name: dataset.split(name).examples for name in ("train", "validation")}
    print(
        machine.in_words(here),
        f"{examples['train']} train, {examples['validation']} validation; chance is "
        f"{100 / len(dataset.classes):.3g} %; {recipe.epochs} epochs, {repeats} seeds",
        sep="\n",
        flush=True,
    )
    with data.naming_damage(dataset):
        found = _accuracies(dataset, recipe, strategy, plans, seeds=repeats)
    rows = figures(found)
    print("\n".join(table(rows)))
    output.mkdir(parents=True, exist_ok=True)
    value = {
        "machine": here,
        "examples": examples,
        "recipe": asdict(recipe),
        "accuracies": found,
        "figures": [figure.to_json() for figure in rows],
    }
    atomic.write_json(output / "accuracy.json", value)
    print(output / "accuracy.json")


def figures(found: Accuracies) -> list[Figure]:
    """Accuracies of all seeds, and how far a dtype's mean is from float32's.

    Args:
        found: from 0 to 1. The last epoch is judged: before it, a training that goes
            up steeply is at another place for every rounding.
    """
    lines = []
    epochs = len(found[EXACT][0])
    for epoch in range(epochs):
        exact = statistics.mean(seed[epoch] for seed in found[EXACT])
        for dtype in DTYPES:
            values = [seed[epoch] for seed in found[dtype]]
            percent = tuple(100 * value for value in values)
            lines.append(Figure(f"epoch {epoch + 1}, {dtype}", "%", percent))
            if dtype != EXACT:
                apart = 100 * abs(statistics.mean(values) - exact)
                target = _POINTS if epoch + 1 == epochs else None
                name = "its mean / float32's, apart"
                lines.append(Figure(name, "points", (apart,), at_most=target))
    return lines


def _accuracies(
    dataset: Dataset,
    recipe: Recipe,
    strategy: tf.distribute.Strategy,
    plans: Mapping[str, Features],
    *,
    seeds: int,
) -> dict[str, list[list[float]]]:
    """Of every epoch, of every seed, from every dtype."""
    found: dict[str, list[list[float]]] = {dtype: [] for dtype in DTYPES}
    with progress(seeds * len(DTYPES), "training", unit="run") as bar:
        for seed in range(1, seeds + 1):
            for dtype, plan in plans.items():
                with (
                    tempfile.TemporaryDirectory() as scratch,
                    contextlib.redirect_stdout(io.StringIO()),
                    unsaved_training.start(
                        dataset,
                        recipe,
                        strategy,
                        features=plan,
                        folder=Path(scratch),
                        seed=seed,
                    ) as one,
                ):
                    found[dtype].append(_train(one, recipe.epochs))
                bar.update()
    return found


def _train(one: unsaved_training.UnsavedTraining, epochs: int) -> list[float]:
    accuracies = []
    for _ in range(epochs):
        one.epoch()
        accuracies.append(one.validate().accuracy)
    return accuracies
