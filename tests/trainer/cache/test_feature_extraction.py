"""Features: those of the network, whoever computes them, in order, and how exactly."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset import manifest
from tests.support.photos import HEIGHT, WIDTH, photo
from tests.support.training import strategy_of
from trainer.recipe import RECIPES

ARTICLE = replace(RECIPES["article"], batch_size=8)


@pytest.fixture
def dataset(made_dataset: Path) -> manifest.Dataset:
    return manifest.load(made_dataset)


@pytest.fixture
def network(tf):
    """From the same weights every time, which `seed` decides."""
    import keras

    from trainer import model

    def build(recipe=ARTICLE, seed: int = 1):
        keras.utils.set_random_seed(seed)
        built = model.build(
            height=HEIGHT, width=WIDTH, classes=3, weights="none", recipe=recipe
        )
        model.train_only(built, "block5")
        return built

    return build


@pytest.fixture
def keep(tf, network, dataset, tmp_path: Path):
    from trainer.cache import feature_extraction, features, on_disk

    def run(
        split: str = "train",
        recipe=ARTICLE,
        *,
        dtype: str = "float32",
        replicas: int = 1,
        folder: str = "kept",
        seed: int = 1,
    ):
        strategy = strategy_of(replicas)
        with strategy.scope():
            built = network(recipe, seed)
        content = feature_extraction.content(
            features.plan(recipe, dataset.image, dtype=dtype),
            dataset,
            split,
            network=built,
            strategy=strategy,
            recipe=recipe,
        )
        return on_disk.fill(content, tmp_path / folder)

    return run


def pictures(dataset, split: str) -> tuple[np.ndarray, np.ndarray]:
    from trainer.data import input_pipeline as data

    shards = dataset.split(split).shards
    (batch,) = data.for_inference(dataset, shards, batch_size=100)
    return batch.images.numpy(), batch.labels.numpy()


def by_network(network, images: np.ndarray) -> np.ndarray:
    from trainer import model

    return model.prefix(network(), "block4_pool")(images).numpy()


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("batch_size", [2, 8, 64])
def test_every_image_in_order(
    keep, network, dataset, monkeypatch, split: str, replicas: int, batch_size: int
) -> None:
    """In parts that end inside the split, with a last batch that is short."""
    from trainer.cache import feature_extraction

    monkeypatch.setattr(feature_extraction, "_PART_ROWS", 3)
    recipe = replace(ARTICLE, batch_size=batch_size)
    columns = keep(split, recipe, replicas=replicas)
    images, labels = pictures(dataset, split)
    expected = by_network(network, images)
    assert expected.max() > 0.1
    np.testing.assert_allclose(columns["features"], expected, atol=1e-5)
    np.testing.assert_array_equal(columns["labels"], labels)
    assert len(columns["features"]) == len(images)


@pytest.mark.parametrize(
    ("dtype", "cosine"), [("float16", 0.999999), ("uint8", 0.9999)]
)
def test_fewer_bits(keep, network, dataset, dtype: str, cosine: float) -> None:
    from trainer.cache import feature_extraction

    rows = keep(dtype=dtype)
    found = np.reshape(feature_extraction.restore(rows, "float32"), [24, -1])
    expected = by_network(network, pictures(dataset, "train")[0]).reshape(24, -1)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert (np.sum(found * expected, axis=1) / lengths).min() > cosine


def test_it_goes_on_where_it_was_stopped(keep, monkeypatch, capsys) -> None:
    """After every part: the same bytes, and no part is computed twice."""
    from trainer.cache import feature_extraction
    from trainer.cache.content import Content

    monkeypatch.setattr(feature_extraction, "_PART_ROWS", 8)
    whole = keep(folder="whole")["features"]
    make, made = Content.make, []

    def one_part(self, first: int):
        for batch in itertools.islice(make(self, first), 1):
            made.append(first)
            yield batch
            raise KeyboardInterrupt

    monkeypatch.setattr(Content, "make", one_part)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            keep()
    assert made == [0, 8, 16]
    rows = keep()["features"]
    assert made == [0, 8, 16]  # nothing was left to do
    np.testing.assert_array_equal(rows, whole)
    assert "goes on after 8 of 24 rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 2}, "weights is "),
        ({"dtype": "uint8"}, "dtype is float32 there and uint8 here"),
        ({"split": "validation"}, "split is train there"),
        ({"recipe": replace(ARTICLE, preprocessing="imagenet")}, "preprocessing is"),
        ({"recipe": replace(ARTICLE, trainable="head")}, "layer is block4_pool there"),
        ({"recipe": replace(ARTICLE, precision="mixed_bfloat16")}, "precision is"),
    ],
)
def test_what_is_stale_is_made_anew(keep, capsys, change: dict, message: str) -> None:
    keep()
    keep(**change)
    said = capsys.readouterr().out
    assert f"is of something else ({message}" in said
    keep(**change)
    assert "is complete" in capsys.readouterr().out


def test_another_head_is_no_reason_to_compute_anew(keep, capsys) -> None:
    keep()
    keep(recipe=replace(ARTICLE, hidden=7, learning_rate=1.0, batch_size=4))
    assert "is complete" in capsys.readouterr().out


def of_a_batch() -> np.ndarray:
    """Channels of all sizes, among them one of zeros; like those after a ReLU."""
    rng = np.random.default_rng(1)
    values = np.maximum(rng.normal(size=(5, 4, 3, 16)), 0)
    return (values * np.logspace(-40, 3, 16) * (np.arange(16) != 3)).astype(np.float32)


def kept(tf, values: np.ndarray, dtype: str) -> np.ndarray:
    from trainer.cache import feature_extraction

    rows = feature_extraction.reduce(tf.constant(values), dtype)
    assert rows["features"].dtype == dtype
    assert rows["features"].shape == values.shape
    return feature_extraction.restore(rows, "float32").numpy()


def test_float32_is_exact(tf) -> None:
    values = of_a_batch()
    np.testing.assert_array_equal(kept(tf, values, "float32"), values)


def test_float16_has_eleven_bits(tf) -> None:
    values = of_a_batch()
    found = kept(tf, values, "float16")
    np.testing.assert_allclose(found, values, rtol=2**-11, atol=2**-25)
    beyond = np.full((1, 1, 1, 2), 7e4, np.float32)
    assert kept(tf, beyond, "float16").max() == 65504


def test_uint8_is_within_half_a_step_of_each_channel(tf) -> None:
    values = of_a_batch()
    found = kept(tf, values, "uint8")
    steps = values.max(axis=(1, 2), keepdims=True) / 255
    assert (np.abs(found - values) <= 0.501 * steps + 1e-37).all()
    largest = [each.max(axis=(1, 2)) for each in (found, values)]
    np.testing.assert_allclose(*largest, rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_images_do_not_know_of_each_other(tf, dtype: str) -> None:
    values = of_a_batch()
    together = kept(tf, values, dtype)
    alone = np.concatenate([kept(tf, one[None], dtype) for one in values])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_a_smaller_dtype_keeps_the_direction(tf, dtype: str) -> None:
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
        for one in (kept(tf, values, dtype), values)
    )
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    assert ((ours * theirs).sum(axis=1) / lengths).min() >= 0.999
