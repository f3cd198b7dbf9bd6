"""Features: the outputs of the last frozen layer, kept so that training begins there.

They are kept as they are, as float32 or float16; or as uint8, with a scale for each
channel of each image, whose largest value is then 255.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.dataset.manifest import Dataset, ImageContract
from trainer.recipe import Recipe

_CHANNELS = 512  # of block4 and block5


@dataclass(frozen=True, kw_only=True)
class Features:
    """Which features are kept, and how.

    Attributes:
        layer: whose output they are.
        shape: of that, for one image: height, width, channels.
        dtype: float32, float16 or uint8.
        epochs: of the run that train on them.
    """

    layer: str
    shape: tuple[int, int, int]
    dtype: str
    epochs: int

    @property
    def columns(self) -> dict[str, tuple[Any, tuple[int, ...]]]:
        """Returns dtype and shape of what is kept of an image, by name."""
        columns: dict[str, tuple[Any, tuple[int, ...]]] = {
            "features": (self.dtype, self.shape)
        }
        if self.dtype == "uint8":
            columns["scales"] = ("float32", self.shape[-1:])
        return columns

    def bytes(self, dataset: Dataset) -> int:
        """Returns the size of the features of the training and validation images."""
        each = sum(
            np.dtype(dtype).itemsize * math.prod(shape)
            for dtype, shape in self.columns.values()
        )
        splits = ("train", "validation")
        images = [
            dataset.splits[one].examples for one in splits if one in dataset.splits
        ]
        return each * sum(images)

    def key(self) -> dict[str, Any]:
        """Returns what decides the numbers of a run."""
        return {"layer": self.layer, "dtype": self.dtype}


def plan(recipe: Recipe, image: ImageContract, *, dtype: str) -> Features:
    """Plans which features of a recipe can be kept.

    Raises:
        ValueError: none can; the message says why.
    """
    phases = [phase for phase in recipe.phases() if phase.trainable != "all"]
    if not phases:
        raise ValueError("trainable is 'all': no layer's output stays what it was")
    if recipe.augmentation.changes:
        raise ValueError(
            f"recipe {recipe.name} augments images, so that their features differ in "
            "every epoch. Use --augmentation=none to train without augmentation, or "
            "--cache=decoded to keep it"
        )
    trainable = {phase.trainable for phase in phases}
    layer, halved = (
        ("block4_pool", 16) if "block5" in trainable else ("block5_pool", 32)
    )
    return Features(
        layer=layer,
        shape=(image.height // halved, image.width // halved, _CHANNELS),
        dtype=dtype,
        epochs=sum(phase.epochs for phase in phases),
    )
