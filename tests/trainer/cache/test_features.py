"""What may be kept of the frozen layers, and how exactly."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.dataset.manifest import ImageContract
from tests.support.photos import HEIGHT, WIDTH, photo
from trainer.recipe import RECIPES, Augmentation

ARTICLE, FINETUNE = RECIPES["article"], RECIPES["finetune"]
FLIPS = replace(ARTICLE, augmentation=Augmentation(flip=True))
PLAIN = replace(FINETUNE, augmentation=Augmentation())
IMAGE = ImageContract(height=150, width=200)


@pytest.fixture
def features(tf):
    from trainer.cache import features

    return features


@pytest.mark.parametrize(
    ("recipe", "layer", "shape", "epochs"),
    [
        (ARTICLE, "block4_pool", (9, 12, 512), 50),
        (PLAIN, "block4_pool", (9, 12, 512), 20),
        (replace(ARTICLE, trainable="head"), "block5_pool", (4, 6, 512), 50),
        (replace(PLAIN, trainable="all"), "block5_pool", (4, 6, 512), 4),
    ],
)
def test_plans(features, recipe, layer, shape, epochs) -> None:
    plan = features.plan(recipe, IMAGE, dtype="uint8")
    assert (plan.layer, plan.shape, plan.epochs) == (layer, shape, epochs)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (replace(ARTICLE, trainable="all"), "no layer's output stays"),
        (FLIPS, "recipe article augments images.*--augmentation=none"),
        (FINETUNE, "recipe finetune augments images.*--augmentation=none"),
    ],
)
def test_what_nothing_can_be_kept_of(features, recipe, message) -> None:
    with pytest.raises(ValueError, match=message):
        features.plan(recipe, IMAGE, dtype="uint8")


@pytest.mark.parametrize(
    ("dtype", "each"), [("float32", 221_184), ("float16", 110_592), ("uint8", 57_344)]
)
def test_bytes(features, tf, made_dataset, dtype: str, each: int) -> None:
    from pipeline.dataset import manifest

    plan = features.plan(ARTICLE, IMAGE, dtype=dtype)
    assert plan.bytes(manifest.load(made_dataset)) == each * (24 + 9)


def of_a_batch() -> np.ndarray:
    """Channels of all sizes, among them one of zeros; like those after a ReLU."""
    rng = np.random.default_rng(1)
    values = np.maximum(rng.normal(size=(5, 4, 3, 16)), 0)
    return (values * np.logspace(-40, 3, 16) * (np.arange(16) != 3)).astype(np.float32)


def kept(features, tf, values: np.ndarray, dtype: str) -> np.ndarray:
    rows = features.reduce(tf.constant(values), dtype)
    assert rows["features"].dtype == dtype
    assert rows["features"].shape == values.shape
    return features.restore(rows, "float32").numpy()


def test_float32_is_exact(features, tf) -> None:
    values = of_a_batch()
    np.testing.assert_array_equal(kept(features, tf, values, "float32"), values)


def test_float16_has_eleven_bits(features, tf) -> None:
    values = of_a_batch()
    found = kept(features, tf, values, "float16")
    np.testing.assert_allclose(found, values, rtol=2**-11, atol=2**-25)
    beyond = np.full((1, 1, 1, 2), 7e4, np.float32)
    assert kept(features, tf, beyond, "float16").max() == 65504


def test_uint8_is_within_half_a_step_of_each_channel(features, tf) -> None:
    values = of_a_batch()
    found = kept(features, tf, values, "uint8")
    steps = values.max(axis=(1, 2), keepdims=True) / 255
    assert (np.abs(found - values) <= 0.501 * steps + 1e-37).all()
    largest = [each.max(axis=(1, 2)) for each in (found, values)]
    np.testing.assert_allclose(*largest, rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_images_do_not_know_of_each_other(features, tf, dtype: str) -> None:
    values = of_a_batch()
    together = kept(features, tf, values, dtype)
    alone = np.concatenate([kept(features, tf, one[None], dtype) for one in values])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_a_smaller_dtype_keeps_the_direction(features, tf, dtype: str) -> None:
    """Of every image, out of VGG16."""
    from trainer import model

    tf.keras.utils.set_random_seed(1)
    network = model.build(
        height=HEIGHT, width=WIDTH, classes=3, weights="none", recipe=ARTICLE
    )
    pixels = np.stack([photo(n % 3, n, HEIGHT, WIDTH) for n in range(6)])
    values = model.prefix(network, "block4_pool")(pixels).numpy()
    ours, theirs = (
        one.reshape(len(pixels), -1).astype(np.float64)
        for one in (kept(features, tf, values, dtype), values)
    )
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    assert ((ours * theirs).sum(axis=1) / lengths).min() >= 0.999
