"""The charts of an evaluation, as pictures with a text that says what they show.

All text in them is ours; names of classes stay in HTML, which can show any script.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from predictor.evaluation.metrics import BINS, Bucket

_FIRST, _SECOND, _LINE = "#0072b2", "#d55e00", "#5b6470"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "path",  # laid out here, whatever fonts there are
    "svg.hashsalt": "evaluation",  # the same bytes for the same figure
    "font.size": 11,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#d9dde3",
    "legend.frameon": False,
}
_SIZE = 5.6, 3.5


class Chart(NamedTuple):
    """A picture.

    Attributes:
        source: a `data:` URL.
        text: what it shows, for those who do not see it.
    """

    source: str
    text: str


def by_frequency(buckets: Sequence[Bucket]) -> Chart:
    """Draws top-1 and top-5 accuracy by the frequency of the class."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes()
        places = np.arange(len(buckets))
        for shift, colour, label, shares in (
            (-0.2, _FIRST, "top 1", [bucket.top_1 for bucket in buckets]),
            (0.2, _SECOND, "top 5", [bucket.top_5 for bucket in buckets]),
        ):
            if any(share is not None for share in shares):
                heights = [share or 0 for share in shares]
                axes.bar(places + shift, heights, 0.4, color=colour, label=label)
        names = [f"{bucket.in_words}\n({bucket.images:,})" for bucket in buckets]
        axes.set_xticks(places, names, fontsize=9)
        axes.set_xlabel("images of a class")
        axes.set_ylabel("right")
        _percent(axes)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
        shown = (
            f"{bucket.in_words} images of the class: {bucket.top_1:.0%}"
            for bucket in buckets
            if bucket.top_1 is not None
        )
        return _chart(figure, "Bar chart of top-1 accuracy", shown)


def reliability(found: pd.DataFrame) -> Chart:
    """Draws accuracy by confidence, above how many images have that confidence."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes, below = figure.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]}
        )
        middles = (np.arange(BINS) + 0.5) / BINS
        heights = found["accuracy"].fillna(0)
        axes.bar(middles, heights, 0.9 / BINS, color=_FIRST, label="bin")
        axes.plot([0, 1], [0, 1], "--", color=_LINE, linewidth=1)
        axes.plot(
            *(found["confidence"], found["accuracy"], "o"),
            **{"color": _SECOND, "markersize": 4, "label": "mean confidence"},
        )
        axes.legend(ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
        axes.set_ylabel("right")
        _percent(axes)
        below.bar(middles, found["images"], 0.9 / BINS, color=_LINE)
        below.set_ylabel("images")
        below.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        below.set_xlabel("confidence")
        below.xaxis.set_major_formatter(PercentFormatter(1))
        below.set_xlim(0, 1)
        shown = (
            f"{row.confidence:.0%} sure, {row.accuracy:.0%} right ({row.images} images)"
            for row in found[found["images"] > 0].itertuples()
        )
        return _chart(figure, "Reliability diagram", shown)


def recalls(values: pd.Series) -> Chart:
    """Draws how many classes have which recall; NaN: without images, left out."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes()
        counts, edges, _ = axes.hist(
            values.dropna(), bins=[n / 20 for n in range(21)], color=_FIRST, rwidth=0.9
        )
        axes.set_xlabel("recall of a class")
        axes.set_ylabel("classes")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        shown = (
            f"{int(count)} from {low:.0%} to {low + 0.05:.0%}"
            for count, low in zip(counts, edges[:-1], strict=True)
            if count
        )
        return _chart(figure, "Histogram of classes by recall", shown)


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    return figure, figure.add_subplot()


def _percent(axes: Axes) -> None:
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _chart(figure: Figure, what: str, shown: Iterator[str]) -> Chart:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    encoded = base64.b64encode(drawn.getvalue()).decode()
    return Chart(f"data:image/svg+xml;base64,{encoded}", f"{what}: {'; '.join(shown)}")
