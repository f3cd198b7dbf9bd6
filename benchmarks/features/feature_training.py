"""What training from features saves: beside training from pixels, epoch by epoch.

All networks begin with the same weights, and see the same batches and the same dropout.
An epoch of each in turn, and its validation; ratios are within a turn.
"""

import contextlib
import io
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.features import feature_results as results
from benchmarks.features.feature_results import DTYPES, EXACT, PIXELS
from benchmarks.harness import isolated, machine, unsaved_training
from benchmarks.harness.figures import Figure, table
from benchmarks.harness.unsaved_training import UnsavedTraining
from pipeline.dataset import manifest
from pipeline.dataset.manifest import Dataset
from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath
from pipeline.system import resources
from pipeline.system.console import progress
from trainer import model
from trainer.cache import feature_extraction, features
from trainer.cache.features import Features
from trainer.data import input_pipeline as data
from trainer.doctor import throughput
from trainer.doctor.throughput import Rate
from trainer.recipe import Recipe
from trainer.training import device_feed, distribution

_EPOCHS = 10
_COMPARED = 3  # epochs, after which weights are compared
_FORWARD_SECONDS = 10.0
_TOGETHER = 64  # images whose cosines are computed at once

Samples = dict[str, list[float]]


@dataclass(frozen=True)
class _Setup:
    """What all of it shares.

    Attributes:
        plans: what is kept, by dtype.
        scratch: has a folder for each dtype.
    """

    dataset: Dataset
    recipe: Recipe
    strategy: tf.distribute.Strategy
    plans: Mapping[str, Features]
    scratch: Path

    @property
    def splits(self) -> list[str]:
        """That are extracted."""
        return [name for name in ("train", "validation") if name in self.counts]

    @property
    def counts(self) -> dict[str, int]:
        """Examples of each split."""
        return {
            name: split.examples
            for name, split in self.dataset.splits.items()
            if split.examples
        }

    def trial(self, way: str) -> UnsavedTraining:
        """From pixels, or from features that are there, with the same weights."""
        return unsaved_training.start(
            self.dataset,
            self.recipe,
            self.strategy,
            features=self.plans.get(way),
            folder=self.scratch / way,
        )


def run(
    folder: AnyPath,
    output: Path,
    *,
    recipe: Recipe,
    repeats: int = 3,
    virtual_devices: int | None = None,
    cpu: bool = False,
) -> None:
    """Measures; prints a table; writes features.json.

    Args:
        folder: DATASET; all of it is trained on.
        output: folder to make, for the results.
        recipe: of the model, in its last phase.
        repeats: of the extraction, and of the epochs from float16 and uint8.
        virtual_devices, cpu: see distribution.strategy.

    Raises:
        RunError: DATASET is at fault.
        UsageError: the recipe leaves nothing to keep.
    """
    resources.limit_arenas()
    dataset = manifest.load(folder)
    data.steps_per_epoch(dataset, recipe.batch_size)
    plans = unsaved_training.plans(recipe, dataset.image, DTYPES)
    strategy = distribution.strategy(virtual_devices=virtual_devices, cpu=cpu)
    distribution.check_batch_size(
        recipe.batch_size, strategy.num_replicas_in_sync * recipe.accumulate
    )
    here = machine.describe()
    with data.naming_damage(dataset), tempfile.TemporaryDirectory() as scratch:
        setup = _Setup(dataset, recipe, strategy, plans, Path(scratch))
        print("\n".join(_introduction(here, setup)), flush=True)
        samples = _take(setup, repeats)
        found = [
            *results.speed(samples, images=setup.counts["train"]),
            *results.sameness(samples, epochs=_COMPARED),
            *_kept(setup),
            *_resident(setup, virtual_devices, cpu),
        ]
    print("\n".join(table(found)))
    output.mkdir(parents=True, exist_ok=True)
    value = {
        "machine": here,
        "replicas": strategy.num_replicas_in_sync,
        "examples": setup.counts,
        "recipe": asdict(recipe),
        "samples": samples,
        "figures": [figure.to_json() for figure in found],
    }
    atomic.write_json(output / "features.json", value)
    print(output / "features.json")


def _introduction(here: Mapping[str, Any], setup: _Setup) -> list[str]:
    image, plan = setup.dataset.image, setup.plans[EXACT]
    counts = ", ".join(f"{count} {name}" for name, count in setup.counts.items())
    return [
        machine.in_words(here),
        f"images of {image.height}x{image.width} (height x width): {counts}; batches "
        f"of {setup.recipe.batch_size}; {setup.recipe.precision}; features of "
        f"{plan.layer}, {'x'.join(map(str, plan.shape))}",
    ]


def _take(setup: _Setup, repeats: int) -> Samples:
    """Extracts, then trains in turn."""
    samples: Samples = defaultdict(list)
    rest = len(DTYPES) - 1
    total = (2 + rest) * repeats + rest + 2 * _EPOCHS
    with progress(total, "measuring", unit="sample") as bar, _silence():
        with setup.trial(PIXELS) as pixels:
            forward = _forward(setup, pixels.network)
            for dtype in (*[EXACT] * repeats, *DTYPES[1:]):
                if dtype == EXACT:
                    samples[results.FORWARD].append(forward(_FORWARD_SECONDS))
                    bar.update()
                _extract(setup, pixels.network, dtype, samples)
                bar.update()
        with contextlib.ExitStack() as stack:
            trials = {
                way: stack.enter_context(setup.trial(way)) for way in (PIXELS, *DTYPES)
            }
            begin = trials[PIXELS].network.get_weights()
            for turn in range(_EPOCHS):
                for way, one in trials.items():
                    if turn < repeats or way in (PIXELS, EXACT):
                        _epoch(way, one, samples)
                        bar.update()
                if turn + 1 == _COMPARED:
                    _compare(begin, trials, samples)
    return dict(samples)


def _forward(setup: _Setup, network: keras.Model) -> Rate:
    """The rate of the frozen layers, on one batch again and again, for nobody."""
    size, strategy = setup.recipe.batch_size, setup.strategy
    frozen = model.prefix(network, setup.plans[EXACT].layer)
    shards = setup.dataset.split("train").shards
    images = data.for_inference(setup.dataset, shards, batch_size=size)
    few = images.take(1).map(lambda batch: (batch.images,)).repeat()

    @tf.function
    def all_replicas(pixels: Any) -> Any:
        return strategy.run(lambda part: tf.reduce_sum(frozen(part)), (pixels,))

    def start() -> Iterator[Any]:
        batches = device_feed.to_replicas(few, strategy, batch_size=size)
        with contextlib.closing(batches):
            (pixels,) = next(batches)
        while True:
            yield all_replicas(pixels)

    return throughput.of_batches(start, size)


def _extract(setup: _Setup, network: keras.Model, dtype: str, samples: Samples) -> None:
    folder = setup.scratch / dtype
    shutil.rmtree(folder, ignore_errors=True)
    for split in setup.splits:
        started = time.perf_counter()
        feature_extraction.keep(
            network,
            setup.strategy,
            setup.dataset,
            split,
            folder / f"{split}-features",
            features=setup.plans[dtype],
            recipe=setup.recipe,
        )
        name = results.EXTRACT if split == "train" else results.EXTRACT_REST
        samples[name.format(dtype)].append(time.perf_counter() - started)


def _epoch(way: str, one: UnsavedTraining, samples: Samples) -> None:
    trained = one.epoch()
    samples[results.TRAIN.format(way)].append(trained.seconds)
    samples[results.WAIT.format(way)].append(trained.input_wait)
    samples[results.LOSS.format(way)].append(trained.metrics.loss)
    if one.validates:
        started = time.perf_counter()
        loss = one.validate().loss
        samples[results.VALIDATE.format(way)].append(time.perf_counter() - started)
        samples[results.VALIDATION_LOSS.format(way)].append(loss)


def _compare(
    begin: list[np.ndarray], trials: Mapping[str, UnsavedTraining], samples: Samples
) -> None:
    """Weights from pixels and from float32 features: of all variables, the worst."""
    ours, theirs = (trials[way].network.get_weights() for way in (EXACT, PIXELS))
    apart = [
        float(np.max(np.abs(a - b) / np.maximum(np.abs(b), 1)))
        for a, b in zip(ours, theirs, strict=True)
    ]
    astray = [
        float(np.linalg.norm(a - b) / np.linalg.norm(b - old))
        for a, b, old in zip(ours, theirs, begin, strict=True)
        if not np.array_equal(b, old)
    ]
    samples[results.APART].append(max(apart))
    samples[results.ASTRAY].append(max(astray))


def _kept(setup: _Setup) -> list[Figure]:
    """Bytes of an image on disk, and cosines with float32, of all splits."""
    found = []
    for dtype in DTYPES:
        cosines: list[float] = []
        size = 0
        for split in setup.splits:
            columns, exact = (_columns(setup, one, split) for one in (dtype, EXACT))
            size += sum(column.nbytes for column in columns.values())
            cosines += _cosines(columns, exact)
        count = sum(setup.counts[split] for split in setup.splits)
        found.append(Figure(f"an image as {dtype}", "KB", (size / count / 1e3,)))
        if dtype != EXACT:
            values = (statistics.mean(cosines),)
            found += [
                Figure(f"cosine, {dtype}, mean", "", values, at_least=0.999),
                Figure(f"cosine, {dtype}, worst", "", (min(cosines),)),
            ]
    return found


def _columns(setup: _Setup, dtype: str, split: str) -> dict[str, np.ndarray]:
    folder = setup.scratch / dtype / f"{split}-features"
    return {
        name: np.load(folder / f"{name}.npy", mmap_mode="r")
        for name in setup.plans[dtype].columns
    }


def _cosines(
    columns: Mapping[str, np.ndarray], exact: Mapping[str, np.ndarray]
) -> list[float]:
    """One for each row, between what is restored and what was there."""
    found: list[float] = []
    for first in range(0, len(exact["features"]), _TOGETHER):
        few = slice(first, first + _TOGETHER)
        ours, theirs = (
            tf.reshape(
                features.restore({n: one[few] for n, one in rows.items()}, "float64"),
                [len(exact["features"][few]), -1],
            )
            for rows in (columns, exact)
        )
        products = tf.reduce_sum(ours * theirs, axis=1)
        found += (
            (products / tf.norm(ours, axis=1) / tf.norm(theirs, axis=1))
            .numpy()
            .tolist()
        )
    return found


def _resident(setup: _Setup, virtual_devices: int | None, cpu: bool) -> list[Figure]:
    """Memory of processes that train and validate for an epoch."""
    found = []
    for way in (PIXELS, *DTYPES):
        memory = isolated.training(
            setup.dataset,
            setup.recipe,
            features=setup.plans.get(way),
            folder=setup.scratch / way,
            virtual_devices=virtual_devices,
            cpu=cpu,
        )
        found += [
            Figure(f"memory, {way}: {name}", "MB", (value,))
            for name, value in memory._asdict().items()
        ]
    return found


def _silence() -> contextlib.AbstractContextManager[Any]:
    """What caches and strategies say is not about the benchmark."""
    return contextlib.redirect_stdout(io.StringIO())
