"""VGG16 with a new head, and MODEL: the folder that it is saved in and loaded from."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras

from pipeline.dataset.manifest import CLASSES, Dataset, classes_entry, classes_text
from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath
from pipeline.system.errors import RunError
from trainer import starting_weights
from trainer.contract import MANIFEST, MODEL, SCALING
from trainer.recipe import Recipe

VERSION = 1
SMALLEST = 32  # pixels a side: five times halved, one is left

# The last layer that is frozen where a part of the network is trained; of `block5` it
# is the 15th of keras.applications.VGG16.
_LAST_FROZEN = {"head": "block5_pool", "block5": "block4_pool", "all": "preprocess"}
_LAST_OF_BASE = "block5_pool"
_DROPOUT = "dropout"

# Of keras.applications.vgg16.preprocess_input: mean blue, green, red of ImageNet.
_MEAN = (103.939, 116.779, 123.68)


def build(
    *, height: int, width: int, classes: int, weights: str, recipe: Recipe
) -> keras.Model:
    """Builds VGG16 from pixels to class probabilities; nothing is frozen yet.

    Args:
        height, width: of the images, at least SMALLEST.
        classes: how many.
        weights: of the convolutions: see starting_weights.convolutions.
        recipe: of the preprocessing, the head and the precision.

    Returns:
        A model from pixels[batch, height, width, 3] in 0 … 255, of any dtype, to
        float32[batch, classes].

    Raises:
        RunError: the images are too small, or the weights cannot be had or are of
            another architecture.
    """
    if min(height, width) < SMALLEST:
        raise RunError(
            f"the images are {height}x{width} (height x width); VGG16 takes at least "
            f"{SMALLEST}x{SMALLEST}. Make the dataset again with larger ones."
        )
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(recipe.precision)  # keras.applications takes no other
    try:
        return _network(height, width, classes, weights, recipe)
    finally:
        keras.config.set_dtype_policy(before)


def train_only(model: keras.Model, part: str) -> None:
    """Freezes everything before a part of the network: see `trainable` of Recipe.

    To be called before an optimizer is built, or a graph made.
    """
    frozen = True
    for layer in model.layers:
        layer.trainable = not frozen
        if layer.name == _LAST_FROZEN[part]:
            frozen = False


class NetworkStages(NamedTuple):
    """A model as four that follow each other and share its variables.

    The Dropout layer stands between the last two, and is in neither: see step.dropout.

    Attributes:
        frozen: up to the last layer that is not trained; None when nothing comes
            before that.
        convolutions: from there to the end of block5; None when these are frozen.
        before_dropout: the head, from the end of block5 to the input of dropout.
        after_dropout: the rest of the head, to probabilities.
    """

    frozen: keras.Model | None
    convolutions: keras.Model | None
    before_dropout: keras.Model
    after_dropout: keras.Model


def cut(model: keras.Model, *, since: str | None = None) -> NetworkStages:
    """Cuts a model where its trainable part and its head begin, and at dropout.

    Args:
        model: some of its first layers are frozen.
        since: a frozen layer, whose output comes in; without it, pixels do.
    """
    last = [layer for layer in model.layers if not layer.trainable][-1]
    base = model.get_layer(_LAST_OF_BASE)
    dropout = model.get_layer(_DROPOUT)
    first = model.get_layer(since).output if since else model.input
    return NetworkStages(
        None if last.name == since else keras.Model(first, last.output),
        None if last is base else keras.Model(last.output, base.output),
        keras.Model(base.output, dropout.input),
        keras.Model(dropout.output, model.output),
    )


def prefix(model: keras.Model, layer: str) -> keras.Model:
    """Returns the model from pixels to the output of a layer."""
    return keras.Model(model.input, model.get_layer(layer).output)


def save(
    model: keras.Model,
    folder: Path,
    dataset: Dataset,
    facts: Mapping[str, Any],
) -> None:
    """Writes the result: model.keras, classes.txt, and model.json last.

    Args:
        model: uncompiled; it is the whole of VGG16 and takes pixels.
        folder: MODEL.
        dataset: what it was trained on.
        facts: of the run, for model.json; `recipe` among them.
    """
    write_keras(model, folder / MODEL)
    atomic.write_text(folder / CLASSES, classes_text(dataset.classes))
    manifest = {
        "version": VERSION,
        "image": dataset.image.pixels(),
        "scaling": SCALING[facts["recipe"]["preprocessing"]],
        "classes": classes_entry(dataset.classes),
        "sha256": atomic.sha256(folder / MODEL),
        **facts,
    }
    atomic.write_json(folder / MANIFEST, manifest)


def load(folder: AnyPath) -> keras.Model:
    """Loads the model of a finished run; `read_contract` comes first."""
    path = folder / MODEL
    if isinstance(path, Path):
        return keras.models.load_model(path)
    with tempfile.TemporaryDirectory() as here:  # Keras reads files alone
        Path(here, MODEL).write_bytes(path.read_bytes())
        return keras.models.load_model(Path(here, MODEL))


def write_keras(model: keras.Model, path: Path) -> None:
    """Commits a model as a `.keras` file."""
    with atomic.commit_path(path) as unfinished:
        model.save(unfinished)


def _network(
    height: int, width: int, classes: int, weights: str, recipe: Recipe
) -> keras.Model:
    layers = keras.layers
    pixels = keras.Input((height, width, 3), dtype="float32", name="pixels")
    base = starting_weights.convolutions(
        _preprocessed(pixels, recipe.preprocessing), weights
    )
    x = layers.Flatten(name="flatten")(base.output)
    x = layers.Dense(
        recipe.hidden, "relu", kernel_initializer="he_normal", name="hidden"
    )(x)
    x = layers.BatchNormalization(
        momentum=recipe.batch_norm_momentum, synchronized=True, name="normalization"
    )(x)
    x = layers.Dropout(recipe.dropout, name=_DROPOUT)(x)
    outputs = layers.Dense(classes, "softmax", dtype="float32", name="probabilities")(x)
    return keras.Model(pixels, outputs, name="vgg16")


def _preprocessed(pixels: keras.KerasTensor, how: str) -> keras.KerasTensor:
    """Scales in float32: 16 bits would round before the convolutions do.

    Without weights, which a weights file would have to have.
    """
    if how == "scale":
        rescaling = keras.layers.Rescaling(1 / 255, name="preprocess", dtype="float32")
    else:
        pixels = pixels[..., ::-1]
        rescaling = keras.layers.Rescaling(
            1.0, [-mean for mean in _MEAN], name="preprocess", dtype="float32"
        )
    return rescaling(pixels)
