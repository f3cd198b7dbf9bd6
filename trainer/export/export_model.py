"""MODEL → MODEL/export: what TensorFlow Serving and LiteRT load."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from pipeline.dataset.manifest import CLASSES, classes_text
from pipeline.storage import atomic, folder_lock
from pipeline.system import console, startup_log
from pipeline.system.console import in_bytes
from pipeline.system.errors import RunError
from trainer import model
from trainer.contract import Contract, read_contract
from trainer.export import image_decoding

VERSION = 1
EXPORT = "export"
MANIFEST = "export.json"
SAVED_MODEL = "saved_model"
LITE = "model.tflite"
# Signatures of the SavedModel; LITE has the second.
ENCODED = "serving_default"
PIXELS = "pixels"


def run(model_folder: Path) -> None:
    """Writes MODEL/export, in place of a former one.

    Always anew: it takes seconds, and depends on TensorFlow's version, too.

    Args:
        model_folder: MODEL.

    Raises:
        RunError: MODEL is incomplete or damaged, or its `export` is not ours.
    """
    # Where TensorFlow has started, leave it.
    with contextlib.suppress(RuntimeError), startup_log.kept():
        tf.config.set_visible_devices([], "GPU")  # a training run may need them all
    contract, folder = read_contract(model_folder), model_folder / EXPORT
    console.say(
        f"EXPORT {folder}: MODEL {model_folder} as two files that need no Keras"
    )
    # The converter tells past sys.stderr which of its options it ignores.
    with startup_log.kept(), _replace(folder) as unfinished:
        network = _in_float32(model.load(model_folder))
        _write_saved_model(network, contract, unfinished / SAVED_MODEL)
        lite = _to_lite(unfinished / SAVED_MODEL)
        (unfinished / LITE).write_bytes(lite)
        atomic.write_text(unfinished / CLASSES, classes_text(contract.classes))
        atomic.write_json(unfinished / MANIFEST, _manifest(contract))
    console.conclude("\n".join(_summary(folder, contract)))


def _in_float32(network: keras.Model) -> keras.Model:
    """The same network and weights without 16 bits.

    LiteRT has no convolutions of these, and both files are to answer alike.
    """

    def convert(layer: keras.Operation) -> keras.Operation:
        config = layer.get_config()
        if "dtype" in config:  # not in that of a bare operation, as a slice is
            config["dtype"] = "float32"
        return type(layer).from_config(config)

    twin = keras.models.clone_model(network, clone_function=convert)
    twin.set_weights(network.get_weights())
    return twin


def _write_saved_model(network: keras.Model, contract: Contract, path: Path) -> None:
    """Writes both signatures.

    An image that cannot be decoded costs its own row: `valid` is false there and its
    probabilities are 0.

    The class names are string[batch, classes], a row per image: TensorFlow Serving
    cuts every output along the batch when it batches requests, and when it answers
    `instances` over REST; its Classify API has them so, too. A client that knows
    classes.txt leaves them out with `output_filter`.
    """
    height, width = contract.image["height"], contract.image["width"]
    pixels = tf.TensorSpec((height, width, 3), tf.float32, name=PIXELS)
    names = tf.constant([contract.classes])

    def of_pixels(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": network(pixels, training=False)}

    def of_encoded(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images, valid = image_decoding.decode_batch(image_bytes, contract.image)
        probabilities = of_pixels(images)["probabilities"]
        return {
            "probabilities": tf.where(valid[:, tf.newaxis], probabilities, 0),
            "classes": tf.tile(names, [tf.size(image_bytes), 1]),
            "valid": valid,
        }

    encoded = tf.TensorSpec((None,), tf.string, name="image_bytes")
    batch = tf.TensorSpec((None, *pixels.shape), tf.float32, name=PIXELS)
    signatures = {
        ENCODED: tf.function(of_encoded, input_signature=[encoded], autograph=False),
        PIXELS: tf.function(of_pixels, input_signature=[batch], autograph=False),
    }
    # Not keras.export.ExportArchive: that of Keras 3.15 saves every variable twice.
    served = tf.Module()
    served.weights = [variable.value for variable in network.variables]
    tf.saved_model.save(served, path, signatures)


def _to_lite(saved_model: Path) -> bytes:
    """The signature of pixels as a LiteRT model; it cannot decode JPEGs."""
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(saved_model), signature_keys=[PIXELS]
    )
    content: bytes = converter.convert()
    return content


def _manifest(contract: Contract) -> dict[str, Any]:
    """export.json: what goes in, what comes out, and where it is from."""
    height, width = contract.image["height"], contract.image["width"]
    count = len(contract.classes)
    probabilities = {"dtype": "float32", "shape": ["batch", count]}
    encoded = {
        "inputs": {"image_bytes": {"dtype": "string", "shape": ["batch"]}},
        "outputs": {
            "probabilities": probabilities,
            "classes": {"dtype": "string", "shape": ["batch", count]},
            "valid": {"dtype": "bool", "shape": ["batch"]},
        },
    }
    shape = ["batch", height, width, 3]
    pixels = {
        "inputs": {
            PIXELS: {"dtype": "float32", "shape": shape, "range": [0, 255]},
        },
        "outputs": {"probabilities": probabilities},
    }
    return {
        "version": VERSION,
        "model": contract.fingerprint,
        "image": dict(contract.image),
        "signatures": {
            SAVED_MODEL: {ENCODED: encoded, PIXELS: pixels},
            LITE: {PIXELS: pixels},
        },
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
    }


@contextlib.contextmanager
def _replace(folder: Path) -> Iterator[Path]:
    """Yields a folder to fill; at the end it takes the place of `folder`, whole.

    What a killed run left goes first. No folder can be renamed onto another: for a
    moment there is none.

    Raises:
        RunError: `folder` is not an earlier export, or another run makes one.
    """
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise RunError(
            f"{folder} is there already, and is no export: it has no {MANIFEST}. Move "
            "it away, and run again."
        )
    work = folder.with_name(f".{folder.name}-work")
    unfinished, former = work / "unfinished", work / "former"
    # Of its own, not of MODEL: a training run may go on there meanwhile.
    with folder_lock.held(work):
        for left in (unfinished, former):
            shutil.rmtree(left, ignore_errors=True)
        unfinished.mkdir()
        try:
            yield unfinished
            _sync(unfinished)
            if folder.exists():
                folder.rename(former)
            unfinished.rename(folder)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        shutil.rmtree(work)


def _sync(folder: Path) -> None:
    """Brings everything below a folder safely to disk."""
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _summary(folder: Path, contract: Contract) -> list[str]:
    """The files with their sizes, and how to call the two models."""
    names = (SAVED_MODEL, LITE, CLASSES, MANIFEST)
    size = f"{contract.image['height']}x{contract.image['width']}x3"
    return [
        f"EXPORT {folder} is complete: {SAVED_MODEL} for TensorFlow Serving, {LITE} "
        "for LiteRT",
        *(f"  {name:14} {in_bytes(_bytes(folder / name))}" for name in names),
        f"  tf.saved_model.load('{folder / SAVED_MODEL}').signatures['{ENCODED}']"
        "(image_bytes=tf.constant([open('photo.jpg', 'rb').read()]))",
        f"  Interpreter('{folder / LITE}').get_signature_runner('{PIXELS}')"
        f"(pixels=…)  # float32, batch x {size}, 0 … 255",
    ]


def _bytes(path: Path) -> int:
    """Counts the bytes of a file, or of all files below a folder."""
    every = path.rglob("*") if path.is_dir() else [path]
    return sum(each.stat().st_size for each in every if each.is_file())
