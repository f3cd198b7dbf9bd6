"""No step takes data off a GPU: see tests.support.gpu_kernels."""

import gc
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

from pipeline.dataset import manifest
from pipeline.system.console import progress
from tests.support.gpu_kernels import Finding, findings
from tests.support.photos import HEIGHT, WIDTH
from tests.support.training import BATCH, examples, strategy_of
from trainer.options import FEATURE_DTYPES
from trainer.recipe import CHOICES, NO_AUGMENTATION, RECIPES, Augmentation

AUGMENTED = Augmentation(flip=True, crop=0.5, brightness=0.2, saturation=0.2)


class Made(NamedTuple):
    """A loop, and batches for it.

    Attributes:
        train: takes one step.
        evaluate: evaluates one batch.
        network: the model.
    """

    train: Callable[[], object]
    evaluate: Callable[[], object]
    network: Any


def prepare(
    *,
    replicas: int = 1,
    recipe: str = "article",
    cache: str = "decoded",
    source: Any = None,
    **fields: Any,
) -> Made:
    """Builds what `make train` runs, of a recipe with some other fields.

    Args:
        replicas: logical CPUs.
        recipe: its name.
        cache: `decoded`, or the dtype of cached features.
        source: of the features; without it, as the cache has them.
    """
    import tensorflow as tf

    from trainer import model
    from trainer.cache import feature_extraction, features
    from trainer.training import optimizer
    from trainer.training.loop import Loop

    chosen = replace(RECIPES[recipe], batch_size=BATCH, **fields)
    phase = chosen.phases()[-1]
    strategy = strategy_of(replicas)
    with strategy.scope():
        network = model.build(
            height=HEIGHT, width=WIDTH, classes=6, weights="none", recipe=chosen
        )
        model.train_only(network, phase.trainable)
        updates = optimizer.build(chosen, phase, 10)
        updates.build(network.trainable_variables)
    rows, labels = examples(BATCH)
    if cache != "decoded":
        kept = features.plan(
            chosen, manifest.ImageContract(height=HEIGHT, width=WIDTH), dtype=cache
        )
        rows = {
            name: np.ones((BATCH, *shape), kind)
            for name, (kind, shape) in kept.columns.items()
        }
        source = source or feature_extraction.source(network, kept)
    loop = Loop(
        network,
        updates,
        strategy,
        chosen,
        class_weights=np.ones(6) if chosen.class_weights else None,
        source=source,
    )
    batches = tf.data.Dataset.from_tensors((rows, labels))

    def take_step() -> None:
        steps = chosen.steps_per_execution
        with progress(steps * BATCH, "test") as bar:
            loop.train(loop.feed(batches.repeat(steps)), steps, bar=bar)

    return Made(take_step, lambda: loop.evaluate(batches), network)


@pytest.fixture(autouse=True)
def memory_given_back() -> Iterator[None]:
    """A traced model is a circle of references; a hundred of them take 12 GB."""
    yield
    keras.backend.clear_session()
    gc.collect()


def test_split_has_no_kernel_for_pixels(tf, monkeypatch: pytest.MonkeyPatch) -> None:
    """A negative control: what the first release had, put back."""
    from trainer.training import step

    monkeypatch.setattr(step, "_slices", tf.split)
    made = prepare(accumulate=2)
    found = findings(made.train)
    assert Finding("Split", "uint8", 4 * HEIGHT * WIDTH * 3, "no kernel") in found


def test_a_table_of_int32_is_in_host_memory(tf) -> None:
    """A negative control: what the first release had, put back."""
    from trainer.training.step import InputSource

    table = tf.identity(np.ones((100, 512), np.int32))

    def looked_up(rows: Any) -> Any:
        words = tf.gather(table, tf.cast(rows["features"][:, 0, 0, 0], tf.int64))
        return tf.reshape(tf.bitcast(words, tf.float32), [-1, 1, 1, 512])

    source = InputSource("block5_pool", looked_up)
    made = prepare(cache="float32", trainable="head", source=source)
    table_bytes = 100 * 512 * 4
    found = findings(made.train)
    assert Finding("Placeholder", "int32", table_bytes, "output") in found


QUICK: list[dict[str, Any]] = [{}, {"recipe": "finetune", "replicas": 2}]
CASES: list[dict[str, Any]] = [
    {"recipe": "demo"},
    {"recipe": "finetune", "cache": "float16", "augmentation": NO_AUGMENTATION},
    {"augmentation": AUGMENTED, "accumulate": 2, "trainable": "all", "replicas": 2},
    {"precision": "mixed_float16", "replicas": 2},
    {"precision": "mixed_bfloat16", "cache": "uint8", "replicas": 2},
    {"cache": "float32", "trainable": "head"},
    {"jit": True, "steps_per_execution": 2},
]


EVERYTHING = [
    {"recipe": recipe, "precision": precision, "replicas": replicas, **of_input}
    for recipe, precision, replicas, of_input in itertools.product(
        RECIPES,
        CHOICES["precision"],
        (1, 2),
        (
            {},
            {"augmentation": NO_AUGMENTATION},
            {"augmentation": AUGMENTED},
            *(
                {"augmentation": NO_AUGMENTATION, "cache": dtype}
                for dtype in FEATURE_DTYPES
            ),
        ),
    )
]


@pytest.mark.parametrize(
    "options",
    [
        *QUICK,
        *(pytest.param(one, marks=pytest.mark.integration) for one in CASES),
        *(pytest.param(one, marks=pytest.mark.slow) for one in EVERYTHING),
    ],
    ids=str,
)
def test_training_and_evaluation_stay_on_the_device(
    tf, options: dict[str, Any]
) -> None:
    made = prepare(**options)
    assert findings(made.train) == set()
    assert findings(made.evaluate) == set()


@pytest.mark.integration
@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize(
    ("dtype", "fields"),
    [
        ("float32", {}),
        ("float16", {"precision": "mixed_float16", "accumulate": 2}),
        ("uint8", {"precision": "mixed_bfloat16"}),
    ],
    ids=str,
)
def test_feature_extraction_stays_on_the_device(
    tf,
    made_dataset: Path,
    dtype: str,
    fields: dict[str, Any],
    replicas: int,
) -> None:
    from trainer.cache import feature_extraction, features, in_memory

    dataset = manifest.load(made_dataset)
    recipe = replace(RECIPES["article"], batch_size=BATCH, **fields)
    network = prepare(replicas=replicas, **fields).network

    def extract() -> None:
        content = feature_extraction.content(
            features.plan(recipe, dataset.image, dtype=dtype),
            dataset,
            "train",
            network=network,
            strategy=strategy_of(replicas),
            recipe=recipe,
        )
        in_memory.fill(content)

    assert findings(extract) == set()


@pytest.mark.integration
@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("precision", CHOICES["precision"])
def test_prediction_stays_on_the_device(tf, precision: str, replicas: int) -> None:
    from predictor.forward_pass import ForwardPass
    from predictor.inputs.inputs import Batch

    network = prepare(replicas=replicas, precision=precision).network
    forward = ForwardPass(network, strategy_of(replicas))
    images, _ = examples(BATCH)
    ids = [str(number) for number in range(BATCH)]
    batch = Batch(shard=0, ids=ids, images=images, rejects=[], last=True)
    assert findings(lambda: list(forward.stream([batch]))) == set()


def test_every_replica_is_given_its_images_where_it_is(
    tf, monkeypatch: pytest.MonkeyPatch
) -> None:
    from predictor.forward_pass import ForwardPass
    from predictor.inputs.inputs import Batch

    strategy = strategy_of(2)
    with strategy.scope():
        network = tf.keras.Sequential(
            [tf.keras.Input((2, 2, 3)), tf.keras.layers.Flatten()]
        )
    distribute, devices = strategy.experimental_distribute_values_from_function, []

    def noting(function: Any) -> Any:
        value = distribute(function)
        devices.extend(x.device for x in strategy.experimental_local_results(value))
        return value

    monkeypatch.setattr(
        strategy, "experimental_distribute_values_from_function", noting
    )
    images = np.arange(36, dtype=np.uint8).reshape(3, 2, 2, 3)
    batch = Batch(shard=0, ids=["a", "b", "c"], images=images, rejects=[], last=True)
    ((_, found),) = ForwardPass(network, strategy).stream([batch])
    np.testing.assert_array_equal(found, images.reshape(3, 12))
    assert devices == list(strategy.extended.worker_devices)
