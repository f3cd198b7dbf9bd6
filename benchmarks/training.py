"""Training as a run does it, from random weights, that saves nothing."""

import contextlib
import io
from pathlib import Path
from typing import Self

import keras
import tensorflow as tf
from tqdm import tqdm

from pipeline.dataset.manifest import Dataset
from trainer import model
from trainer.cache import inputs
from trainer.cache.features import Features
from trainer.cache.policy import CacheChoice
from trainer.data import input_pipeline as data
from trainer.recipe import Recipe
from trainer.training import optimizer
from trainer.training.loop import Loop, Metrics, Trained


def build(
    dataset: Dataset, recipe: Recipe, strategy: tf.distribute.Strategy
) -> tuple[keras.Model, keras.Optimizer]:
    """Builds a network and its optimizer, as in the last phase of a recipe."""
    phase = recipe.phases()[-1]
    steps = data.steps_per_epoch(dataset, recipe.batch_size)
    with strategy.scope():
        network = model.build(
            height=dataset.image.height,
            width=dataset.image.width,
            classes=len(dataset.classes),
            weights="none",
            recipe=recipe,
        )
        model.train_only(network, phase.trainable)
        updates = optimizer.build(recipe, phase, steps)
        updates.build(network.trainable_variables)
    return network, updates


class UnsavedTraining:
    """A network in training. Used in a `with`, at whose end its threads end.

    For the same seed, weights, order and dropout are the same.

    Args:
        dataset, recipe, strategy: see `build`.
        features: that are in the folder, or will be; without them, pixels in memory.
        folder: see inputs.prepare.
        seed: of weights, order and dropout.

    Attributes:
        network: in training.
        validates: whether there is a validation split.
    """

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        strategy: tf.distribute.Strategy,
        *,
        features: Features | None,
        folder: Path,
        seed: int = 1,
    ) -> None:
        keras.utils.set_random_seed(seed)
        self.network, updates = build(dataset, recipe, strategy)
        self._steps = data.steps_per_epoch(dataset, recipe.batch_size)
        choice = CacheChoice("decoded", "")
        if features:
            choice = CacheChoice("features", "", on_disk=True, features=features)
        with contextlib.redirect_stdout(io.StringIO()):
            fed = inputs.prepare(
                choice,
                dataset,
                folder,
                network=self.network,
                strategy=strategy,
                recipe=recipe,
                seed=seed,
            )
        self._validation = fed.validation
        self.validates = fed.validation is not None
        self._loop = Loop(
            self.network, updates, strategy, recipe, seed=seed, source=fed.source
        )
        self._batches = self._loop.feed(fed.training(0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._batches.close()

    def epoch(self) -> Trained:
        """Trains for one epoch more."""
        with tqdm(disable=True) as bar:
            return self._loop.train(self._batches, self._steps, bar=bar)

    def validate(self) -> Metrics:
        """Evaluates on the validation split."""
        assert self._validation is not None
        return self._loop.evaluate(self._validation)
