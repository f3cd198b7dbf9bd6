"""Training as a run does it, for benchmarks: from random weights, saving nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import keras
import tensorflow as tf
from tqdm import tqdm

from pipeline.dataset.manifest import Dataset, ImageContract
from pipeline.system.errors import UsageError
from trainer import model
from trainer.cache import features as kept
from trainer.cache import training_inputs
from trainer.cache.features import Features
from trainer.cache.policy import CacheChoice
from trainer.cache.training_inputs import TrainingInputs
from trainer.data import input_pipeline as data
from trainer.recipe import Recipe
from trainer.training import optimizer
from trainer.training.loop import Loop, Metrics, Trained


def build(
    image: ImageContract,
    classes: int,
    steps: int,
    recipe: Recipe,
    strategy: tf.distribute.Strategy,
) -> tuple[keras.Model, keras.Optimizer]:
    """A network and its optimizer, as in the last phase of a recipe.

    Args:
        image: what comes in.
        classes: how many.
        steps: of an epoch.
        recipe: of the network.
        strategy: of the devices.
    """
    phase = recipe.phases()[-1]
    with strategy.scope():
        network = model.build(
            height=image.height,
            width=image.width,
            classes=classes,
            weights="none",
            recipe=recipe,
        )
        model.train_only(network, phase.trainable)
        updates = optimizer.build(recipe, phase, steps)
        updates.build(network.trainable_variables)
    return network, updates


class UnsavedTraining:
    """A network in training; in a `with`, at whose end its threads end.

    Args:
        network, updates: of `build`.
        supplied: what it is trained and validated on.
        recipe: of the network.
        strategy: of the devices.
        steps: of an epoch.
        seed: of the step's own draws.

    Attributes:
        network: in training.
        validates: whether there is a validation split.
    """

    def __init__(
        self,
        network: keras.Model,
        updates: keras.Optimizer,
        supplied: TrainingInputs,
        recipe: Recipe,
        strategy: tf.distribute.Strategy,
        *,
        steps: int,
        seed: int,
    ) -> None:
        self.network, self._steps = network, steps
        self._validation = supplied.validation
        self.validates = supplied.validation is not None
        self._loop = Loop(
            network, updates, strategy, recipe, seed=seed, source=supplied.source
        )
        self._batches = self._loop.feed(supplied.training(0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._batches.close()

    def epoch(self) -> Trained:
        """One more."""
        with tqdm(disable=True) as bar:
            return self._loop.train(self._batches, self._steps, bar=bar)

    def validate(self, batches: tf.data.Dataset | None = None) -> Metrics:
        """On the validation split, or on other rows of features."""
        chosen = self._validation if batches is None else batches
        assert chosen is not None
        return self._loop.evaluate(chosen)


def plans(
    recipe: Recipe, image: ImageContract, dtypes: Sequence[str]
) -> dict[str, Features]:
    """Plans what is kept of each image, by dtype.

    Raises:
        UsageError: the recipe leaves nothing to keep.
    """
    try:
        return {dtype: kept.plan(recipe, image, dtype=dtype) for dtype in dtypes}
    except ValueError as error:
        raise UsageError(f"there are no features to measure: {error}") from error


def start(
    dataset: Dataset,
    recipe: Recipe,
    strategy: tf.distribute.Strategy,
    *,
    features: Features | None,
    folder: Path,
    seed: int = 1,
) -> UnsavedTraining:
    """Of a dataset, with the same weights, order and dropout for the same seed.

    Args:
        dataset: of the images.
        recipe: of the network.
        strategy: of the devices.
        features: that are in the folder, or will be; without them, pixels in memory.
        folder: see training_inputs.of_features.
        seed: of all of them.
    """
    keras.utils.set_random_seed(seed)
    steps = data.steps_per_epoch(dataset, recipe.batch_size)
    network, updates = build(
        dataset.image, len(dataset.classes), steps, recipe, strategy
    )
    if features:
        supplied = training_inputs.of_features(
            CacheChoice("features", "", features=features),
            dataset,
            folder,
            network=network,
            strategy=strategy,
            recipe=recipe,
            seed=seed,
        )
    else:
        supplied = training_inputs.of_pixels(
            CacheChoice("decoded", ""),
            dataset,
            folder,
            batch_size=recipe.batch_size,
            seed=seed,
        )
    return UnsavedTraining(
        network, updates, supplied, recipe, strategy, steps=steps, seed=seed
    )
