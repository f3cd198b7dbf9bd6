"""One epoch of training, and one evaluation, over all replicas.

Every number is a sum over examples, divided once at the end: it does not depend on
how many replicas there are, nor on the size of the last batch.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from tqdm import tqdm

from pipeline.console import RunError
from trainer import augment, feed
from trainer.recipe import NO_AUGMENTATION, Augmentation

_LOOK_EVERY = 10  # steps between two looks at the sums; a look waits for the device


class Metrics(NamedTuple):
    """Means over examples."""

    loss: float
    accuracy: float
    top5_accuracy: float


class Epoch(NamedTuple):
    """One epoch of training.

    Attributes:
        metrics: of the batches as they were trained on.
        seconds: from the first batch asked for to the last step done.
        input_wait: share of `seconds` spent waiting for the next batch.
    """

    metrics: Metrics
    seconds: float
    input_wait: float


class Loop:
    """The compiled steps of a model under a strategy.

    Args:
        model: from pixels to probabilities.
        optimizer: of its trainable variables.
        strategy: that both were made under.
        batch_size: global; the loss is the mean over it.
        augmentation: of training images, on their device; evaluation has none.
        seed: of the augmentations; without one, another for every loop.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.Optimizer,
        strategy: tf.distribute.Strategy,
        *,
        batch_size: int,
        augmentation: Augmentation = NO_AUGMENTATION,
        seed: int | None = None,
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._strategy = strategy
        self._batch_size = batch_size
        self._augmentation = augmentation
        self._seed = secrets.randbits(31) if seed is None else seed
        self._train_step = tf.function(self._train_step_eagerly)
        self._test_step = tf.function(self._test_step_eagerly)

    def feed(self, batches: tf.data.Dataset) -> Iterator[Any]:
        """Full global batches, on their devices; to be taken by `train`."""
        return feed.to_replicas(batches, self._strategy)

    def train(self, batches: Iterator[Any], steps: int, *, bar: tqdm) -> Epoch:
        """Takes `steps` optimizer steps on distributed (images, labels) batches.

        Raises:
            RunError: the loss is no finite number any more.
        """
        sums = _zeros()
        waited = 0.0
        started = time.perf_counter()
        for step in range(1, steps + 1):
            asked = time.perf_counter()
            images, labels = next(batches)
            waited += time.perf_counter() - asked
            sums += self._train_step(images, labels)
            if step % _LOOK_EVERY == 0 or step == steps:
                metrics = _means(sums)
                _refuse_divergence(metrics, step)
                share = waited / (time.perf_counter() - started)
                bar.set_postfix_str(
                    f"loss {metrics.loss:.4f}, accuracy {metrics.accuracy:.4f}, "
                    f"input wait {share:.0%}",
                    refresh=False,
                )
            bar.update(self._batch_size)
        seconds = time.perf_counter() - started
        return Epoch(metrics, seconds, waited / seconds)

    def evaluate(self, batches: tf.data.Dataset) -> Metrics:
        """The metrics over a finite dataset of (images, labels); each row counts once.

        Dropout and the moving statistics are those of inference. The last batch is
        filled up with rows that do not count: no replica may be left without one.
        """
        sums = _zeros()
        for batch in self.feed(batches.map(self._pad)):
            sums += self._test_step(*batch)
        return _means(sums)

    def _pad(
        self, images: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Adds rows up to a full batch, and the weight of every row: 1 or 0."""
        missing = self._batch_size - tf.shape(labels)[0]
        images = tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]])
        weights = tf.pad(tf.ones_like(labels), [[0, missing]])
        return images, tf.pad(labels, [[0, missing]]), weights

    def _train_step_eagerly(self, images: Any, labels: Any) -> tf.Tensor:
        return self._sum(self._train_replica, images, labels)

    def _test_step_eagerly(self, images: Any, labels: Any, weights: Any) -> tf.Tensor:
        return self._sum(self._test_replica, images, labels, weights)

    def _sum(self, replica: Callable[..., tf.Tensor], *batch: Any) -> tf.Tensor:
        parts = self._strategy.run(replica, batch)
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None)

    def _train_replica(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        variables = self._model.trainable_variables
        images = self._augmented(images)
        with tf.GradientTape() as tape:
            probabilities = self._model(images, training=True)
            losses = _cross_entropy(labels, probabilities)
            # The optimizer sums gradients over replicas: the global mean.
            loss = tf.reduce_sum(losses) / self._batch_size
        self._optimizer.apply(tape.gradient(loss, variables), variables)
        return _sums(losses, labels, probabilities, tf.ones_like(labels))

    def _augmented(self, images: tf.Tensor) -> tf.Tensor:
        """The images of this replica, each as it would be with one replica for all."""
        if not self._augmentation.changes:
            return images
        drawn = augment.draws(self._seed, self._optimizer.iterations, self._batch_size)
        replica = tf.distribute.get_replica_context()
        rows = self._batch_size // replica.num_replicas_in_sync
        first = rows * replica.replica_id_in_sync_group
        return augment.apply(images, drawn[first : first + rows], self._augmentation)

    def _test_replica(
        self, images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
    ) -> tf.Tensor:
        probabilities = self._model(images, training=False)
        losses = _cross_entropy(labels, probabilities)
        return _sums(losses, labels, probabilities, weights)


def _cross_entropy(labels: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
    """float32[batch]; inside a graph Keras takes the logits below the softmax."""
    return keras.losses.sparse_categorical_crossentropy(labels, probabilities)


def _sums(
    losses: tf.Tensor, labels: tf.Tensor, probabilities: tf.Tensor, weights: tf.Tensor
) -> tf.Tensor:
    """float64[4]: summed loss, top-1 hits, top-5 hits, and weights (0 or 1)."""
    top5 = min(5, probabilities.shape[-1])
    rows = [
        losses,
        tf.math.in_top_k(labels, probabilities, k=1),
        tf.math.in_top_k(labels, probabilities, k=top5),
        tf.ones_like(weights),
    ]
    weights = tf.cast(weights, tf.float64)
    return tf.stack([tf.reduce_sum(tf.cast(row, tf.float64) * weights) for row in rows])


def _zeros() -> tf.Tensor:
    return tf.zeros([4], tf.float64)


def _means(sums: tf.Tensor) -> Metrics:
    loss, top1, top5, examples = (float(value) for value in sums.numpy())
    return Metrics(loss / examples, top1 / examples, top5 / examples)


def _refuse_divergence(metrics: Metrics, step: int) -> None:
    if not -float("inf") < metrics.loss < float("inf"):
        raise RunError(
            f"training diverged: the mean loss is {metrics.loss} after {step} steps of "
            "this epoch. What was saved before is kept. Lower --learning_rate."
        )
