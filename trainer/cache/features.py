"""What the frozen layers make of every image, kept: epochs begin where training does.

Kept are the numbers themselves, as float32 or float16; or as uint8, with a scale for
each channel of each image, whose largest value is then 255.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.dataset.manifest import Dataset, ImageContract
from trainer.recipe import Augmentation, Recipe
from trainer.training.step import Source

FLIPS = Augmentation(flip=True)  # nothing but that: two views are all there are

_CHANNELS = 512  # of block4 and block5
_SMALLEST = float(np.finfo(np.float32).tiny)  # of scales: a channel may be all zeros
_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True, kw_only=True)
class Features:
    """What is kept.

    Attributes:
        layer: whose output it is.
        shape: of that, for one image: height, width, channels.
        dtype: float32, float16 or uint8.
        views: of each training image, augmented; without augmentation, 1.
        epochs: of the run that train on it.
        parts: that the training images are permuted in; see order.batches.
    """

    layer: str
    shape: tuple[int, int, int]
    dtype: str
    views: int
    epochs: int
    parts: int = 1

    @property
    def columns(self) -> dict[str, tuple[Any, tuple[int, ...]]]:
        """By name: dtype and shape of what is kept of one view of an image."""
        columns: dict[str, tuple[Any, tuple[int, ...]]] = {
            "features": (self.dtype, self.shape)
        }
        if self.dtype == "uint8":
            columns["scales"] = ("float32", self.shape[-1:])
        return columns

    def bytes(self, dataset: Dataset) -> int:
        """Of all views of the training images, and the validation images."""
        each = sum(
            np.dtype(dtype).itemsize * math.prod(shape)
            for dtype, shape in self.columns.values()
        )
        images = self.views * dataset.split("train").examples
        if "validation" in dataset.splits:
            images += dataset.split("validation").examples
        return each * images

    def key(self) -> dict[str, Any]:
        """What decides the numbers of a run."""
        return {
            "layer": self.layer,
            "dtype": self.dtype,
            "views": self.views,
            "parts": self.parts,
        }


def plan(
    recipe: Recipe, image: ImageContract, *, dtype: str, views: int, parts: int = 1
) -> Features:
    """What a recipe could keep.

    Raises:
        ValueError: nothing, and why.
    """
    phases = [phase for phase in recipe.phases() if phase.trainable != "all"]
    if not phases:
        raise ValueError("trainable is 'all': no layer's output stays what it was")
    if recipe.augmentation.changes and views == 1:
        raise ValueError(
            f"recipe {recipe.name} augments images, which makes other features of them "
            "every time. --feature_views=K keeps K augmented views of each image "
            "(flips alone have 2), for K times the space"
        )
    if views > 1 and not recipe.augmentation.changes:
        raise ValueError(
            f"feature_views is {views}, and recipe {recipe.name} does not augment: an "
            "image has one view"
        )
    if views > 2 and recipe.augmentation == FLIPS:
        raise ValueError(f"feature_views is {views}; flips alone have 2")
    trainable = {phase.trainable for phase in phases}
    layer, halved = (
        ("block4_pool", 16) if "block5" in trainable else ("block5_pool", 32)
    )
    return Features(
        layer=layer,
        shape=(image.height // halved, image.width // halved, _CHANNELS),
        dtype=dtype,
        views=views,
        epochs=sum(phase.epochs for phase in phases),
        parts=parts,
    )


def source(network: keras.Model, features: Features) -> Source:
    """For steps whose batches bring rows of what was kept."""
    dtype = network.get_layer(features.layer).compute_dtype

    def made(rows: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return restore(rows, dtype)

    return Source(features.layer, made, made)


def reduce(values: tf.Tensor, dtype: str) -> dict[str, tf.Tensor]:
    """What is kept of the features of a batch.

    Args:
        values: float[batch, height, width, channels], none below zero.
        dtype: float32, float16 or uint8.

    Returns:
        `features` of that shape, and for uint8 `scales`, float32[batch, channels]:
        features x scales are the values, give or take half a scale.
    """
    values = tf.cast(values, tf.float32)
    if dtype == "float16":  # its largest number, in place of infinity
        return {"features": tf.cast(tf.minimum(values, _LARGEST), tf.float16)}
    if dtype == "float32":
        return {"features": values}
    scales = tf.maximum(tf.reduce_max(values, axis=[1, 2]) / 255, _SMALLEST)
    steps = tf.round(values / scales[:, None, None])
    return {"features": tf.cast(steps, tf.uint8), "scales": scales}


def restore(rows: Mapping[str, tf.Tensor], dtype: str) -> tf.Tensor:
    """The values that `reduce` was given, as far as it kept them."""
    if "scales" not in rows:
        return tf.cast(rows["features"], dtype)
    steps = tf.cast(rows["features"], tf.float32)
    return tf.cast(steps * rows["scales"][:, None, None], dtype)
