"""What a phase trains on: filled from the dataset, and served in batches."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from pipeline.dataset.manifest import Dataset
from trainer.cache import content, feature_extraction, in_memory, on_disk, policy
from trainer.cache.policy import CacheChoice
from trainer.cache.stores import Encoded, Rows
from trainer.data import input_pipeline as data
from trainer.recipe import Recipe
from trainer.training.step import InputSource


@dataclass(frozen=True)
class TrainingInputs:
    """What a loop trains and validates on.

    Attributes:
        choice: how it is kept.
        training: from the number of its first batch to an endless dataset of
            (pixels or features, int64[batch]).
        validation: the same of every row once; None without a validation split.
        source: makes the input of the model of features; None for pixels.
    """

    choice: CacheChoice
    training: Callable[[int], tf.data.Dataset]
    validation: tf.data.Dataset | None
    source: InputSource | None = None


def prepare(
    choice: CacheChoice,
    dataset: Dataset,
    folder: Path,
    *,
    network: keras.Model,
    strategy: tf.distribute.Strategy,
    recipe: Recipe,
    seed: int,
) -> TrainingInputs:
    """Fills what the cache lacks of both splits.

    Args:
        choice: of policy.for_phase.
        dataset: of the images.
        folder: for what is kept on disk.
        network: with its final weights in the frozen layers; for features.
        strategy: of the network; all its replicas compute features.
        recipe: of the run.
        seed: of the order.

    Raises:
        RunError: the disk is too small, or a folder there is not ours.
    """
    size = recipe.batch_size

    def store(split: str) -> data.Store:
        if choice.kind == "encoded":
            return Encoded(dataset, split)
        if choice.features:
            kept = feature_extraction.content(
                choice.features,
                dataset,
                split,
                network=network,
                strategy=strategy,
                recipe=recipe,
            )
        else:
            kept = content.pixels(dataset, split)
        if choice.on_disk:
            at = policy.folder_of(choice.kind, split, folder)
            return Rows(on_disk.fill(kept, at))
        return Rows(in_memory.fill(kept))

    validates = "validation" in policy.splits(dataset)
    if choice.kind == "none":
        return TrainingInputs(
            choice,
            lambda first: data.for_training(
                dataset, batch_size=size, seed=seed, first_batch=first
            ),
            _validation(dataset, size) if validates else None,
        )
    source = None
    if choice.features:
        source = feature_extraction.source(network, choice.features)
    train = store("train")
    validation = store("validation") if validates else None
    return TrainingInputs(
        choice,
        lambda first: data.from_store(
            train, batch_size=size, seed=seed, first_batch=first
        ),
        data.in_order(validation, batch_size=size) if validation else None,
        source,
    )


def _validation(dataset: Dataset, batch_size: int) -> tf.data.Dataset:
    """Reads the validation split once, in the batches that a cache would serve.

    Returns:
        Elements (uint8[batch, height, width, 3], int64[batch]).
    """
    shards = dataset.split("validation").shards
    batches = data.for_inference(dataset, shards, batch_size=batch_size)
    return batches.map(lambda batch: (batch.images, batch.labels))  # record.Batch
