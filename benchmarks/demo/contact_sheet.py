"""A finished job in plain words and one picture, for `make demo`."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from pipeline.dataset import manifest
from pipeline.dataset.manifest import Dataset
from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath
from pipeline.system import console
from trainer.data import input_pipeline as data
from trainer.training import history

COLUMNS, ROWS = 8, 5  # of the contact sheet
MAGNIFY = 2


def show(
    dataset_folder: AnyPath,
    model_folder: Path,
    predictions_folder: AnyPath,
    *,
    split: str,
) -> None:
    """Prints what went in, what came out, and what to do next.

    Draws some predictions beside PREDICTIONS, as a PNG.
    """
    dataset = manifest.load(dataset_folder)
    predicted = read(predictions_folder)
    sheet = atomic.beside(predictions_folder, ".png")
    contact_sheet(dataset, split, predicted).save(sheet)
    lines = [
        f"the demo is complete: {sheet} shows some of its predictions",
        "What happened",
        *_images(dataset),
        *_training(dataset, model_folder),
        f"  {len(predicted)} rows for {dataset.split(split).examples} images of "
        f"{split}, {predicted.index.nunique()} different ids",
        "Where it lies",
        f"  {dataset_folder}  TFRecord shards, {manifest.REJECTS}",
        f"  {model_folder}  model.keras, history.csv, snapshots, TensorBoard logs",
        f"  {predictions_folder}  CSV shards: id, probability of each class",
        "Next, with your photos in IMAGES/train/<class>/ and IMAGES/test/",
        "  make shards IMAGES=… DATASET=…",
        "  make train DATASET=… MODEL=…",
        "  make predict MODEL=… DATASET=… PREDICTIONS=…",
        "  make evaluate MODEL=… DATASET=…",
    ]
    console.conclude("\n".join(lines))


def read(folder: AnyPath) -> pd.DataFrame:
    """All rows of PREDICTIONS: float32 probabilities, the id as index."""
    shards: list[AnyPath] = sorted(folder.glob("predictions-*.csv"))
    return pd.concat([_rows(shard) for shard in shards]).astype(np.float32)


def _rows(shard: AnyPath) -> pd.DataFrame:
    with shard.open("rb") as file:
        return pd.read_csv(file, dtype={"id": str}, index_col="id")


def contact_sheet(dataset: Dataset, split: str, predicted: pd.DataFrame) -> Image.Image:
    """The first images of a split, each with its most probable class."""
    height, width = dataset.image.height * MAGNIFY, dataset.image.width * MAGNIFY
    sheet = Image.new("RGB", (COLUMNS * width, ROWS * (height + 14)), "white")
    draw = ImageDraw.Draw(sheet)
    shards = dataset.split(split).shards
    batches = data.for_inference(dataset, shards, batch_size=COLUMNS)
    for row, (ids, images, _) in enumerate(batches.take(ROWS).as_numpy_iterator()):
        for column, (image_id, pixels) in enumerate(zip(ids, images, strict=True)):
            left, top = column * width, row * (height + 14)
            thumbnail = Image.fromarray(pixels).resize((width, height))
            sheet.paste(thumbnail, (left, top + 14))
            probabilities = predicted.loc[image_id.decode()]
            caption = f"{probabilities.idxmax()} {probabilities.max():.0%}"
            draw.text((left + 3, top + 1), caption, fill="black")
    return sheet


def _images(dataset: Dataset) -> list[str]:
    with (dataset.folder / manifest.REJECTS).open("rb") as file:
        rejects = pd.read_csv(file, dtype=str)
    written = sum(split.examples for split in dataset.splits.values())
    return [
        f"  {written + len(rejects)} images in: {written} records, "
        f"{len(rejects)} rejected",
        *(
            f"    {row.split}/{row.id}: {row.reason} ({row.detail})"
            for row in rejects.head(10).itertuples()
        ),
    ]


def _training(dataset: Dataset, model_folder: Path) -> list[str]:
    last = history.read(model_folder / "history.csv")[-1]
    validated = last["val_accuracy"] is not None
    split = "validation" if validated else "training"
    accuracy = last["val_accuracy"] if validated else last["accuracy"]
    return [
        f"  {last['epoch']} epochs on {dataset.split('train').examples} images: "
        f"{split} accuracy {accuracy:.1%} (chance: {1 / len(dataset.classes):.1%})"
    ]
