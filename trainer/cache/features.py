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
from trainer.recipe import Recipe
from trainer.training.step import InputSource

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
        epochs: of the run that train on it.
    """

    layer: str
    shape: tuple[int, int, int]
    dtype: str
    epochs: int

    @property
    def columns(self) -> dict[str, tuple[Any, tuple[int, ...]]]:
        """Returns, by name, dtype and shape of what is kept of an image."""
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
    """Plans what a recipe can keep of the frozen layers.

    Raises:
        ValueError: it can keep nothing; the message says why.
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


def source(network: keras.Model, features: Features) -> InputSource:
    """Returns the source of steps whose batches hold rows of kept features."""
    dtype = network.get_layer(features.layer).compute_dtype
    return InputSource(features.layer, lambda rows: restore(rows, dtype))


def reduce(values: tf.Tensor, dtype: str) -> dict[str, tf.Tensor]:
    """Converts the features of a batch to what is kept of them.

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
    """Returns the values that `reduce` was given, as far as it kept them."""
    if "scales" not in rows:
        return tf.cast(rows["features"], dtype)
    steps = tf.cast(rows["features"], tf.float32)
    return tf.cast(steps * rows["scales"][:, None, None], dtype)
