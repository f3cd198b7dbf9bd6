"""Computes features by all replicas; converts them to what is kept, and back."""

import contextlib
import hashlib
import itertools
import math
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.dataset.manifest import Dataset
from trainer import model
from trainer.cache.content import LABELS, Batch, Content
from trainer.cache.features import Features
from trainer.data import input_pipeline as data
from trainer.recipe import Recipe
from trainer.training import device_feed
from trainer.training.interruptions import uninterrupted
from trainer.training.step import InputSource, in_parts

_PART_ROWS = 512  # that are committed to disk at once, or a few more: whole batches
_SMALLEST = float(np.finfo(np.float32).tiny)  # of scales: a channel may be all zeros
_LARGEST = float(np.finfo(np.float16).max)


def content(
    features: Features,
    dataset: Dataset,
    split: str,
    *,
    network: keras.Model,
    strategy: tf.distribute.Strategy,
    recipe: Recipe,
) -> Content:
    """Describes the features of a split, which are computed when they are asked for.

    Args:
        features: what to keep.
        dataset, split: of the images.
        network: with its final weights in the frozen layers.
        strategy: of the network; all its replicas compute.
        recipe: of the run.
    """
    size = recipe.batch_size
    frozen = model.prefix(network, features.layer)
    weights = hashlib.sha256()
    for variable in frozen.variables:
        weights.update(variable.numpy().tobytes())
    return Content(
        what=f"features of {split}",
        # All that decides the features, but for the rounding of the device.
        key={
            "dataset": dataset.fingerprint,
            "split": split,
            "layer": features.layer,
            "weights": weights.hexdigest(),
            "preprocessing": recipe.preprocessing,
            "precision": recipe.precision,
            "tf32": recipe.tf32,
            "jit": recipe.jit,
            "dtype": features.dtype,
            "tensorflow": tf.__version__,
        },
        columns={**features.columns, LABELS: (np.int64, ())},
        rows=dataset.split(split).examples,
        part_rows=size * math.ceil(_PART_ROWS / size),
        batches=lambda first: _extract(
            frozen, features, dataset, split, first, strategy=strategy, recipe=recipe
        ),
    )


def source(network: keras.Model, features: Features) -> InputSource:
    """Returns the source of steps whose batches hold rows of features."""
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


def _extract(
    frozen: keras.Model,
    features: Features,
    dataset: Dataset,
    split: str,
    first: int,
    *,
    strategy: tf.distribute.Strategy,
    recipe: Recipe,
) -> Iterator[Batch]:
    """Yields the features of a split from an example on, in batches.

    Each batch is computed while the one before is fetched.
    """
    forward = tf.function(frozen, jit_compile=True) if recipe.jit else frozen

    def replica(pixels: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
        values = in_parts(forward, pixels, recipe.accumulate)
        return {**reduce(values, features.dtype), LABELS: labels}

    @tf.function
    def all_replicas(pixels: Any, labels: Any) -> Any:
        return strategy.run(replica, (pixels, labels))

    size, found = recipe.batch_size, dataset.split(split)
    images = data.for_inference(dataset, found.shards, batch_size=size, first=first)
    # (uint8[size, height, width, 3], int64[size]). Where the last batch is short, the
    # feed adds rows of zeros: training takes full batches, and a kernel for another
    # size could round otherwise.
    fed = device_feed.to_replicas(
        images.map(lambda batch: (batch.images, batch.labels)),
        strategy,
        batch_size=size,
    )
    launched: deque[Any] = deque()
    with contextlib.closing(fed) as batches:
        for start in range(first, found.examples, size):
            for batch in itertools.islice(batches, 2 - len(launched)):
                with uninterrupted():
                    launched.append(all_replicas(*batch))
            yield {
                name: np.concatenate(
                    [one.numpy() for one in strategy.experimental_local_results(column)]
                )[: found.examples - start]
                for name, column in launched.popleft().items()
            }
