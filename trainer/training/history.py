"""history.csv: one row per epoch, whatever happened in between."""

import csv
import io
from pathlib import Path
from typing import Any

from pipeline.storage import atomic

FILE = "history.csv"
COLUMNS = (
    "epoch",
    "seconds",  # training + validation, without saving
    "loss",
    "accuracy",
    "top5_accuracy",
    "val_loss",
    "val_accuracy",
    "val_top5_accuracy",
    "learning_rate",  # of the next update
    "images_per_second",  # of training
    "input_wait",  # share of the training time spent waiting for the next batch
)

Row = dict[str, Any]  # an int for `epoch`; else float, None where there is no value


def read(path: Path) -> list[Row]:
    """The rows of a history, or none."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [
            {name: _value(name, text) for name, text in row.items()}
            for row in csv.DictReader(file)
        ]


def append(path: Path, row: Row) -> None:
    """Adds the row of an epoch; rows of that epoch and later ones give way to it."""
    earlier = [old for old in read(path) if old["epoch"] < row["epoch"]]
    _write(path, [*earlier, row])


def forget_after(path: Path, epoch: int) -> None:
    """Removes the rows of later epochs, whose state a kill forestalled."""
    rows = read(path)
    kept = [row for row in rows if row["epoch"] <= epoch]
    if len(kept) < len(rows):
        _write(path, kept)


def _write(path: Path, rows: list[Row]) -> None:
    text = io.StringIO()
    lines = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    lines.writeheader()
    lines.writerows({name: _text(row[name]) for name in COLUMNS} for row in rows)
    atomic.write_text(path, text.getvalue())


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.7g}"


def _value(name: str, text: str) -> float | None:
    if not text:
        return None
    return int(text) if name == "epoch" else float(text)
