"""The article's RMSprop, held to the published rule in NumPy."""

import numpy as np
import pytest

from trainer import optimizer
from trainer.recipe import RECIPES


@pytest.mark.parametrize("magnitude", [1e-2, 1e-4, 1e-6])
def test_steps_are_those_of_keras_2(tf, magnitude: float) -> None:
    """Keras 2.2: a += (1-rho) (g²-a);  p -= lr / (1 + decay·t) · g / (√a + ε)."""
    import keras

    recipe = RECIPES["article"]
    rng = np.random.default_rng(0)
    start = rng.normal(0, 1e-4, 50)
    gradients = magnitude * rng.choice([-1, 1], (8, 50)) * rng.uniform(0.5, 2, (8, 50))

    expected, mean_square = start.copy(), np.zeros(50)
    for update, gradient in enumerate(gradients):
        mean_square = 0.9 * mean_square + 0.1 * gradient**2
        rate = 5e-7 / (1 + 5e-5 * update)
        expected -= rate * gradient / (np.sqrt(mean_square) + 1e-7)

    variable = keras.Variable(start, dtype="float64")
    rule = optimizer.build(recipe)
    rule.build([variable])
    for gradient in gradients:
        rule.apply([tf.constant(gradient)], [variable])
    np.testing.assert_allclose(
        variable.numpy() - start, expected - start, rtol=2e-5, atol=0
    )


def test_the_learning_rate_decays_with_every_update(tf) -> None:
    import keras

    rule = optimizer.build(RECIPES["article"])
    variable = keras.Variable([1.0])
    rule.build([variable])
    rates = []
    for _ in range(3):
        rates.append(float(rule.learning_rate))
        rule.apply([tf.constant([0.1])], [variable])
    np.testing.assert_allclose(rates, [5e-7 / (1 + 5e-5 * t) for t in range(3)])
