"""A network with the stages of VGG16 and two convolutions, to be trained quickly."""

import contextlib
from collections.abc import Iterator
from unittest import mock


@contextlib.contextmanager
def small_convolutions() -> Iterator[None]:
    """Has `model.build` take two convolutions in place of VGG16's 13.

    The outputs of block4_pool and block5_pool keep their names and shapes, and so does
    all that the project adds before and behind them.
    """
    from trainer import starting_weights

    with mock.patch.object(starting_weights, "convolutions", _convolutions):
        yield


def _convolutions(inputs, weights: str):
    import keras

    layers = keras.layers
    x = layers.Conv2D(
        512, 8, strides=8, padding="same", activation="relu", name="block4_conv1"
    )(inputs)
    x = layers.MaxPooling2D(2, name="block4_pool")(x)
    x = layers.Conv2D(512, 1, activation="relu", name="block5_conv1")(x)
    x = layers.MaxPooling2D(2, name="block5_pool")(x)
    return keras.Model(keras.utils.get_source_inputs(inputs), x, name="vgg16")
