"""What training from features saves: beside training from pixels, epoch by epoch.

All networks begin with the same weights, and see the same batches and the same dropout.
"""

import contextlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from benchmarks import harness
from benchmarks.harness import Samples, Target
from benchmarks.options import FeaturesOptions
from benchmarks.training import UnsavedTraining
from pipeline.dataset import manifest
from pipeline.dataset.manifest import Dataset
from pipeline.system import console, resources
from pipeline.system.errors import UsageError
from trainer import model
from trainer.cache import feature_extraction, features, on_disk, policy
from trainer.cache.features import Features
from trainer.data import input_pipeline as data
from trainer.data import verified_shards
from trainer.recipe import Recipe
from trainer.training import device_feed, distribution

PIXELS, EXACT = "pixels", "float32"
DTYPES = (EXACT, "float16", "uint8")
WAYS = (PIXELS, *DTYPES)

FORWARD, EXTRACT = "the frozen layers alone", "extraction, {}"
TRAIN, VALIDATE, WAIT = "an epoch from {}", "its validation, {}", "input wait, {}"
TOTAL = "all epochs and what comes before, {}"
LOSSES, APART = ("loss", "validation loss"), "{}, float32 apart from pixels"
SIZE, MEMORY = "an image as {}", "memory, {}: {}"
FIELDS = {"own": "RssAnon", "mapped": "RssFile", "peak": "VmHWM"}

TARGETS = (
    *(Target(TRAIN.format(PIXELS), TRAIN.format(one), at_least=4.7) for one in DTYPES),
    *(Target(VALIDATE.format(PIXELS), VALIDATE.format(one)) for one in DTYPES),
    Target(EXTRACT.format(EXACT), FORWARD, at_least=0.9),
    Target(TOTAL.format(PIXELS), TOTAL.format(EXACT), at_least=3.2),
    *(Target(WAIT.format(dtype), at_most=1) for dtype in DTYPES),
    *(Target(APART.format(loss), at_most=1e-4) for loss in LOSSES),
)
UNITS = {
    name.format(way): unit
    for way in WAYS
    for name, unit in (
        *((name, "s") for name in (TRAIN, VALIDATE, TOTAL)),
        *((f"{loss}, {way}", "") for loss in LOSSES),
        *((WAIT, "%"), (SIZE, "KB")),
        *((MEMORY.format(way, field), "MB") for field in FIELDS),
    )
} | {APART.format(loss): "" for loss in LOSSES}


@dataclass(frozen=True)
class _Setup:
    """What every measurement shares; `scratch` has a folder for each dtype."""

    dataset: Dataset
    recipe: Recipe
    strategy: tf.distribute.Strategy
    plans: Mapping[str, Features]
    scratch: Path

    @property
    def counts(self) -> dict[str, int]:
        """Returns the examples of each split that is trained or validated on."""
        splits = self.dataset.splits
        names = [name for name in ("train", "validation") if name in splits]
        return {n: splits[n].examples for n in names if splits[n].examples}

    def training(self, way: str) -> UnsavedTraining:
        """Starts to train, with the same weights whatever the way."""
        return UnsavedTraining(
            self.dataset,
            self.recipe,
            self.strategy,
            features=self.plans.get(way),
            folder=self.scratch / way,
        )


def run(options: FeaturesOptions) -> None:
    """Measures; prints a table; writes features.json.

    Raises:
        RunError: DATASET is at fault.
        UsageError: the recipe leaves nothing to keep.
    """
    resources.limit_arenas()
    dataset, recipe = manifest.load(options.dataset), options.recipe
    data.steps_per_epoch(dataset, recipe.batch_size)
    try:
        plans = {one: features.plan(recipe, dataset.image, dtype=one) for one in DTYPES}
    except ValueError as error:
        raise UsageError(f"there are no features to measure: {error}") from error
    strategy = distribution.strategy(
        virtual_devices=options.virtual_devices, cpu=options.cpu
    )
    distribution.check_batch_size(
        recipe.batch_size, strategy.num_replicas_in_sync * recipe.accumulate
    )
    here, image, plan = harness.machine(), dataset.image, plans[EXACT]
    with (
        verified_shards.naming_damage(dataset),
        tempfile.TemporaryDirectory() as scratch,
    ):
        setup = _Setup(dataset, recipe, strategy, plans, Path(scratch))
        counts = ", ".join(f"{count} {name}" for name, count in setup.counts.items())
        console.say(
            f"{harness.in_words(here)}\n"
            f"images of {image.height}x{image.width} (height x width): {counts}; "
            f"batches of {recipe.batch_size}; {recipe.precision}; features of "
            f"{plan.layer}, {'x'.join(map(str, plan.shape))}"
        )
        samples = _extract(setup, options.repeats, options.seconds)
        _train(setup, options.repeats, options.epochs, samples)
        derive(samples, images=sum(setup.counts.values()), compared=options.repeats)
        for dtype, kept in plans.items():
            images = sum(setup.counts.values())
            samples[SIZE.format(dtype)] = [kept.bytes(dataset) / images / 1e3]
        for way in WAYS:
            used = harness.isolated(_memory, options, plans, setup.scratch, way)
            samples |= {name: [value] for name, value in used.items()}
        harness.report(
            options.output / "features.json",
            here,
            samples,
            TARGETS,
            UNITS,
            replicas=strategy.num_replicas_in_sync,
            examples=setup.counts,
            recipe=asdict(recipe),
            samples=samples,
        )


def _extract(setup: _Setup, repeats: int, seconds: float) -> Samples:
    """Measures the frozen layers alone and the extraction, in turn."""

    def extract(dtype: str) -> float:
        """Returns images/s of all splits, until they are on disk."""
        folder = setup.scratch / dtype
        shutil.rmtree(folder, ignore_errors=True)
        started = time.perf_counter()
        for split in setup.counts:
            content = feature_extraction.content(
                setup.plans[dtype],
                setup.dataset,
                split,
                network=pixels.network,
                strategy=setup.strategy,
                recipe=setup.recipe,
            )
            on_disk.fill(content, policy.folder_of("features", split, folder))
        return sum(setup.counts.values()) / (time.perf_counter() - started)

    with setup.training(PIXELS) as pixels:
        start, size = _frozen_layers(setup, pixels.network), setup.recipe.batch_size
        ways: dict[str, harness.Measure] = {
            FORWARD: partial(harness.stream(start, size), seconds)
        }
        ways |= {EXTRACT.format(dtype): partial(extract, dtype) for dtype in DTYPES}
        return harness.alternate(ways, repeats)


def _frozen_layers(setup: _Setup, network: keras.Model) -> Callable[[], Iterator[Any]]:
    """Prepares the frozen layers on one batch again and again, for nobody."""
    frozen = model.prefix(network, setup.plans[EXACT].layer)
    shards = setup.dataset.split("train").shards
    size = setup.recipe.batch_size
    images = data.for_inference(setup.dataset, shards, batch_size=size)
    same = images.take(1).map(lambda batch: (batch.images,)).repeat()

    @tf.function
    def all_replicas(pixels: Any) -> Any:
        return setup.strategy.run(lambda part: tf.reduce_sum(frozen(part)), (pixels,))

    def start() -> Iterator[Any]:
        fed = device_feed.to_replicas(same, setup.strategy, batch_size=size)
        with contextlib.closing(fed) as batches:
            (pixels,) = next(batches)
        while True:
            yield all_replicas(pixels)

    return start


def _train(setup: _Setup, repeats: int, epochs: int, samples: Samples) -> None:
    """Trains an epoch of each in turn, and validates it."""

    def epoch(way: str, one: UnsavedTraining) -> dict[str, float]:
        trained, loss = one.epoch(), f"loss, {way}"
        found = {
            TRAIN.format(way): trained.seconds,
            WAIT.format(way): 100 * trained.input_wait,
            loss: trained.metrics.loss,
        }
        if one.validates:
            started = time.perf_counter()
            found[f"validation {loss}"] = one.validate().loss
            found[VALIDATE.format(way)] = time.perf_counter() - started
        return found

    with contextlib.ExitStack() as stack:
        ways: dict[str, harness.Measure] = {
            way: partial(epoch, way, stack.enter_context(setup.training(way)))
            for way in WAYS
        }
        harness.alternate(ways, repeats, samples)
        few = {way: ways[way] for way in (PIXELS, EXACT)}
        harness.alternate(few, epochs - repeats, samples)


def derive(samples: Samples, *, images: int, compared: int) -> None:
    """Adds up all epochs and what comes before them, and compares the losses.

    Args:
        samples: of everything but the sizes and the memory.
        images: of all splits that were extracted.
        compared: epochs whose losses are compared, the first ones.
    """
    for way in (PIXELS, EXACT):
        parts = [samples.get(name.format(way), []) for name in (TRAIN, VALIDATE)]
        samples[TOTAL.format(way)] = [sum(map(sum, parts))]
    extraction = images / statistics.median(samples[EXTRACT.format(EXACT)])
    samples[TOTAL.format(EXACT)][0] += extraction
    for loss in LOSSES:
        if f"{loss}, {PIXELS}" in samples:
            ours, theirs = (samples[f"{loss}, {way}"] for way in (EXACT, PIXELS))
            pairs = zip(ours[:compared], theirs[:compared], strict=True)
            samples[APART.format(loss)] = [abs(a / b - 1) for a, b in pairs]


def _memory(
    options: FeaturesOptions, plans: Mapping[str, Features], scratch: Path, way: str
) -> dict[str, float]:
    """Trains and validates for an epoch; returns megabytes of this process."""
    strategy = distribution.strategy(
        virtual_devices=options.virtual_devices, cpu=options.cpu
    )
    dataset = manifest.load(options.dataset)
    setup = _Setup(dataset, options.recipe, strategy, plans, scratch)
    with setup.training(way) as one:
        one.epoch()
        if one.validates:
            one.validate()
        return {
            MEMORY.format(way, name): harness.memory(field)
            for name, field in FIELDS.items()
        }
