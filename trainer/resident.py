"""Features in the memory of the devices."""

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from trainer.cache.features import Features, restore, source
from trainer.cache.in_memory import Rows
from trainer.data import input_pipeline as data
from trainer.data import permutation
from trainer.training.step import Source


class OnDevices:
    """The training features in the memory of the devices, each with a part of them.

    Args:
        rows: of `keep`, for the train split.
        features: with as many parts as the strategy has replicas.
        strategy: of the devices.
    """

    def __init__(
        self, rows: Rows, features: Features, strategy: tf.distribute.Strategy
    ) -> None:
        self._features = features
        self._examples = rows.examples // features.views
        self._labels = rows.labels
        self._bounds = permutation.cut(self._examples, features.parts)
        assert isinstance(rows.columns, Mapping)
        columns = rows.columns
        self._tables = []
        for part, device in enumerate(strategy.extended.worker_devices):
            with tf.device(device):
                self._tables.append(
                    {
                        name: tf.identity(self._words(column, part))
                        for name, column in columns.items()
                    }
                )

    def batches(
        self, *, batch_size: int, seed: int, first_batch: int
    ) -> tf.data.Dataset:
        """As trainer.data.input_pipeline.from_store, but for the rows: int64[batch_size], the
        position of each in the table of its device."""
        positions = permutation.batches(
            self._examples,
            batch_size,
            seed=seed,
            first_example=first_batch * batch_size,
            parts=self._features.parts,
        )
        views = permutation.views(
            batch_size, self._features.views, seed=seed, first_batch=first_batch
        )
        each = batch_size // self._features.parts
        first = np.repeat(self._bounds[:-1], each)
        count = np.repeat(np.diff(self._bounds), each)

        def batch(at: tf.Tensor, view: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return at - first + view * count, tf.gather(self._labels, at)

        both = tf.data.Dataset.zip(positions, views)
        return both.map(batch).prefetch(2).with_options(data.options())

    def source(self, network: keras.Model) -> Source:
        """For training batches of `batches`, and validation batches of `keep`."""
        dtype = network.get_layer(self._features.layer).compute_dtype

        def looked_up(positions: tf.Tensor) -> tf.Tensor:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            table = self._tables[int(tf.get_static_value(replica))]
            rows = {
                name: self._values(tf.gather(words, positions), name)
                for name, words in table.items()
            }
            return restore(rows, dtype)

        return source(network, self._features)._replace(train=looked_up)

    def _words(self, column: np.ndarray, part: int) -> np.ndarray:
        """int32[rows, words]: on a GPU, tf.gather takes that, but not every dtype."""
        words = column.reshape(len(column), -1).view(np.int32)
        first, end = self._bounds[part : part + 2]
        views = [
            words[view * self._examples + first : view * self._examples + end]
            for view in range(self._features.views)
        ]
        return views[0] if len(views) == 1 else np.concatenate(views)

    def _values(self, words: tf.Tensor, name: str) -> tf.Tensor:
        dtype, shape = self._features.columns[name]
        return tf.reshape(tf.bitcast(words, dtype), [-1, *shape])
