"""The features of a split: computed by all replicas, written part by part, resumed."""

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.dataset.manifest import Dataset
from pipeline.system.console import progress
from trainer import model
from trainer.cache import on_disk
from trainer.cache.features import FLIPS, Features, reduce
from trainer.cache.in_memory import Rows
from trainer.data import augmentation as augment
from trainer.data import input_pipeline as data
from trainer.recipe import Recipe
from trainer.training import device_feed
from trainer.training.step import in_parts

_PART_ROWS = 512  # that are committed to disk at once, or a few more: whole batches
_VIEW_SEED = 0  # of augmented views, which are part of what is kept


def keep(
    network: keras.Model,
    strategy: tf.distribute.Strategy,
    dataset: Dataset,
    split: str,
    folder: Path,
    *,
    features: Features,
    recipe: Recipe,
    alive: Callable[[], None] = lambda: None,
) -> Rows:
    """The features of a split, from a folder, and computed first where that lacks some.

    Args:
        network: with its final weights in the frozen layers.
        strategy: of the network; all its replicas compute.
        dataset, split: of the images.
        folder: on a local disk; see trainer.cache.on_disk.
        features: what to keep; of other splits than train, one view, not augmented.
        recipe: of the run.
        alive: is called after every batch.

    Returns:
        A row for every view of every image, view after view.

    Raises:
        RunError: the disk is too small, or the folder is not ours.
    """
    extraction = _Extraction(network, strategy, dataset, split, features, recipe, alive)
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
        alive: Callable[[], None],
    ) -> None:
        self._strategy, self._dataset, self._split = strategy, dataset, split
        self._features, self._recipe, self._alive = features, recipe, alive
        self._views = features.views if split == "train" else 1
        self._size = recipe.batch_size
        self._part_rows = self._size * math.ceil(_PART_ROWS / self._size)
        self._prefix = model.prefix(network, features.layer)
        self._frozen = self._prefix
        if recipe.jit:
            self._frozen = tf.function(self._prefix, jit_compile=True)
        self._all_replicas = tf.function(self._eagerly)

    def content(self) -> on_disk.Content:
        """For trainer.cache.on_disk."""
        return on_disk.Content(
            what=f"features of {self._split}",
            key=self._key(),
            columns={**self._features.columns, "labels": (np.int64, ())},
            parts=self._views * self._parts_of_view(),
            make=self._make,
        )

    def _key(self) -> dict[str, Any]:
        """All that decides the features, but for the rounding of the device."""
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
            "jit": recipe.jit,
            "dtype": self._features.dtype,
            "views": self._views,
            "augmentation": asdict(recipe.augmentation) if self._views > 1 else None,
            "tensorflow": tf.__version__,
        }

    def _parts_of_view(self) -> list[int]:
        """Of one view: a part ends where the view does."""
        return on_disk.in_parts(
            self._dataset.split(self._split).examples, self._part_rows
        )

    def _make(self, first: int) -> Iterator[on_disk.Part]:
        """The parts from one on."""
        parts = self._parts_of_view()
        done = sum((self._views * parts)[:first])
        total = self._views * sum(parts)
        with progress(total, f"features of {self._split}", done=done) as bar:
            while first < self._views * len(parts):
                view, skipped = divmod(first, len(parts))
                batches = self._batches(view, skipped * self._part_rows)
                for rows in parts[skipped:]:
                    count = math.ceil(rows / self._size)
                    taken = [next(batches) for _ in range(count)]
                    yield {
                        name: np.concatenate([batch[name] for batch in taken])[:rows]
                        for name in taken[0]
                    }
                    bar.update(rows)
                    first += 1

    def _batches(self, view: int, first: int) -> Iterator[dict[str, np.ndarray]]:
        """Full batches of one view, from an example on; the last may be short, but
        for rows that fill it up so that it can be cut.

        One is computed while the one before is fetched.
        """
        least = self._strategy.num_replicas_in_sync * self._recipe.accumulate
        images = data.for_inference(
            self._dataset,
            self._dataset.split(self._split).shards,
            batch_size=self._size,
            first=first,
        ).map(lambda batch: device_feed.padded((batch.images, batch.labels), least))
        launched: deque[Any] = deque()
        number = first // self._size
        for pixels, labels in device_feed.to_replicas(images, self._strategy):
            step = tf.constant([view, number], tf.int64)
            launched.append(self._all_replicas(step, pixels, labels))
            number += 1
            if len(launched) > 1:
                yield self._fetched(launched.popleft())
        yield self._fetched(launched.popleft())

    def _fetched(self, batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
        self._alive()
        return {
            name: np.concatenate(
                [
                    part.numpy()
                    for part in self._strategy.experimental_local_results(each)
                ]
            )
            for name, each in batch.items()
        }

    def _eagerly(self, step: tf.Tensor, pixels: Any, labels: Any) -> Any:
        return self._strategy.run(self._replica, (step, pixels, labels))

    def _replica(
        self, step: tf.Tensor, pixels: tf.Tensor, labels: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        seen = self._seen(pixels, *tf.unstack(step)) if self._views > 1 else pixels
        values = in_parts(self._frozen, seen, self._recipe.accumulate)
        return {**reduce(values, self._features.dtype), "labels": labels}

    def _seen(self, pixels: tf.Tensor, view: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        """A view of the images: both sides of them, or as augmentation has them."""
        augmentation = self._recipe.augmentation
        if augmentation == FLIPS:
            return augment.flip(pixels, tf.repeat(view == 1, len(pixels)))
        batches = math.ceil(self._dataset.split(self._split).examples / self._size)
        drawn = augment.draws_of_replica(
            _VIEW_SEED, view * batches + number, self._size, len(pixels)
        )
        return augment.apply(pixels, drawn, augmentation)
