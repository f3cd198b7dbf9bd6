"""One step on one and on several replicas: the same mathematics."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from pipeline.system.console import progress
from tests.support.training import BATCH, batches, build, examples, strategy_of, train
from trainer.recipe import NO_AUGMENTATION, Augmentation

AUGMENTED = Augmentation(
    flip=True, crop=0.4, brightness=0.2, contrast=0.2, saturation=0.2
)


@pytest.fixture
def make(tf):
    return build


def on_replicas(replicas: int, function: Callable, *arguments, **options):
    """What a function returns in a process of its own, with so many logical CPUs.

    In one process all strategies of several replicas must have the same number:
    TensorFlow remembers the size of a group of devices.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, _split_the_cpu, (replicas,)) as process:
        return process.submit(function, *arguments, **options).result(timeout=300)


def _split_the_cpu(count: int) -> None:
    import tensorflow as tf

    (processor,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        processor, [tf.config.LogicalDeviceConfiguration()] * count
    )


SAME_MATHEMATICS = [
    {},
    {"vgg16": True},
    {"augmentation": AUGMENTED},
    {"label_smoothing": 0.1},
    {"weights": np.linspace(0.5, 1.5, 6)},
    {"accumulate": 2},
    {"accumulate": 4, "trainable": "head", "label_smoothing": 0.1},
    {"accumulate": 2, "trainable": "all"},
    {"steps_per_execution": 2},
    {"jit": True},
    {"dropout": 0.3, "accumulate": 2, "augmentation": AUGMENTED},
    {"dropout": 0.5, "steps_per_execution": 2, "trainable": "head"},
]


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("options", SAME_MATHEMATICS, ids=str)
def test_the_same_mathematics(tf, make, options: dict, replicas: int) -> None:
    """However a step is cut, every variable moves as on one device in one piece.

    To a thousandth of the way that it moved, in the Euclidean norm. After one step: in
    later ones some rounding flips a ReLU or the place of a maximum.
    """
    cuts = ("accumulate", "steps_per_execution", "jit")
    whole = {name: value for name, value in options.items() if name not in cuts}
    _, start, _ = make(1, **whole)
    before = start.get_weights()
    steps = options.get("steps_per_execution", 1)
    one, expected = train(tf, make(1, **whole), steps)
    other, found = train(tf, make(replicas, **options), steps)
    np.testing.assert_allclose(one.metrics, other.metrics, rtol=1e-3)
    moved = 0
    for old, a, b in zip(before, expected, found, strict=True):
        distance = np.linalg.norm(a - old)
        assert np.linalg.norm(a - b) <= 1e-3 * distance
        moved += distance > 0
    convolutions = {"head": 0, "block5": 1, "all": 2}
    if options.get("vgg16"):
        convolutions = {"block5": 3}
    convolutions = convolutions[options.get("trainable", "block5")]
    assert moved == 2 * convolutions + 2 + 4 + 2  # hidden, normalization, probabilities


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"label_smoothing": 0.1},
        {"weights": np.linspace(0.5, 1.5, 6)},
        {"accumulate": 2},
    ],
    ids=str,
)
def test_the_same_epoch(tf, make, options: dict, replicas: int) -> None:
    """Eight steps that are small: large ones make chaos of any rounding."""
    whole = {name: value for name, value in options.items() if name != "accumulate"}
    before = make(1, 5e-5, **whole)[1].get_weights()
    one, expected = train(tf, make(1, 5e-5, **whole), 8)
    other, found = train(tf, make(replicas, 5e-5, **options), 8)
    np.testing.assert_allclose(one.metrics, other.metrics, rtol=1e-4)
    for old, a, b in zip(before, expected, found, strict=True):
        assert np.linalg.norm(a - b) <= 2e-3 * np.linalg.norm(a - old)


@pytest.mark.parametrize(
    "replicas", [2, *(pytest.param(count, marks=pytest.mark.slow) for count in (4, 8))]
)
def test_dropout_is_that_of_one_device(tf, make, replicas: int) -> None:
    """Four steps, each with other masks; see `test_the_same_epoch` for the tolerances.

    Other masks change the loss by a tenth, and weights by as much as they move.
    """
    options = {"learning_rate": 5e-5, "dropout": 0.5}
    before = make(1, **options)[1].get_weights()
    one, expected = train(tf, make(1, **options), 4)
    other, found = on_replicas(replicas, build_and_train, replicas, 4, **options)
    np.testing.assert_allclose(one.metrics, other.metrics, rtol=1e-4)
    for old, a, b in zip(before, expected, found, strict=True):
        assert np.linalg.norm(a - b) <= 2e-3 * np.linalg.norm(a - old)


def build_and_train(replicas: int, steps: int, **options):
    import tensorflow as tf

    return train(tf, build(replicas, **options), steps)


@pytest.mark.parametrize("replicas", [1, 2])
def test_dropout_from_features_is_that_from_pixels(tf, make, replicas: int) -> None:
    from trainer import model
    from trainer.training.step import InputSource

    pixels, expected = train(tf, make(1, 5e-5, dropout=0.5), 4)
    source = InputSource("block4_pool", tf.identity)
    loop, network, _ = make(replicas, 5e-5, dropout=0.5, source=source)
    before = network.get_weights()
    prefix = model.prefix(network, "block4_pool")
    data = batches(tf, 4 * BATCH).map(lambda rows, labels: (prefix(rows), labels))
    with progress(4 * BATCH, "test") as bar:
        features = loop.train(loop.feed(data), 4, bar=bar)
    np.testing.assert_allclose(pixels.metrics, features.metrics, rtol=1e-4)
    for old, a, b in zip(before, expected, network.get_weights(), strict=True):
        assert np.linalg.norm(a - b) <= 2e-3 * np.linalg.norm(a - old)


def test_dropout_by_hand(tf, make) -> None:
    """The loss of the first step, from the mask that `dropout` draws for it."""
    _, network, _ = make(1, dropout=0.5)
    images, labels = examples(BATCH)
    hidden = keras_layers(network, "pixels", "normalization")(images, training=True)
    zeroed = masks(1, rate=0.5, seed=3, step=0, units=256) * hidden
    last = network.get_layer("probabilities")
    probabilities = last(zeroed).numpy()
    expected = -np.log(probabilities[np.arange(BATCH), labels]).mean()
    epoch, _ = train(tf, make(1, dropout=0.5), 1)
    assert epoch.metrics.loss == pytest.approx(expected, rel=1e-4)


def keras_layers(network, first: str, last: str):
    import keras

    ends = (network.get_layer(name).output for name in (first, last))
    return keras.Model(*ends)


def masks(replicas: int, *, rate: float, seed: int, step: int, units: int = 64):
    """float32[BATCH, units]: what dropout makes of ones, over all replicas."""
    import tensorflow as tf

    from trainer.training.step import dropout

    strategy = strategy_of(replicas)

    def replica() -> object:
        rows = tf.ones([BATCH // replicas, units])
        number = tf.constant(step, tf.int64)
        return dropout(rows, rate, seed=seed, step=number, batch_size=BATCH)

    parts = tf.function(lambda: strategy.run(replica))()
    return np.concatenate(strategy.experimental_local_results(parts))


SEEDS, STEPS = (0, 3, 2**31 - 1), (0, 1, 2, 10**6)


def all_masks(replicas: int) -> np.ndarray:
    """float32[len(SEEDS), len(STEPS), BATCH, 64]"""
    return np.array(
        [
            [masks(replicas, rate=0.5, seed=seed, step=step) for step in STEPS]
            for seed in SEEDS
        ]
    )


def test_every_row_has_its_own_mask(tf) -> None:
    """The same on 1, 2 and 4 replicas; another for every row, step and seed."""
    one = all_masks(1)
    assert set(np.unique(one)) == {0, 2}
    np.testing.assert_array_equal(one, all_masks(2))
    np.testing.assert_array_equal(one, on_replicas(4, all_masks, 4))
    rows = one.reshape(-1, one.shape[-1])
    assert len(np.unique(rows, axis=0)) == len(SEEDS) * len(STEPS) * BATCH


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_the_masks_are_those_of_philox(tf, rate: float) -> None:
    """By the published algorithm, so that a GPU has the same; kept ones are scaled."""
    units = 1000
    found = masks(2, rate=rate, seed=7, step=11, units=units)
    drawn = philox(BATCH * units, seed=7, step=11).reshape(BATCH, units)
    scale = np.float32(1 / (1 - rate))
    np.testing.assert_array_equal(found, np.where(drawn >= np.float32(rate), scale, 0))
    # Of 8,000 a share of `rate`, give or take five standard deviations.
    assert abs((found == 0).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / found.size)


def philox(count: int, *, seed: int, step: int) -> np.ndarray:
    """float32[count] in [0, 1) of Philox-4x32-10 (Salmon et al., SC 2011)."""
    low, mask = np.arange(count // 4, dtype=np.uint64), np.uint64(2**32 - 1)
    counter = [low, low * 0, low * 0 + np.uint64(step), low * 0]  # least first
    keys = [seed, 0]
    for _ in range(10):
        first = np.uint64(0xD2511F53) * counter[0]
        second = np.uint64(0xCD9E8D57) * counter[2]
        counter = [
            (second >> np.uint64(32)) ^ counter[1] ^ np.uint64(keys[0]),
            second & mask,
            (first >> np.uint64(32)) ^ counter[3] ^ np.uint64(keys[1]),
            first & mask,
        ]
        keys = [(keys[0] + 0x9E3779B9) % 2**32, (keys[1] + 0xBB67AE85) % 2**32]
    words = np.stack(counter, axis=1).ravel()
    # The lower 23 bits are the mantissa of a number in [1, 2).
    return ((words & np.uint64(2**23 - 1)) / 2**23).astype(np.float32)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dropout_of_16_bits_has_the_same_masks(tf, dtype: str) -> None:
    from trainer.training.step import dropout

    def dropped(kind: str):
        number = tf.constant(5, tf.int64)
        return dropout(tf.ones([8, 64], kind), 0.5, seed=3, step=number, batch_size=8)

    exact, rounded = (
        strategy_of(1).run(lambda kind=kind: dropped(kind))
        for kind in ("float32", dtype)
    )
    assert rounded.dtype == dtype
    np.testing.assert_array_equal(exact, tf.cast(rounded, tf.float32))


@pytest.mark.parametrize(
    "replicas", [2, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 4))]
)
def test_an_infinite_gradient_skips_the_step(tf, replicas: int) -> None:
    """On every replica, whichever it is of; and training goes on after it."""
    on_replicas(replicas, skip_steps, replicas)


def skip_steps(replicas: int) -> None:
    import tensorflow as tf

    from trainer.training import optimizer

    at = tf.Variable(-1)

    class Planted(optimizer.LossScaleOptimizer):
        """Adds Inf to a gradient of the replica `at`."""

        def apply(self, grads, trainable_variables=None):
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            added = tf.where(replica == at, float("inf"), 0.0)
            super().apply([grads[0] + added, *grads[1:]], trainable_variables)

    # Without augmentation and dropout no step of these overflows by itself.
    made = build(replicas, precision="mixed_float16", scaling=Planted)
    _, network, updates = made
    state = [updates.dynamic_scale, updates.iterations]
    scale = 2.0**15
    for done, replica in enumerate(range(replicas)):
        before = copies(network.trainable_variables)
        at.assign(replica)
        train(tf, made, 1)
        scale /= 2
        np.testing.assert_equal(copies(network.trainable_variables), before)
        np.testing.assert_equal(copies(state), [[scale] * replicas, [done] * replicas])
        at.assign(-1)
        train(tf, made, 1)
        after = [[scale] * replicas, [done + 1] * replicas]
        np.testing.assert_equal(copies(state), after)
        for old, new in zip(before, copies(network.trainable_variables), strict=True):
            assert np.isfinite(new).all()
            np.testing.assert_array_equal(new[1:], new[:-1])  # on every replica
            assert not np.array_equal(old, new)


def copies(variables) -> list[list]:
    """The value of each variable on each replica."""
    return [
        [part.numpy() for part in getattr(one.value, "values", [one.value])]
        for one in variables
    ]


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("replicas", [1, 2])
def test_mixed_precision_is_close(tf, make, precision: str, replicas: int) -> None:
    """Within the rounding of 16 bits; variables and probabilities in float32.

    The first steps of float16 may be left out: its loss scale has to come down first.
    """
    exact, _ = train(tf, make(1), 1)
    rounded, before = train(tf, make(replicas, precision=precision), 1)
    assert rounded.metrics.loss == pytest.approx(exact.metrics.loss, rel=0.02)
    made = make(replicas, precision=precision)
    _, weights = train(tf, made, 6)
    assert not any(
        np.array_equal(a, b) for a, b in zip(before[-2:], weights[-2:], strict=True)
    )
    assert {str(variable.dtype) for variable in weights} == {"float32"}
    probabilities = made[1](examples(2)[0])
    assert probabilities.dtype == tf.float32
    np.testing.assert_allclose(np.sum(probabilities, axis=1), 1, atol=1e-6)


def test_label_smoothing_and_class_weights_by_hand(tf, make) -> None:
    """The first step of the last bias: the mean of weight x (p - smoothed target)."""
    class_weights = np.linspace(0.5, 1.5, 6)
    made = make(1, learning_rate=1.0, weights=class_weights, label_smoothing=0.3)
    images, labels = examples(BATCH)
    probabilities = made[1](images, training=True).numpy()
    before = made[1].get_weights()[-1]
    _, weights = train(
        tf, make(1, learning_rate=1.0, weights=class_weights, label_smoothing=0.3), 1
    )
    target = 0.7 * np.eye(6)[labels] + 0.3 / 6
    gradient = (class_weights[labels][:, None] * (probabilities - target)).mean(axis=0)
    np.testing.assert_allclose(before - weights[-1], gradient, rtol=1e-3, atol=1e-6)


def test_an_epoch_may_pause_and_go_on(tf, make) -> None:
    """Every other step; the sums of both ways are the same, and so are the weights."""
    at_once, expected = train(tf, make(1), 4)
    loop, network, _ = make(1)
    stream = loop.feed(batches(tf, 4 * BATCH))
    done, pauses = None, 0
    with progress(4 * BATCH, "test") as bar:
        while done is None or done.steps < 4:
            done = loop.train(stream, 4, bar=bar, since=done, pause=lambda: True)
            pauses += 1
    assert pauses == 4
    assert done.sums == at_once.sums
    for a, b in zip(expected, network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


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
    """The last batch has 1, 8 or 7 rows; with 1, one replica has none. Dropout is of
    training alone."""
    loop, network, _ = make(replicas, dropout=0.9)
    metrics = loop.evaluate(batches(tf, rows))
    images, labels = examples(rows)
    probabilities = network(images, training=False).numpy()
    right = probabilities[np.arange(rows), labels]
    rank = (probabilities > right[:, None]).sum(axis=1)
    assert metrics.loss == pytest.approx(-np.log(right).mean(), rel=1e-4)
    assert metrics.accuracy == pytest.approx((rank < 1).mean())
    assert metrics.top5_accuracy == pytest.approx((rank < 5).mean())


def test_divergence_stops_at_once(tf, make) -> None:
    from trainer.training.loop import DivergenceError

    made = make(1, learning_rate=1e20)
    with pytest.raises(DivergenceError) as diverged:
        train(tf, made, 30)
    assert 0 < diverged.value.step < 5
    assert not np.isfinite(diverged.value.loss)
