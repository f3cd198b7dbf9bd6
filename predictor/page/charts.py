"""The plots of an evaluation, as SVG that takes the colours of its page.

All text in them is ours; names of classes stay in HTML, which can show any script.
"""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from predictor.evaluation.metrics import BINS, Bucket, Calibration
from predictor.page.markup import Html

# matplotlib knows no CSS: a colour of each is drawn, and then replaced by its variable.
_INK, _FAINT, _FIRST, _SECOND = "#010101", "#020202", "#030303", "#040404"
_VARIABLES = {
    _INK: "var(--ink)",
    _FAINT: "var(--line)",
    _FIRST: "var(--first)",
    _SECOND: "var(--second)",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "path",  # laid out here, whatever fonts there are
    "font.size": 11,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color"), _INK),
    **dict.fromkeys(("ytick.color", "axes.edgecolor"), _INK),
    "grid.color": _FAINT,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
_SIZE = 5.6, 3.5


def by_frequency(buckets: Sequence[Bucket]) -> Html:
    """Top-1 and top-5 accuracy by the frequency of the class."""
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
        names = [f"{in_words(bucket)}\n({bucket.images:,})" for bucket in buckets]
        axes.set_xticks(places, names, fontsize=9)
        axes.set_xlabel("images of a class")
        _percent(axes)
        _legend(axes)
        return _svg(figure, "accuracy by frequency of the class")


def reliability(found: Calibration) -> Html:
    """Accuracy by confidence, above how many images have that confidence."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes, below = figure.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]}
        )
        middles = (np.arange(BINS) + 0.5) / BINS
        axes.bar(middles, np.nan_to_num(found.accuracy), 0.9 / BINS, color=_FIRST)
        axes.plot([0, 1], [0, 1], "--", color=_INK, linewidth=1)
        axes.plot(found.confidence, found.accuracy, "o", color=_SECOND, markersize=4)
        axes.set_ylabel("right")
        _percent(axes)
        below.bar(middles, found.images, 0.9 / BINS, color=_SECOND)
        below.set_ylabel("images")
        below.set_xlabel("confidence")
        below.xaxis.set_major_formatter(PercentFormatter(1))
        below.set_xlim(0, 1)
        return _svg(figure, "reliability diagram")


def recalls(values: np.ndarray) -> Html:
    """How many classes have which recall; NaN: without images, left out."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes()
        axes.hist(
            values[~np.isnan(values)],
            bins=[n / 20 for n in range(21)],
            color=_FIRST,
            rwidth=0.9,
        )
        axes.set_xlabel("recall of a class")
        axes.set_ylabel("classes")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        return _svg(figure, "classes by recall")


def coverage(shares: Sequence[float], accuracy: np.ndarray) -> Html:
    """Accuracy among the most confident share of the images."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes()
        axes.plot(shares, accuracy, color=_FIRST, linewidth=2)
        axes.set_xlim(0, 1)
        axes.set_xlabel("most confident share of the images")
        axes.set_ylabel("right")
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        _percent(axes)
        return _svg(figure, "accuracy by coverage")


def in_words(bucket: Bucket) -> str:
    """The limits of a bucket: `0`, `6-20`, `> 2,000`."""
    if bucket.most is None:
        return f"> {bucket.least - 1:,}"
    same = bucket.least == bucket.most
    return (
        f"{bucket.least:,}" if same else f"{bucket.least:,}\N{EN DASH}{bucket.most:,}"
    )


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    return figure, figure.add_subplot()


def _percent(axes: Axes) -> None:
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(ncols=2, loc="lower right", bbox_to_anchor=(1, 1))


def _svg(figure: Figure, name: str) -> Html:
    """Inline SVG: the same bytes for the same figure; ids that no other plot has."""
    text = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    slug = name.replace(" ", "-")
    with mpl.rc_context({"svg.hashsalt": slug}):
        figure.savefig(text, format="svg", transparent=True, metadata=metadata)
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r' xmlns(:xlink)?="[^"]*"', "", drawn)
    drawn = re.sub(r'<g id="[^"]*"', "<g", drawn)
    drawn = re.sub(r' (width|height)="[\d.]+pt"', "", drawn, count=2)
    drawn = re.sub(r"<style.*?</style>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'( id="| xlink:href="#|url\(#)', rf"\1{slug}-", drawn)
    for colour, variable in _VARIABLES.items():
        drawn = drawn.replace(colour, variable)
    return Html(drawn.replace("<svg", f'<svg role="img" aria-label="{name}"', 1))
