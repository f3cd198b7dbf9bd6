"""A small training loop, and what a run leaves."""

import contextlib
import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.system.console import progress
from tests.support.photos import HEIGHT, WIDTH
from tests.support.small_network import small_convolutions
from trainer.recipe import NO_AUGMENTATION, RECIPES

BATCH = 8
SHORT = replace(RECIPES["demo"], epochs=3, batch_size=BATCH)
PLAIN = replace(
    RECIPES["demo"], dropout=0.0, batch_size=BATCH, augmentation=NO_AUGMENTATION
)


@functools.cache
def strategy_of(replicas: int):
    """One for all tests: another one's collectives would have the same keys, and
    TensorFlow remembers the shapes that belong to them."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])


def build(
    replicas: int,
    learning_rate: float = 2e-3,
    seed: int = 3,
    weights=None,
    source=None,
    scaling=None,
    vgg16=False,
    **fields,
):
    """Returns a Loop on so many logical CPUs, from the same weights every time.

    Its network is a small one, unless `vgg16`.
    """
    import keras

    from trainer import model
    from trainer.training import optimizer
    from trainer.training.loop import Loop

    strategy = strategy_of(replicas)
    recipe = replace(PLAIN, **fields)
    keras.utils.set_random_seed(1)
    with strategy.scope():
        with contextlib.nullcontext() if vgg16 else small_convolutions():
            network = model.build(
                height=HEIGHT, width=WIDTH, classes=6, weights="none", recipe=recipe
            )
        model.train_only(network, recipe.trainable)
        # Not RMSprop: its first step is ±3.2 learning rates for any gradient, so that
        # rounding decides where a gradient is all but zero.
        updates = keras.optimizers.SGD(learning_rate)
        if recipe.precision == "mixed_float16":
            updates = (scaling or optimizer.LossScaleOptimizer)(updates)
        updates.build(network.trainable_variables)
    loop = Loop(
        network,
        updates,
        strategy,
        recipe,
        seed=seed,
        class_weights=weights,
        source=source,
    )
    return loop, network, updates


def examples(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 6, 32 * BATCH)  # first: the same for every count
    images = rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8)
    return images, labels[:count]


def batches(tf, count: int, batch: int = BATCH):
    return tf.data.Dataset.from_tensor_slices(examples(count)).batch(batch)


def train(tf, made, steps: int, first: int = 0):
    loop, network, _ = made
    data = batches(tf, BATCH * (first + steps)).skip(first)
    stream = loop.feed(data)
    with progress(steps * BATCH, "test") as bar:
        epoch = loop.train(stream, steps, bar=bar)
    return epoch, network.get_weights()


UNTIMED = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


def outcome(tf, folder: Path) -> dict[str, Any]:
    """Everything that a run leaves, but for times."""
    import keras

    from trainer.training import history

    rows = history.read(folder / "history.csv")
    events = [
        (split, event.step, value.tag)
        for split in ("train", "validation")
        for path in sorted((folder / "tensorboard" / split).iterdir())
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    ]
    models = [folder / "model.keras", *sorted((folder / "snapshot").iterdir())]
    return {
        "history": [[row[name] for name in UNTIMED] for row in rows],
        "tensorboard": sorted(events),
        "models": [path.name for path in models],
        "weights": [
            weight
            for path in models
            for weight in keras.models.load_model(path).get_weights()
        ],
        "files": sorted(path.name for path in folder.rglob("*") if path.is_file()),
    }
