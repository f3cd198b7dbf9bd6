"""The features of a split: computed by all replicas, written part by part, resumed."""

import hashlib
import math
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.dataset.manifest import Dataset
from pipeline.system.console import progress
from trainer import hang_detection, model
from trainer.cache import on_disk
from trainer.cache.features import Features, reduce
from trainer.cache.in_memory import Rows
from trainer.data import input_pipeline as data
from trainer.recipe import Recipe
from trainer.training import device_feed
from trainer.training.interruptions import uninterrupted
from trainer.training.step import in_parts

_PART_ROWS = 512  # that are committed to disk at once, or a few more: whole batches


def keep(
    network: keras.Model,
    strategy: tf.distribute.Strategy,
    dataset: Dataset,
    split: str,
    folder: Path,
    *,
    features: Features,
    recipe: Recipe,
) -> Rows:
    """Returns the features of a split; computes first what the folder lacks of them.

    Args:
        network: with its final weights in the frozen layers.
        strategy: of the network; all its replicas compute.
        dataset, split: of the images.
        folder: on a local disk; see on_disk.on_disk.
        features: what to keep.
        recipe: of the run.

    Returns:
        A row for every image, in the order of the shards.

    Raises:
        RunError: the disk is too small, or the folder is not ours.
    """
    extraction = _Extraction(network, strategy, dataset, split, features, recipe)
    columns = on_disk.on_disk(extraction.content(), folder)
    labels = columns.pop("labels")
    return Rows(columns, labels)


class _Extraction:
    """Computes the features of a split, part by part, in order."""

    def __init__(
        self,
        network: keras.Model,
        strategy: tf.distribute.Strategy,
        dataset: Dataset,
        split: str,
        features: Features,
        recipe: Recipe,
    ) -> None:
        self._strategy, self._dataset, self._split = strategy, dataset, split
        self._features, self._recipe = features, recipe
        self._size = recipe.batch_size
        self._part_rows = self._size * math.ceil(_PART_ROWS / self._size)
        self._prefix = model.prefix(network, features.layer)
        self._frozen = self._prefix
        if recipe.jit:
            self._frozen = tf.function(self._prefix, jit_compile=True)
        self._all_replicas = tf.function(self._eagerly)

    def content(self) -> on_disk.Content:
        """Describes the folder to trainer.cache.on_disk."""
        return on_disk.Content(
            what=f"features of {self._split}",
            key=self._key(),
            columns={**self._features.columns, "labels": (np.int64, ())},
            parts=self._parts(),
            make=self._make,
        )

    def _key(self) -> dict[str, Any]:
        """Returns all that decides the features, but for the rounding of the device."""
        weights = hashlib.sha256()
        for variable in self._prefix.variables:
            weights.update(variable.numpy().tobytes())
        recipe = self._recipe
        return {
            "dataset": self._dataset.fingerprint,
            "split": self._split,
            "layer": self._features.layer,
            "weights": weights.hexdigest(),
            "preprocessing": recipe.preprocessing,
            "precision": recipe.precision,
            "tf32": recipe.tf32,
            "jit": recipe.jit,
            "dtype": self._features.dtype,
            "tensorflow": tf.__version__,
        }

    def _parts(self) -> list[int]:
        """Returns the rows of each part."""
        return on_disk.in_parts(
            self._dataset.split(self._split).examples, self._part_rows
        )

    def _make(self, first: int) -> Iterator[on_disk.Part]:
        """Yields the parts from one on."""
        parts = self._parts()
        done = sum(parts[:first])
        with progress(sum(parts), f"features of {self._split}", done=done) as bar:
            batches = self._batches(done)
            for rows in parts[first:]:
                count = math.ceil(rows / self._size)
                taken = [next(batches) for _ in range(count)]
                yield {
                    name: np.concatenate([batch[name] for batch in taken])[:rows]
                    for name in taken[0]
                }
                bar.update(rows)

    def _batches(self, first: int) -> Iterator[dict[str, np.ndarray]]:
        """Yields full batches from an example on, each computed while the one before is
        fetched. Where the last one is short, it has rows of zeros: training takes full
        batches, and a kernel for another size could round otherwise.
        """
        images = data.for_inference(
            self._dataset,
            self._dataset.split(self._split).shards,
            batch_size=self._size,
            first=first,
        ).map(lambda batch: (batch.images, batch.labels))
        launched: deque[Any] = deque()
        for pixels, labels in device_feed.to_replicas(
            images, self._strategy, batch_size=self._size
        ):
            with uninterrupted():
                launched.append(self._all_replicas(pixels, labels))
            if len(launched) > 1:
                yield self._fetched(launched.popleft())
        yield self._fetched(launched.popleft())

    def _fetched(self, batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
        fetched = {
            name: np.concatenate(
                [
                    part.numpy()
                    for part in self._strategy.experimental_local_results(each)
                ]
            )
            for name, each in batch.items()
        }
        hang_detection.alive()
        return fetched

    def _eagerly(self, pixels: Any, labels: Any) -> Any:
        return self._strategy.run(self._replica, (pixels, labels))

    def _replica(self, pixels: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
        values = in_parts(self._frozen, pixels, self._recipe.accumulate)
        return {**reduce(values, self._features.dtype), "labels": labels}
