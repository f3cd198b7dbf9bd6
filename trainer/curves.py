"""history.csv as a picture: MODEL/curves.png."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.page.charts import FIRST, SECOND, THIRD
from pipeline.storage import atomic
from pipeline.system import console
from pipeline.system.errors import RunError
from trainer.training import history
from trainer.training.history import Row, best, in_words

FILE = "curves.png"

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
    for axes, (title_of, draw) in zip(
        made.subplots(2, 2, sharex=True).flat, CHARTS.items(), strict=True
    ):
        draw(axes, rows)
        axes.set_title(title_of, loc="left")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_subplotspec().is_last_row():
            axes.set_xlabel("epoch")
    made.axes[-1].set_title(f"images/s; {waiting(rows)}", loc="left")
    made.suptitle(f"{title}: {in_words(rows)}", fontsize="medium")
    return made


def draw_loss(axes: Axes, rows: Sequence[Row]) -> None:
    """Draws the loss of training and validation, and rings the best epoch."""
    shown = {"loss": ("train", FIRST), "val_loss": ("validation", SECOND)}
    _lines(axes, rows, shown)
    _logarithmic_if_wide(axes)
    _mark_best(axes, rows, "val_loss")
    axes.legend(frameon=False, fontsize="small")


def draw_accuracy(axes: Axes, rows: Sequence[Row]) -> None:
    """Draws the accuracy of training and validation, top 1 and top 5, in percent."""
    shown = {
        "accuracy": ("train, top 1", FIRST),
        "val_accuracy": ("validation, top 1", SECOND),
    }
    _lines(axes, rows, shown, factor=100)
    top5 = {
        "top5_accuracy": ("train, top 5", FIRST),
        "val_top5_accuracy": ("validation, top 5", SECOND),
    }
    _lines(axes, rows, top5, factor=100, style=":")
    _mark_best(axes, rows, "val_accuracy", factor=100)
    axes.legend(frameon=False, fontsize="small")


def draw_learning_rate(axes: Axes, rows: Sequence[Row]) -> None:
    """Draws the learning rate."""
    _lines(axes, rows, {"learning_rate": ("learning rate", THIRD)})
    _logarithmic_if_wide(axes)


def draw_speed(axes: Axes, rows: Sequence[Row]) -> None:
    """Draws images per second of training."""
    _lines(axes, rows, {"images_per_second": ("images/s", THIRD)})
    axes.set_ylim(bottom=0)


def draw_wait(axes: Axes, rows: Sequence[Row]) -> None:
    """Draws the share of the training time that was spent waiting, in percent."""
    _lines(axes, rows, {"input_wait": ("input wait", THIRD)}, factor=100)
    axes.set_ylim(bottom=0)


CHARTS = {
    "loss (cross-entropy)": draw_loss,
    "accuracy, %": draw_accuracy,
    "learning rate": draw_learning_rate,
    "images/s": draw_speed,
}


def waiting(rows: Sequence[Row]) -> str:
    """Returns the mean share of the time that was spent waiting for input."""
    mean = sum(row["input_wait"] for row in rows) / len(rows)
    return f"{mean:.0%} of the time spent waiting for input"


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
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.plot(
                epochs,
                values,
                style,
                marker=marker,
                markersize=3,
                color=colour,
                label=label,
            )


def _mark_best(
    axes: Axes, rows: Sequence[Row], name: str, *, factor: float = 1
) -> None:
    """Rings the best epoch, and says its value."""
    if lowest := best(rows):
        epoch, value = lowest["epoch"], factor * lowest[name]
        axes.plot(epoch, value, "o", markersize=10, mfc="none", color=SECOND)
        text, above = f"{value:.4g}", (0, 9)
        axes.annotate(
            text, (epoch, value), above, textcoords="offset points", ha="center"
        )


def _logarithmic_if_wide(axes: Axes) -> None:
    values = np.concatenate([np.asarray(line.get_ydata()) for line in axes.lines])
    if values.min() > 0 and values.max() > _WIDE * values.min():
        axes.set_yscale("log")
