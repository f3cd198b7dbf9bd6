"""history.csv: one row per epoch, whatever happened in between."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

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
    """Returns the rows of a history, or none."""
    if not path.is_file():
        return []
    kinds = {name: int if name == "epoch" else float for name in COLUMNS}
    table = pd.read_csv(path, dtype=kinds)
    return [
        {name: None if pd.isna(value) else value for name, value in row.items()}
        for row in table.to_dict("records")
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
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    atomic.write_text(path, table.to_csv(index=False, float_format="%.7g"))


def best(rows: Sequence[Row]) -> Row | None:
    """Returns the epoch with the lowest validation loss; None without validation."""
    validated = [row for row in rows if row["val_loss"] is not None]
    return min(validated, key=lambda row: row["val_loss"], default=None)


def in_words(rows: Sequence[Row]) -> str:
    """Returns how a run stands, in a sentence."""
    lowest, last = best(rows), rows[-1]
    if lowest is None:
        return f"{last['epoch']} epochs, loss {last['loss']:.4f}; no validation"
    since = last["epoch"] - lowest["epoch"]
    now = "the last so far" if not since else f"not lowered for {since} epochs"
    return (
        f"lowest validation loss {lowest['val_loss']:.4f} (accuracy "
        f"{lowest['val_accuracy']:.1%}) in epoch {lowest['epoch']}, {now}"
    )
