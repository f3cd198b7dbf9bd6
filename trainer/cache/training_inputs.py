"""The batches of a phase: of pixels, or of what the frozen layers make of them."""

import contextlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from pipeline.dataset.manifest import Dataset
from pipeline.system import resources
from trainer.cache import feature_extraction, features, policy
from trainer.cache.features import Features
from trainer.cache.policy import CacheChoice
from trainer.data import input_pipeline as data
from trainer.options import CacheOptions
from trainer.recipe import Recipe
from trainer.training.step import InputSource


@dataclass(frozen=True)
class TrainingInputs:
    """What a loop trains and validates on.

    Attributes:
        choice: how it is kept.
        training: from the number of its first batch to an endless dataset.
        validation: every row once; None without a validation split.
        source: of what batches bring; None when that is pixels.
    """

    choice: CacheChoice
    training: Callable[[int], tf.data.Dataset]
    validation: tf.data.Dataset | None
    source: InputSource | None = None


def choose(
    dataset: Dataset,
    recipe: Recipe,
    options: CacheOptions,
    *,
    earlier: Mapping[str, Any],
    folder: Path,
    seeded: bool = False,
) -> CacheChoice:
    """Chooses what of the dataset is kept, and how; see policy.choose.

    Args:
        dataset, recipe, options: of the run.
        earlier: the Choice.key of the run that this one goes on with.
        folder: for what is kept on disk.
        seeded: whether the run has a --seed.
    """
    free = resources.free_disk(folder)
    choice = policy.choose(
        options.cache,
        dataset,
        earlier=earlier,
        features=_planned(dataset, recipe, options),
        disk=free + _taken(folder, "features"),
        seeded=seeded,
    )
    # Not at the end of the epochs before: they may take days.
    if choice.features and any(phase.trainable == "all" for phase in recipe.phases()):
        later = policy.after_features(choice, dataset)
        left = free + _taken(folder, "features", "pixels")
        policy.refuse_short_disk(later, dataset, left - choice.features.bytes(dataset))
    return choice


def of_pixels(
    choice: CacheChoice, dataset: Dataset, folder: Path, *, batch_size: int, seed: int
) -> TrainingInputs:
    """Supplies pixels from shards, or from a cache that is filled now.

    Args:
        choice: of policy.choose, but no features.
        dataset: of the images.
        folder: for what is kept on disk.
        batch_size: global.
        seed: of the order.
    """
    stores = policy.stores(choice, dataset, folder)

    def training(first: int) -> tf.data.Dataset:
        how = {"batch_size": batch_size, "seed": seed, "first_batch": first}
        if "train" in stores:
            return data.from_store(stores["train"], **how)
        return data.for_training(dataset, **how)

    validation = None
    if "validation" in stores:
        validation = data.in_order(stores["validation"], batch_size=batch_size)
    elif has_validation(dataset):
        shards = dataset.split("validation").shards
        batches = data.for_inference(dataset, shards, batch_size=batch_size)
        validation = batches.map(lambda batch: (batch.images, batch.labels))
    return TrainingInputs(choice, training, validation)


def of_features(
    choice: CacheChoice,
    dataset: Dataset,
    folder: Path,
    *,
    network: keras.Model,
    strategy: tf.distribute.Strategy,
    recipe: Recipe,
    seed: int,
) -> TrainingInputs:
    """Supplies features, and computes first what the folder lacks of them.

    Args:
        choice: of policy.choose, of features.
        dataset, folder, seed: see `of_pixels`.
        network, strategy, recipe: see feature_extraction.keep.
    """
    kept = choice.features
    assert kept
    rows = {
        split: feature_extraction.keep(
            network,
            strategy,
            dataset,
            split,
            folder / f"{split}-features",
            features=kept,
            recipe=recipe,
        )
        for split in ("train", "validation")
        if split == "train" or has_validation(dataset)
    }
    size = recipe.batch_size
    validation = None
    if "validation" in rows:
        validation = data.in_order(rows["validation"], batch_size=size)
    return TrainingInputs(
        choice,
        lambda first: data.from_store(
            rows["train"],
            batch_size=size,
            seed=seed,
            first_batch=first,
        ),
        validation,
        features.source(network, kept),
    )


def has_validation(dataset: Dataset) -> bool:
    """Returns whether there is a validation split with something in it."""
    split = dataset.splits.get("validation")
    return split is not None and split.examples > 0


def _taken(folder: Path, *contents: str) -> int:
    """Returns the bytes of earlier caches, which will be used or replaced.

    Args:
        folder: of the caches.
        contents: `features`, `pixels`.
    """
    taken = 0
    for split, content in itertools.product(("train", "validation"), contents):
        name = f"{split}-features" if content == "features" else split
        for path in (folder / name).rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # a run that fills it goes on
                taken += path.stat().st_size
    return taken


def _planned(dataset: Dataset, recipe: Recipe, options: CacheOptions) -> Features | str:
    """Plans what could be kept of the frozen layers, or says why nothing can."""
    try:
        return features.plan(recipe, dataset.image, dtype=options.feature_dtype)
    except ValueError as error:
        return str(error)
