"""RMSprop as the article's Keras had it."""

import keras
from keras import ops

from trainer.recipe import Recipe


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


def build(recipe: Recipe) -> keras.Optimizer:
    """The optimizer of a recipe: its learning rate decays with every update."""
    schedule = keras.optimizers.schedules.InverseTimeDecay(
        recipe.learning_rate, decay_steps=1, decay_rate=recipe.decay
    )
    return ClassicRMSprop(schedule, rho=0.9, epsilon=1e-7)
