"""What one replica does in one step, of training or of evaluation."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from trainer import model
from trainer.data import augmentation
from trainer.recipe import Recipe

# Part of the key of a run: to be changed when `dropout` draws other masks.
DROPOUT_MASKS = "by seed, step and row, version 1"

_PHILOX = 1  # Algorithm::RNG_ALG_PHILOX of tensorflow/core/framework/rng_alg.h


class InputSource(NamedTuple):
    """What batches bring instead of pixels.

    Attributes:
        layer: a frozen one, whose output is made of it.
        restore: makes it, from the rows of a replica.
    """

    layer: str
    restore: Callable[[Any], tf.Tensor]


class Step:
    """Forward, backward, update; to be called by `strategy.run`.

    The convolutions that are not trained are no part of the gradient; none of the
    convolutions knows of other rows. So a batch may go through them in parts, and only
    the head, with its statistics over the batch, needs all of it at once: the numbers
    are those of the whole batch.

    Args: see loop.Loop.
    """

    def __init__(
        self,
        network: keras.Model,
        optimizer: keras.Optimizer,
        recipe: Recipe,
        *,
        class_weights: Sequence[float] | None,
        seed: int,
        first_step: int,
        source: InputSource | None,
    ) -> None:
        self._model, self._optimizer, self._recipe = network, optimizer, recipe
        self._weights = None
        if class_weights is not None:
            self._weights = tf.constant(class_weights, tf.float32)
        self._seed, self._first_step = seed, first_step
        self._source = source
        self._parts = model.cut(network, since=source.layer if source else None)
        self._frozen = self._parts.frozen or tf.identity
        if recipe.jit and self._parts.frozen:
            # No more: XLA has no deterministic gradient of max pooling, and no
            # collective operation of a MirroredStrategy.
            self._frozen = tf.function(self._parts.frozen, jit_compile=True)
        self._convolutions = self._parts.convolutions or tf.identity

    def train(self, rows: Any, labels: tf.Tensor) -> tf.Tensor:
        """Updates once. Returns the sums of this replica's rows; see `_sums`."""
        # uint8 or float32[rows, height, width, 3], or the features of these rows.
        inputs = self._source.restore(rows) if self._source else self._augmented(rows)
        # Outside the tape: nothing before the first trainable layer has a gradient.
        frozen = in_parts(self._frozen, inputs, self._recipe.accumulate)
        if self._recipe.accumulate == 1:
            with tf.GradientTape() as tape:
                probabilities = self._head(self._convolutions(frozen), training=True)
                loss = self._loss(labels, probabilities)
            gradients = tape.gradient(loss, self._model.trainable_variables)
        else:
            probabilities, gradients = self._part_by_part(frozen, labels)
        self._optimizer.apply(gradients, self._model.trainable_variables)
        return _sums(labels, probabilities, tf.ones_like(labels))

    def test(self, rows: Any, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Returns the sums of the rows that count, by inference."""
        inputs = self._source.restore(rows) if self._source else rows
        frozen = in_parts(self._frozen, inputs, self._recipe.accumulate)
        features = in_parts(self._convolutions, frozen, self._recipe.accumulate)
        return _sums(labels, self._head(features, training=False), weights)

    def _part_by_part(
        self, frozen: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Returns probabilities and all gradients, with the memory of one part.

        The convolutions go forward twice: what they keep for the way back is the
        memory that is to be spared (GradCache, arXiv:2101.06983).
        """
        features = in_parts(self._convolutions, frozen, self._recipe.accumulate)
        with tf.GradientTape() as tape:
            tape.watch(features)
            probabilities = self._head(features, training=True)
            loss = self._loss(labels, probabilities)
        of_features, of_head = tape.gradient(
            loss,
            [
                features,
                self._parts.before_dropout.trainable_variables
                + self._parts.after_dropout.trainable_variables,
            ],
        )
        if not self._parts.convolutions:
            return probabilities, of_head
        variables = self._parts.convolutions.trainable_variables
        sums = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
        cuts = [_slices(one, self._recipe.accumulate) for one in (frozen, of_features)]
        for part, above in zip(*cuts, strict=True):
            with tf.control_dependencies(sums), tf.GradientTape() as tape:
                features = self._convolutions(tf.identity(part))
            found = tape.gradient(features, variables, output_gradients=above)
            sums = [a + b for a, b in zip(sums, found, strict=True)]
        return probabilities, sums + of_head

    def _head(self, features: tf.Tensor, *, training: bool) -> tf.Tensor:
        """Returns the probabilities of all rows of this replica."""
        hidden = self._parts.before_dropout(features, training=training)
        if training and self._recipe.dropout:
            # Not by the model's own layer: its seed state is mirrored, so that row i of
            # every replica would get the same mask.
            hidden = dropout(
                hidden,
                self._recipe.dropout,
                seed=self._seed,
                step=self._number(),
                batch_size=self._recipe.batch_size,
            )
        return self._parts.after_dropout(hidden)

    def _number(self) -> tf.Tensor:
        """Returns how many updates of the run came before: int64."""
        return self._first_step + tf.cast(self._optimizer.iterations, tf.int64)

    def _loss(self, labels: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
        """Returns the loss to minimise: this replica's share of the global mean.

        The optimizer sums the gradients of the replicas.
        """
        if smoothing := self._recipe.label_smoothing:
            hot = tf.one_hot(labels, probabilities.shape[-1])
            losses = keras.losses.categorical_crossentropy(
                hot, probabilities, label_smoothing=smoothing
            )
        else:
            losses = _cross_entropy(labels, probabilities)
        if self._weights is not None:
            losses *= tf.gather(self._weights, labels)
        loss = tf.reduce_sum(losses) / self._recipe.batch_size
        return self._optimizer.scale_loss(loss)  # for float16 alone

    def _augmented(self, images: tf.Tensor) -> tf.Tensor:
        """Augments the images of this replica as one replica for all would."""
        if not self._recipe.augmentation.changes:
            return images
        drawn = augmentation.draws(self._seed, self._number(), self._recipe.batch_size)
        mine = augmentation.of_replica(drawn, len(images))
        return augmentation.apply(images, mine, self._recipe.augmentation)


def in_parts(function: Callable, rows: tf.Tensor, parts: int) -> tf.Tensor:
    """Applies a function of rows that know nothing of each other, part after part."""
    if parts == 1:
        return function(rows)
    done: list[tf.Tensor] = []
    for part in _slices(rows, parts):
        with tf.control_dependencies(done[-1:]):
            done.append(function(tf.identity(part)))
    return tf.concat(done, axis=0)


def _slices(rows: tf.Tensor, parts: int) -> list[tf.Tensor]:
    """Cuts the first axis evenly."""
    size, rest = divmod(len(rows), parts)
    if rest:
        raise ValueError(f"{len(rows)} rows cannot be cut into {parts} equal parts")
    # Not tf.split: GPUs have no kernel of it for uint8, and pixels would go to the CPU
    # and back in every step.
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def dropout(
    rows: tf.Tensor, rate: float, *, seed: int, step: tf.Tensor, batch_size: int
) -> tf.Tensor:
    """Zeroes values at random, in the context of a replica.

    Every row gets the mask that it would get with one replica for the global batch: a
    function of the seed, the step and its place in the batch.

    Args:
        rows: float[rows, units] of this replica.
        rate: the share to be zeroed, in [0, 1).
        seed: of the run, below 2**63 and not negative.
        step: int64, how many came before.
        batch_size: global, over all replicas.

    Returns:
        The same shape and dtype.
    """
    # The counter of Philox (Salmon et al. 2011) has 128 bits. The seed is its key, the
    # step are the upper 64, and the lower count the numbers of one step: no two steps
    # share any. tf.random.stateless_uniform is the same generator behind 20 operations
    # more, which mix the seed. Each replica draws for the whole batch (64 x 256 numbers
    # take 0.3 ms on one core) and takes its own rows.
    drawn = tf.raw_ops.StatelessRandomUniformV2(
        shape=(batch_size, rows.shape[1]),
        key=tf.constant([seed], tf.uint64),
        counter=tf.stack([tf.constant(0, tf.uint64), tf.cast(step, tf.uint64)]),
        alg=_PHILOX,
    )
    kept = augmentation.of_replica(drawn, len(rows)) >= rate
    # Srivastava et al. 2014 (JMLR 15, 1929-1958), section 4; what is kept is scaled in
    # training (section 10) and not at inference, as in Keras. Chosen, not multiplied by
    # 0: a dropped Inf is a zero, too.
    return tf.where(kept, rows * (1 / (1 - rate)), 0)


def _cross_entropy(labels: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
    """Returns float32[batch]; in a graph Keras takes the logits below the softmax."""
    return keras.losses.sparse_categorical_crossentropy(labels, probabilities)


def _sums(labels: tf.Tensor, probabilities: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Sums to float64[4]: loss, top-1 hits, top-5 hits, and weights (0 or 1).

    The loss is the plain cross-entropy, whatever is minimized, so that training and
    validation can be compared.
    """
    top5 = min(5, probabilities.shape[-1])
    rows = [
        _cross_entropy(labels, probabilities),
        tf.math.in_top_k(labels, probabilities, k=1),
        tf.math.in_top_k(labels, probabilities, k=top5),
        tf.ones_like(weights),
    ]
    weights = tf.cast(weights, tf.float64)
    return tf.stack([tf.reduce_sum(tf.cast(row, tf.float64) * weights) for row in rows])
