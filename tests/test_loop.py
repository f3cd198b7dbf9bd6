"""One step on one and on several replicas: the same mathematics."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import HEIGHT, WIDTH

from pipeline.console import RunError, progress
from trainer.recipe import NO_AUGMENTATION, RECIPES, Augmentation

BATCH = 8
AUGMENTED = Augmentation(
    flip=True, crop=0.4, brightness=0.2, contrast=0.2, saturation=0.2
)


@pytest.fixture
def make(tf):
    """A Loop on so many logical CPUs, from the same weights every time."""
    import keras

    from trainer import model
    from trainer.loop import Loop

    def build(
        replicas: int,
        learning_rate: float = 2e-3,
        augmentation: Augmentation = NO_AUGMENTATION,
        seed: int = 3,
    ):
        devices = [f"CPU:{index}" for index in range(replicas)]
        strategy = tf.distribute.MirroredStrategy(devices)
        recipe = replace(RECIPES["demo"], dropout=0.0)
        keras.utils.set_random_seed(1)
        with strategy.scope():
            network = model.build(
                height=HEIGHT, width=WIDTH, classes=6, weights="none", recipe=recipe
            )
            # Not RMSprop: its first step is ±3.2 learning rates for any gradient, so
            # that rounding decides where a gradient is all but zero.
            updates = keras.optimizers.SGD(learning_rate)
            updates.build(network.trainable_variables)
        loop = Loop(
            network,
            updates,
            strategy,
            batch_size=BATCH,
            augmentation=augmentation,
            seed=seed,
        )
        return loop, network, updates

    return build


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


@pytest.mark.parametrize("augmentation", [NO_AUGMENTATION, AUGMENTED])
def test_two_replicas_train_as_one(tf, make, augmentation: Augmentation) -> None:
    """Every variable moves by the same amount, to a thousandth of that amount."""
    _, start, _ = make(1)
    before = start.get_weights()
    one, weights_of_one = train(tf, make(1, augmentation=augmentation), 3)
    two, weights_of_two = train(tf, make(2, augmentation=augmentation), 3)
    np.testing.assert_allclose(one.metrics, two.metrics, rtol=1e-4)
    moved = 0
    for old, a, b in zip(before, weights_of_one, weights_of_two, strict=True):
        distance = np.abs(a - old).max()
        assert np.abs(a - b).max() <= 1e-3 * distance
        moved += distance > 0
    assert moved == 3 * 2 + 2 + 4 + 2  # block5, hidden, normalization, probabilities


def test_augmentations_are_a_function_of_seed_and_step(tf, make) -> None:
    """Stopped after a step and gone on with: as if never stopped. Not so with
    another seed, or without augmentation."""
    _, undisturbed = train(tf, make(1, augmentation=AUGMENTED), 2)
    first = make(1, augmentation=AUGMENTED)
    train(tf, first, 1)
    second = make(1, augmentation=AUGMENTED)
    second[1].set_weights(first[1].get_weights())
    second[2].iterations.assign(first[2].iterations)
    _, continued = train(tf, second, 1, first=1)
    for a, b in zip(undisturbed, continued, strict=True):
        np.testing.assert_array_equal(a, b)
    for other in (make(1, augmentation=AUGMENTED, seed=4), make(1)):
        _, weights = train(tf, other, 2)
        assert any(
            not np.array_equal(a, b) for a, b in zip(undisturbed, weights, strict=True)
        )


def test_evaluation_is_not_augmented(tf, make) -> None:
    plain, augmented = (
        make(1, augmentation=a)[0] for a in (NO_AUGMENTATION, AUGMENTED)
    )
    assert plain.evaluate(batches(tf, 9)) == augmented.evaluate(batches(tf, 9))


def test_training_metrics_are_those_of_the_batches(tf, make) -> None:
    """The first step's loss, by hand from the untrained model's probabilities."""
    _, network, _ = make(1)
    images, labels = examples(BATCH)
    probabilities = network(images, training=True).numpy()
    expected = -np.log(probabilities[np.arange(BATCH), labels]).mean()
    epoch, _ = train(tf, make(1), 1)
    assert epoch.metrics.loss == pytest.approx(expected, rel=1e-4)
    hits = (probabilities.argmax(axis=1) == labels).mean()
    assert epoch.metrics.accuracy == hits
    assert 0 <= epoch.input_wait < 1


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("rows", [1, 8, 9, 15])
def test_evaluation_counts_every_row_once(tf, make, replicas: int, rows: int) -> None:
    """The last batch has 1, 8 or 7 rows; with 1, one replica has none."""
    loop, network, _ = make(replicas)
    metrics = loop.evaluate(batches(tf, rows))
    images, labels = examples(rows)
    probabilities = network(images, training=False).numpy()
    right = probabilities[np.arange(rows), labels]
    rank = (probabilities > right[:, None]).sum(axis=1)
    assert metrics.loss == pytest.approx(-np.log(right).mean(), rel=1e-4)
    assert metrics.accuracy == pytest.approx((rank < 1).mean())
    assert metrics.top5_accuracy == pytest.approx((rank < 5).mean())


def test_divergence_stops_at_once(tf, make) -> None:
    made = make(1, learning_rate=1e20)
    with pytest.raises(RunError, match=r"diverged.*--learning_rate"):
        train(tf, made, 30)
