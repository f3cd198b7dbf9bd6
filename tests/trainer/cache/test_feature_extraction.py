"""The features of a split: those of the network, whoever computes them, in order."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset import manifest
from tests.support.photos import HEIGHT, WIDTH
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
    from trainer.cache import feature_extraction, features

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
        return feature_extraction.keep(
            built,
            strategy,
            dataset,
            split,
            tmp_path / folder,
            features=features.plan(recipe, dataset.image, dtype=dtype),
            recipe=recipe,
        )

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
    rows = keep(split, recipe, replicas=replicas)
    images, labels = pictures(dataset, split)
    expected = by_network(network, images)
    assert expected.max() > 0.1
    np.testing.assert_allclose(rows.columns["features"], expected, atol=1e-5)
    np.testing.assert_array_equal(rows.labels, labels)
    assert rows.examples == len(images)


@pytest.mark.parametrize(
    ("dtype", "cosine"), [("float16", 0.999999), ("uint8", 0.9999)]
)
def test_fewer_bits(keep, network, dataset, dtype: str, cosine: float) -> None:
    from trainer.cache import features

    rows = keep(dtype=dtype).columns
    found = np.reshape(features.restore(rows, "float32"), [24, -1])
    expected = by_network(network, pictures(dataset, "train")[0]).reshape(24, -1)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert (np.sum(found * expected, axis=1) / lengths).min() > cosine


def test_it_goes_on_where_it_was_stopped(keep, monkeypatch, capsys) -> None:
    """After every part: the same bytes, and no part is computed twice."""
    from trainer.cache import feature_extraction

    monkeypatch.setattr(feature_extraction, "_PART_ROWS", 8)
    whole = keep(folder="whole").columns["features"]
    make, made = feature_extraction._Extraction._make, []

    def one_part(self, first: int):
        for part in itertools.islice(make(self, first), 1):
            made.append(first)
            yield part
            raise KeyboardInterrupt

    monkeypatch.setattr(feature_extraction._Extraction, "_make", one_part)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            keep()
    assert made == [0, 1, 2]
    rows = keep().columns["features"]
    assert made == [0, 1, 2]  # nothing was left to do
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
