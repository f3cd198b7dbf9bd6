"""The article's RMSprop, held to the published rule in NumPy."""

from dataclasses import replace

import numpy as np
import pytest

from trainer.recipe import RECIPES
from trainer.training import optimizer


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
    rule = optimizer.build(recipe, recipe.phases()[0], 10)
    rule.build([variable])
    for gradient in gradients:
        rule.apply([tf.constant(gradient)], [variable])
    np.testing.assert_allclose(
        variable.numpy() - start, expected - start, rtol=2e-5, atol=0
    )


def test_the_learning_rate_decays_with_every_update(tf) -> None:
    import keras

    recipe = RECIPES["article"]
    rule = optimizer.build(recipe, recipe.phases()[0], 10)
    variable = keras.Variable([1.0])
    rule.build([variable])
    rates = []
    for _ in range(3):
        rates.append(float(rule.learning_rate))
        rule.apply([tf.constant([0.1])], [variable])
    np.testing.assert_allclose(rates, [5e-7 / (1 + 5e-5 * t) for t in range(3)])


def test_warm_up_and_cosine(tf) -> None:
    """Linear from 0 over an epoch of 10 updates, then half a cosine over the rest."""
    recipe = RECIPES["finetune"]
    for phase in recipe.phases():
        rule = optimizer.build(recipe, phase, 10)
        rates = [float(rule._learning_rate(step)) for step in range(10 * phase.epochs)]
        rest = np.arange(10 * phase.epochs - 10)
        expected = [
            *(np.arange(10) / 10),
            *(0.5 * (1 + np.cos(np.pi * rest / len(rest)))),
        ]
        peak = phase.learning_rate
        np.testing.assert_allclose(rates, peak * np.array(expected), atol=1e-6 * peak)


def test_adamw_in_numpy(tf) -> None:
    """arXiv:1711.05101, algorithm 2; kernels decay, biases do not."""
    import keras

    recipe = replace(RECIPES["finetune"], warmup_epochs=0, weight_decay=0.1)
    phase = replace(recipe.phases()[0], learning_rate=0.01, epochs=10**6)
    rule = optimizer.build(recipe, phase, 10)
    rng = np.random.default_rng(0)
    start = rng.normal(0, 1, 20)
    variables = [keras.Variable(start, name=name) for name in ("kernel", "bias")]
    rule.build(variables)
    mean, square = np.zeros(20), np.zeros(20)
    expected = {"kernel": start.copy(), "bias": start.copy()}
    for t in range(1, 6):
        gradient = rng.normal(0, 1, 20)
        rule.apply([tf.constant(gradient, tf.float32)] * 2, variables)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        step = mean / (1 - 0.9**t) / (np.sqrt(square / (1 - 0.999**t)) + 1e-7)
        expected["kernel"] -= 0.01 * 0.1 * expected["kernel"]
        for value in expected.values():
            value -= 0.01 * step
    for variable in variables:
        np.testing.assert_allclose(
            variable.numpy(), expected[variable.name], rtol=1e-4, atol=1e-5
        )
