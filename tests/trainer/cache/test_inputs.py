"""What a phase trains on: every kind of cache gives the same pictures."""

import dataclasses
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset import manifest
from tests.support.training import build, strategy_of
from trainer.cache import features
from trainer.cache.policy import CacheChoice
from trainer.recipe import RECIPES

ARTICLE = replace(RECIPES["article"], batch_size=8)
CHOICES = [
    CacheChoice("none", ""),
    CacheChoice("encoded", ""),
    CacheChoice("decoded", ""),
    CacheChoice("decoded", "", on_disk=True),
]


@pytest.fixture
def prepare(tf, tmp_path: Path):
    from trainer.cache import inputs

    def prepare(choice: CacheChoice, dataset: manifest.Dataset):
        _, network, _ = build(1)
        return inputs.prepare(
            choice,
            dataset,
            tmp_path,
            network=network,
            strategy=strategy_of(1),
            recipe=ARTICLE,
            seed=3,
        )

    return prepare


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_pixels(
    prepare, made_dataset: Path, tmp_path: Path, choice: CacheChoice
) -> None:
    dataset = manifest.load(made_dataset)
    fed = prepare(choice, dataset)
    assert fed.choice == choice
    assert fed.source is None
    images, _ = next(iter(fed.training(0)))
    assert images.shape == (8, dataset.image.height, dataset.image.width, 3)
    later, _ = next(iter(fed.training(2)))
    third, _ = list(islice(fed.training(0), 3))[2]
    np.testing.assert_array_equal(later, third)
    assert [len(batch[1]) for batch in fed.validation] == [8, 1]
    assert (tmp_path / "train" / "pixels.npy").exists() == choice.on_disk


@pytest.mark.parametrize("on_disk", [True, False])
def test_features_are_a_content_like_any_other(
    prepare, made_dataset: Path, tmp_path: Path, on_disk: bool
) -> None:
    """From either backend, in the order of pixels."""
    dataset = manifest.load(made_dataset)
    kept = features.plan(ARTICLE, dataset.image, dtype="float32")
    choice = CacheChoice("features", "", on_disk=on_disk, features=kept)
    fed = prepare(choice, dataset)
    assert fed.source.layer == "block4_pool"
    rows, labels = next(iter(fed.training(1)))
    assert rows["features"].shape == (8, *kept.shape)
    pixels = prepare(CacheChoice("decoded", ""), dataset)
    np.testing.assert_array_equal(labels, next(iter(pixels.training(1)))[1])
    assert (tmp_path / "train-features" / "features.npy").exists() == on_disk


@pytest.mark.parametrize("choice", CHOICES[:2], ids=str)
def test_a_dataset_without_validation(
    prepare, made_dataset: Path, choice: CacheChoice
) -> None:
    made = manifest.load(made_dataset)
    splits = {"train": made.split("train"), "validation": manifest.Split(0, 0, ())}
    dataset = dataclasses.replace(made, splits=splits)
    assert prepare(choice, dataset).validation is None
