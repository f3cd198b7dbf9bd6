"""The batches of a phase: of pixels, or of what the frozen layers make of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from pipeline.dataset.manifest import Dataset
from pipeline.system import resources
from trainer.cache import feature_extraction, features, policy
from trainer.cache.features import Features
from trainer.cache.policy import Choice
from trainer.data import input_pipeline as data
from trainer.options import Options
from trainer.recipe import Recipe
from trainer.resident import OnDevices
from trainer.training import distribution
from trainer.training.step import Source

_DEVICE_SHARE = 0.5  # of the memory of the GPUs, for features


@dataclass(frozen=True)
class Supply:
    """What a loop trains and validates on.

    Attributes:
        choice: how it is kept.
        training: from the number of its first batch to an endless dataset.
        validation: every row once; None without a validation split.
        source: of what batches bring; None when that is pixels.
    """

    choice: Choice
    training: Callable[[int], tf.data.Dataset]
    validation: tf.data.Dataset | None
    source: Source | None = None


def choose(
    dataset: Dataset,
    recipe: Recipe,
    options: Options,
    *,
    earlier: Mapping[str, Any],
    folder: Path,
) -> Choice:
    """What of the dataset is kept, and how; see cache.choose.

    Args:
        dataset, recipe, options: of the run.
        earlier: the Choice.key of the run that this one goes on with.
        folder: for what is kept on disk.
    """
    return policy.choose(
        options.cache,
        dataset,
        earlier=earlier,
        features=_planned(dataset, recipe, options, earlier),
        disk=resources.free_disk(folder),
    )


def of_pixels(
    choice: Choice, dataset: Dataset, folder: Path, *, batch_size: int, seed: int
) -> Supply:
    """From shards, or from a cache that is filled now.

    Args:
        choice: of cache.choose, but no features.
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
    return Supply(choice, training, validation)


def of_features(
    choice: Choice,
    dataset: Dataset,
    folder: Path,
    *,
    network: keras.Model,
    strategy: tf.distribute.Strategy,
    recipe: Recipe,
    seed: int,
    options: Options,
    alive: Callable[[], None],
) -> Supply:
    """From features, which are computed now as far as the folder lacks them.

    Args:
        choice: of cache.choose, of features.
        dataset, folder, seed: see `of_pixels`.
        network, strategy, recipe, alive: see extract.keep.
        options: of the run; they say where training features are.
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
            alive=alive,
        )
        for split in ("train", "validation")
        if split == "train" or has_validation(dataset)
    }
    size = recipe.batch_size
    validation = None
    if "validation" in rows:
        validation = data.in_order(rows["validation"], batch_size=size)
    if _on_devices(kept, dataset, options):
        tables = OnDevices(rows["train"], kept, strategy)
        return Supply(
            choice,
            lambda first: tables.batches(batch_size=size, seed=seed, first_batch=first),
            validation,
            tables.source(network),
        )
    return Supply(
        choice,
        lambda first: data.from_store(
            rows["train"],
            batch_size=size,
            seed=seed,
            first_batch=first,
            views=kept.views,
            parts=kept.parts,
        ),
        validation,
        features.source(network, kept),
    )


def has_validation(dataset: Dataset) -> bool:
    """Whether there is a validation split, with something in it."""
    split = dataset.splits.get("validation")
    return split is not None and split.examples > 0


def _planned(
    dataset: Dataset, recipe: Recipe, options: Options, earlier: Mapping[str, Any]
) -> Features | str:
    """What could be kept of the frozen layers, or why nothing can."""
    try:
        planned = features.plan(
            recipe,
            dataset.image,
            dtype=options.feature_dtype,
            views=options.feature_views,
        )
    except ValueError as error:
        return str(error)
    if begun := earlier.get("features"):
        return replace(planned, parts=begun["parts"])
    on_each = replace(planned, parts=_replicas(options))
    return on_each if _on_devices(on_each, dataset, options) else planned


def _on_devices(planned: Features, dataset: Dataset, options: Options) -> bool:
    """Whether the training features are to be in the memory of the devices."""
    replicas = _replicas(options)
    if planned.parts != replicas or options.features_on == "host":
        return False
    if options.features_on == "device":
        return True
    if options.virtual_devices or options.cpu:
        return False
    return (
        planned.bytes(dataset) <= _DEVICE_SHARE * replicas * distribution.free_memory()
    )


def _replicas(options: Options) -> int:
    return distribution.count(virtual_devices=options.virtual_devices, cpu=options.cpu)
