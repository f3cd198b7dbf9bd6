"""Which features may be kept, and their size."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.dataset import manifest
from pipeline.dataset.manifest import ImageContract
from trainer.cache import features
from trainer.recipe import RECIPES, Augmentation

ARTICLE, FINETUNE = RECIPES["article"], RECIPES["finetune"]
FLIPS = replace(ARTICLE, augmentation=Augmentation(flip=True))
PLAIN = replace(FINETUNE, augmentation=Augmentation())
IMAGE = ImageContract(height=150, width=200)


@pytest.mark.parametrize(
    ("recipe", "layer", "shape", "epochs"),
    [
        (ARTICLE, "block4_pool", (9, 12, 512), 50),
        (PLAIN, "block4_pool", (9, 12, 512), 20),
        (replace(ARTICLE, trainable="head"), "block5_pool", (4, 6, 512), 50),
        (replace(PLAIN, trainable="all"), "block5_pool", (4, 6, 512), 4),
    ],
)
def test_plans(recipe, layer, shape, epochs) -> None:
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
def test_what_nothing_can_be_kept_of(recipe, message) -> None:
    with pytest.raises(ValueError, match=message):
        features.plan(recipe, IMAGE, dtype="uint8")


@pytest.mark.parametrize(
    ("dtype", "each"), [("float32", 221_184), ("float16", 110_592), ("uint8", 57_344)]
)
def test_bytes(made_dataset: Path, dtype: str, each: int) -> None:
    plan = features.plan(ARTICLE, IMAGE, dtype=dtype)
    assert plan.bytes(manifest.load(made_dataset)) == each * (24 + 9)
