"""The charts of an evaluation."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pipeline.page import charts
from pipeline.page.charts import FIRST, LINE, SECOND, Chart
from predictor.evaluation.metrics import BINS, Bucket


def by_frequency(buckets: Sequence[Bucket]) -> Chart:
    """Draws top-1 and top-5 accuracy by the frequency of the class."""
    with charts.style():
        figure, axes = charts.new_axes()
        places = np.arange(len(buckets))
        for shift, colour, label, shares in (
            (-0.2, FIRST, "top 1", [bucket.top_1 for bucket in buckets]),
            (0.2, SECOND, "top 5", [bucket.top_5 for bucket in buckets]),
        ):
            if any(share is not None for share in shares):
                heights = [share or 0 for share in shares]
                axes.bar(places + shift, heights, 0.4, color=colour, label=label)
        names = [f"{bucket.in_words}\n({bucket.images:,})" for bucket in buckets]
        axes.set_xticks(places, names, fontsize=9)
        axes.set_xlabel("images of a class")
        axes.set_ylabel("right")
        charts.percent(axes)
        if axes.get_legend_handles_labels()[0]:
            charts.legend(axes)
        shown = (
            f"{bucket.in_words} images of the class: {bucket.top_1:.0%}"
            for bucket in buckets
            if bucket.top_1 is not None
        )
        return charts.finish(figure, "Bar chart of top-1 accuracy", shown)


def reliability(found: pd.DataFrame) -> Chart:
    """Draws accuracy by confidence, above how many images have that confidence."""
    with charts.style():
        figure = Figure(figsize=charts.SIZE, layout="constrained")
        axes, below = figure.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]}
        )
        middles = (np.arange(BINS) + 0.5) / BINS
        heights = found["accuracy"].fillna(0)
        axes.bar(middles, heights, 0.9 / BINS, color=FIRST, label="bin")
        axes.plot([0, 1], [0, 1], "--", color=LINE, linewidth=1)
        axes.plot(
            *(found["confidence"], found["accuracy"], "o"),
            **{"color": SECOND, "markersize": 4, "label": "mean confidence"},
        )
        charts.legend(axes)
        axes.set_ylabel("right")
        charts.percent(axes)
        below.bar(middles, found["images"], 0.9 / BINS, color=LINE)
        below.set_ylabel("images")
        below.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        below.set_xlabel("confidence")
        below.xaxis.set_major_formatter(PercentFormatter(1))
        below.set_xlim(0, 1)
        shown = (
            f"{row.confidence:.0%} sure, {row.accuracy:.0%} right ({row.images} images)"
            for row in found[found["images"] > 0].itertuples()
        )
        return charts.finish(figure, "Reliability diagram", shown)


def recalls(values: pd.Series) -> Chart:
    """Draws how many classes have which recall; NaN: without images, left out."""
    with charts.style():
        figure, axes = charts.new_axes()
        counts, edges, _ = axes.hist(
            values.dropna(), bins=[n / 20 for n in range(21)], color=FIRST, rwidth=0.9
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
        return charts.finish(figure, "Histogram of classes by recall", shown)
