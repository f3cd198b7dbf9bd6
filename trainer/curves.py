"""history.csv as a picture: MODEL/curves.png."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.storage import atomic
from pipeline.system import console
from pipeline.system.errors import RunError
from trainer.training import history
from trainer.training.history import Row, best, in_words

FILE = "curves.png"

# Told apart without colour vision.
_TRAIN, _VALIDATION, _OTHER = "#0072b2", "#d55e00", "#009e73"
_FEW = 40  # epochs that have room for a marker each
_WIDE = 20  # an axis is logarithmic when its values are so many times apart


def run(folder: Path) -> None:
    """Draws the history of a run, complete or not, and says how it stands.

    Args:
        folder: MODEL.

    Raises:
        RunError: there is no history yet.
    """
    rows = history.read(folder / history.FILE)
    if not rows:
        raise RunError(
            f"MODEL {folder} has no {history.FILE} with an epoch in it. `make train` "
            "writes a row after every epoch; wait for the first."
        )
    with atomic.commit_path(folder / FILE) as unfinished:
        # No date and no version in it: the same history, the same bytes.
        figure(rows, title=folder.resolve().name).savefig(
            unfinished, dpi=120, format="png", metadata={"Software": None}
        )
    console.conclude(f"{folder / FILE}: {in_words(rows)}")


def figure(rows: Sequence[Row], *, title: str) -> Figure:
    """Draws loss, accuracy, learning rate and speed over the epochs.

    Args:
        rows: at least one.
        title: what was trained.
    """
    made = Figure(figsize=(11, 7), layout="constrained")
    loss, accuracy, rate, speed = made.subplots(2, 2, sharex=True).flat
    lowest = best(rows)
    _lines(
        loss, rows, {"loss": ("train", _TRAIN), "val_loss": ("validation", _VALIDATION)}
    )
    loss.set_title("loss (cross-entropy)", loc="left")
    shown = {
        "accuracy": ("train, top 1", _TRAIN),
        "val_accuracy": ("validation, top 1", _VALIDATION),
    }
    _lines(accuracy, rows, shown, factor=100)
    top5 = {
        "top5_accuracy": ("train, top 5", _TRAIN),
        "val_top5_accuracy": ("validation, top 5", _VALIDATION),
    }
    _lines(accuracy, rows, top5, factor=100, style=":")
    accuracy.set_title("accuracy, %", loc="left")
    _lines(rate, rows, {"learning_rate": ("learning rate", _OTHER)})
    rate.set_title("learning rate", loc="left")
    _lines(speed, rows, {"images_per_second": ("images/s", _OTHER)})
    speed.set_ylim(bottom=0)
    speed.set_title(f"images/s; {_waiting(rows)}", loc="left")
    if lowest:
        for axes, name, factor in (
            (loss, "val_loss", 1),
            (accuracy, "val_accuracy", 100),
        ):
            _mark(axes, lowest["epoch"], factor * lowest[name])
    for axes in (loss, rate):
        _logarithmic_if_wide(axes)
    for axes in (loss, accuracy):
        axes.legend(frameon=False, fontsize="small")
    for axes in (rate, speed):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in made.axes:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    made.suptitle(f"{title}: {in_words(rows)}", fontsize="medium")
    return made


def _lines(
    axes: Axes,
    rows: Sequence[Row],
    columns: dict[str, tuple[str, str]],
    *,
    factor: float = 1,
    style: str = "-",
) -> None:
    """Draws a line for each column that has values: its label and its colour."""
    for name, (label, colour) in columns.items():
        points = [
            (row["epoch"], factor * row[name]) for row in rows if row[name] is not None
        ]
        if points:
            epochs, values = zip(*points, strict=True)
            marker = "o" if len(points) <= _FEW else ""
            axes.plot(
                epochs,
                values,
                style,
                marker=marker,
                markersize=3,
                color=colour,
                label=label,
            )


def _mark(axes: Axes, epoch: int, value: float) -> None:
    """Rings the best epoch, and says its value."""
    axes.plot(epoch, value, "o", markersize=10, mfc="none", color=_VALIDATION)
    axes.annotate(
        f"{value:.4g}", (epoch, value), (0, 9), textcoords="offset points", ha="center"
    )


def _logarithmic_if_wide(axes: Axes) -> None:
    values = np.concatenate([np.asarray(line.get_ydata()) for line in axes.lines])
    if values.min() > 0 and values.max() > _WIDE * values.min():
        axes.set_yscale("log")


def _waiting(rows: Sequence[Row]) -> str:
    mean = sum(row["input_wait"] for row in rows) / len(rows)
    return f"{mean:.0%} of the time spent waiting for input"
