"""The optimizers and the learning-rate schedules of the recipes."""

from collections.abc import Sequence

import keras
import tensorflow as tf
from keras import ops

from trainer.recipe import Phase, Recipe


class ClassicRMSprop(keras.optimizers.RMSprop):
    """RMSprop with epsilon outside the root: step = lr * g / (sqrt(v) + epsilon).

    Keras 2's rule (keras-team/keras 2.2, `optimizers.RMSprop.get_updates`). Keras 3
    divides by sqrt(v + epsilon), which for gradients of 1e-6 makes steps 600 times
    smaller.
    """

    def update_step(self, gradient, variable, learning_rate):  # type: ignore[no-untyped-def]
        """Updates one variable and its moving mean of squared gradients."""
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        velocity = self._velocities[self._get_variable_index(variable)]
        self.assign(
            velocity, self.rho * velocity + (1 - self.rho) * ops.square(gradient)
        )
        step = rate * gradient / (ops.sqrt(velocity) + self.epsilon)
        self.assign_sub(variable, step)


class LossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """Loss scaling that skips a step when the gradients of any replica are not finite.

    Keras 3.15 asks `check_finite` before gradients are summed over the replicas, and
    takes the answer of the first for all: an Inf of another would go into the weights.
    """

    def check_finite(self, grads: Sequence[tf.Tensor | None]) -> tf.Tensor:
        """Returns whether all gradients of all replicas are finite, on each replica."""
        here = super().check_finite(grads)
        infinite = tf.distribute.get_replica_context().all_reduce(
            tf.distribute.ReduceOp.SUM, tf.cast(~here, tf.float32)
        )
        return infinite == 0


def build(recipe: Recipe, phase: Phase, steps_per_epoch: int) -> keras.Optimizer:
    """Builds the optimizer of a phase; its rate changes with every update.

    It has a name, by which a checkpoint knows its variables: Keras would number it, by
    the optimizers that this process has built.

    Args:
        recipe: which optimizer, and its numbers.
        phase: of the recipe.
        steps_per_epoch: updates.
    """
    schedule = _schedule(recipe, phase, steps_per_epoch)
    made: keras.Optimizer
    if recipe.optimizer == "rmsprop":
        made = ClassicRMSprop(schedule, rho=0.9, epsilon=1e-7, name="rmsprop")
    else:
        made = keras.optimizers.AdamW(
            schedule, weight_decay=recipe.weight_decay, name="adamw"
        )
        made.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    if recipe.precision == "mixed_float16":
        return LossScaleOptimizer(made, name="loss_scale")
    return made


def _schedule(
    recipe: Recipe, phase: Phase, steps_per_epoch: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    if recipe.schedule == "inverse_time":
        return keras.optimizers.schedules.InverseTimeDecay(
            phase.learning_rate, decay_steps=1, decay_rate=recipe.decay
        )
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else phase.learning_rate,
        decay_steps=phase.epochs * steps_per_epoch - warmup,
        warmup_target=phase.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
