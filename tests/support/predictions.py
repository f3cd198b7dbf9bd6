"""Models to predict with, and PREDICTIONS to read."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.dataset import manifest
from pipeline.storage import atomic
from predictor.format import file_format, predictions_manifest
from predictor.format.file_format import Format
from predictor.format.predictions_manifest import Entry
from trainer.recipe import RECIPES


def make_model(parent: Path, dataset_folder: Path, *, seed: int) -> Path:
    import keras

    from trainer import model

    folder = parent / "model"
    folder.mkdir()
    dataset = manifest.load(dataset_folder)
    keras.utils.set_random_seed(seed)
    network = model.build(
        height=dataset.image.height,
        width=dataset.image.width,
        classes=len(dataset.classes),
        weights="none",
        recipe=RECIPES["demo"],
    )
    model.save(network, folder, dataset, {"recipe": {"preprocessing": "scale"}})
    return folder


def make_small(parent: Path, dataset_folder: Path) -> Path:
    """MODEL of a network that takes hardly any time."""
    import keras

    from trainer import model

    folder = parent / "model"
    folder.mkdir()
    dataset = manifest.load(dataset_folder)
    keras.utils.set_random_seed(1)
    pixels = keras.Input((dataset.image.height, dataset.image.width, 3))
    x = keras.layers.Rescaling(1 / 255)(pixels)
    x = keras.layers.Conv2D(8, 8, strides=8, activation="relu")(x)
    x = keras.layers.Flatten()(x)
    outputs = keras.layers.Dense(len(dataset.classes), "softmax")(x)
    network = keras.Model(pixels, outputs)
    model.save(network, folder, dataset, {"recipe": {"preprocessing": "scale"}})
    return folder


Part = tuple[Sequence[str], np.ndarray]


def write_predictions(
    folder: Path,
    form: Format,
    classes: Sequence[str],
    parts: Sequence[Part],
    **fields: Any,
) -> Path:
    """PREDICTIONS of these ids and probabilities, a file for each part."""
    folder.mkdir()
    entries = []
    for index, (ids, values) in enumerate(parts):
        name = predictions_manifest.shard_name(index, len(parts), form.extension)
        with atomic.commit(folder / name) as file:
            output = file_format.Output(file)
            with file_format.table(form, classes, output) as table:
                table.write(ids, values)
        digest = ids_sha256(ids)
        entries.append(
            Entry(name, len(ids), output.length, output.crc32c, digest, rejected=0)
        )
    rows = sum(entry.rows for entry in entries)
    value = {
        "version": form.version,
        "model": "m" * 64,
        "dataset": "d" * 64,
        "images": None,
        "split": "test",
        **form.key(),
        "classes": manifest.classes_entry(tuple(classes)),
        "files": [entry._asdict() for entry in entries],
        "rows": rows,
        "ledger": {"examples": rows, "predicted": rows, "rejected": 0},
        **fields,
    }
    atomic.write_json(folder / predictions_manifest.MANIFEST, value)
    return folder


def ids_sha256(ids: Sequence[str]) -> str:
    return hashlib.sha256(b"".join(name.encode() + b"\0" for name in ids)).hexdigest()


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes predictions.json."""
    path = folder / predictions_manifest.MANIFEST
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
