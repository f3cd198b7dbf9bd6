"""The whole job through its three programs, judged by an independent computation.

The judge reads the shards by itself, decodes with Pillow, and runs VGG16 in NumPy.
"""

import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.support.photos import CLASSES, HEIGHT, TEST, WIDTH
from tests.support.processes import Program

EPOCHS = 2


@pytest.fixture(scope="module")
def job(
    images: Path, tmp_path_factory: pytest.TempPathFactory, program: Program
) -> Path:
    """A folder with `dataset`, `model`, and the predictions of two splits."""
    root = tmp_path_factory.mktemp("job")
    dataset, model = f"--dataset={root}/dataset", f"--model={root}/model"
    runs = [
        (
            *("pipeline", f"--images={images}", dataset, "--max_reject_fraction=0.1"),
            *("--shards=3", f"--height={HEIGHT}", f"--width={WIDTH}", "--workers=2"),
        ),
        (
            *("trainer", dataset, model, "--recipe=demo", "--weights=none"),
            *("--batch_size=8", f"--epochs={EPOCHS}", "--virtual_devices=2"),
        ),
        ("predictor", dataset, model, f"--predictions={root}/test"),
        (
            *("predictor", dataset, model, f"--predictions={root}/validation"),
            *("--split=validation", "--virtual_devices=2", "--batch_size=2"),
        ),
    ]
    for words in runs:
        result = program(*words)
        assert result.returncode == 0, result.stderr
    return root


def records(folder: Path, split: str) -> Iterator[dict[str, list]]:
    """The records of a split: TFRecord frames by hand, TensorFlow's own Example."""
    from tensorflow.train import Example

    for path in sorted((folder / "dataset").glob(f"{split}-*.tfrecord")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            feature = Example.FromString(content[12 : 12 + length]).features.feature
            yield {
                key: list(value.bytes_list.value or value.int64_list.value)
                for key, value in feature.items()
            }
            content = content[12 + length + 4 :]


def forward(network, pixels: np.ndarray) -> np.ndarray:
    """VGG16 in NumPy: uint8[height, width, 3] to float[classes]."""
    x = pixels / 255
    for layer in network.layers:
        weights = [np.asarray(weight, np.float64) for weight in layer.get_weights()]
        if "conv" in layer.name:
            x = np.maximum(convolve(x, weights[0]) + weights[1], 0)
        elif "pool" in layer.name:
            rows, columns = x.shape[0] // 2, x.shape[1] // 2
            x = x[: rows * 2, : columns * 2].reshape(rows, 2, columns, 2, -1)
            x = x.max(axis=(1, 3))
        elif layer.name == "flatten":
            x = x.ravel()
        elif layer.name == "hidden":
            x = np.maximum(x @ weights[0] + weights[1], 0)
        elif layer.name == "normalization":
            gamma, beta, mean, variance = weights
            x = gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta
        elif layer.name == "probabilities":
            logits = x @ weights[0] + weights[1]
            exponentials = np.exp(logits - logits.max())
            x = exponentials / exponentials.sum()
    return x


def convolve(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """A 3x3 convolution with zero padding; kernel is [3, 3, channels, filters]."""
    padded = np.pad(x, [(1, 1), (1, 1), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
    return np.einsum("hwcij,ijcf->hwf", windows, kernel, optimize=True)


def read(folder: Path) -> pd.DataFrame:
    parts = [pd.read_csv(path) for path in sorted(folder.glob("predictions-*.csv"))]
    return pd.concat(parts).set_index("id")


@pytest.mark.parametrize("split", ["test", "validation"])
def test_the_numbers_are_those_of_the_judge(tf, job: Path, split: str) -> None:
    import keras

    network = keras.models.load_model(job / "model" / "model.keras")
    predicted = read(job / split)
    assert list(predicted.columns) == list(CLASSES)
    seen = []
    for record in records(job, split):
        image_id = record["image/filename"][0].decode()
        with Image.open(io.BytesIO(record["image/encoded"][0])) as image:
            pixels = np.asarray(image)
        assert pixels.shape == (HEIGHT, WIDTH, 3)
        expected = forward(network, pixels)
        np.testing.assert_allclose(
            predicted.loc[image_id], expected, rtol=2e-3, atol=1e-5
        )
        seen.append(image_id)
    assert sorted(seen) == sorted(predicted.index)
    np.testing.assert_allclose(predicted.sum(axis="columns"), 1, atol=1e-5)


def test_the_ids_are_those_of_the_files(job: Path, images: Path) -> None:
    names = {path.name for path in (images / "test").iterdir()} - {"page.jpg"}
    assert sorted(read(job / "test").index) == sorted(names)
    assert len(names) == TEST


def test_validation_accuracy_agrees(job: Path) -> None:
    """From the CSV and the labels in the shards, and from the trainer."""
    predicted = read(job / "validation")
    labels = {
        record["image/filename"][0].decode(): record["image/class/label"][0]
        for record in records(job, "validation")
    }
    top = predicted.to_numpy().argmax(axis=1)
    right = [labels[image_id] for image_id in predicted.index]
    history = pd.read_csv(job / "model" / "history.csv")
    assert list(history.epoch) == list(range(1, EPOCHS + 1))
    assert history.val_accuracy.iloc[-1] == pytest.approx((top == right).mean())
    losses = -np.log(predicted.to_numpy()[np.arange(len(right)), right])
    assert history.val_loss.iloc[-1] == pytest.approx(losses.mean(), rel=1e-3)


def test_labels_are_those_of_the_folders(job: Path) -> None:
    classes = (job / "dataset" / "classes.txt").read_text().splitlines()
    for record in records(job, "train"):
        folder = record["image/filename"][0].decode().partition("/")[0]
        assert record["image/class/text"][0].decode() == folder
        assert classes[record["image/class/label"][0]] == folder


def test_the_fingerprints_link_the_four(job: Path) -> None:
    made = json.loads((job / "test" / "predictions.json").read_text())
    model = json.loads((job / "model" / "model.json").read_text())
    assert made["model"] == model["sha256"]
    assert made["dataset"] == model["run"]["dataset"]
