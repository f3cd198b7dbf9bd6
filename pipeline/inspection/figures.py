"""The charts of an inspection."""

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from pipeline.dataset.originals import ASPECTS
from pipeline.page import charts
from pipeline.page.charts import FIRST, SECOND, THIRD, Chart

_COLOURS = {"train": FIRST, "validation": SECOND, "test": THIRD}
_BARS = 12  # that a chart has room for
_STEPS = 400  # of a line: more cannot be seen
_USUAL = {  # by the lower limit of their bucket, width : height
    *((0.5, "9:16"), (0.62, "2:3"), (0.7, "3:4"), (0.95, "1:1")),
    *((1.25, "4:3"), (1.4, "3:2"), (1.6, "16:9")),
}
_BINARY = ("", "Ki", "Mi", "Gi")

Histogram = Mapping[str, Mapping[str, int]]


def long_tail(frequency: np.ndarray, split: str) -> Chart:
    """Draws the images of each class, int[classes], the largest class first."""
    counts = np.sort(frequency)[::-1]
    with charts.style():
        figure, axes = charts.new_axes()
        steps = min(len(counts), _STEPS)
        edges = np.linspace(0, len(counts), steps + 1).astype(int)
        axes.stairs(counts[edges[:-1]], edges + 0.5, fill=True, color=FIRST)
        axes.set_xlabel("classes, the largest first")
        axes.set_ylabel(f"images of a class in {split}")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.set_xlim(0.5, len(counts) + 0.5)
        if counts[0] > 20 * max(1, counts[-1]):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            axes.set_ylim(bottom=0.7)
        places = sorted({0, len(counts) // 10, len(counts) // 2, len(counts) - 1})
        shown = (f"class {place + 1} has {counts[place]:,} images" for place in places)
        return charts.finish(figure, "Images of each class, largest first", shown)


def formats(found: Histogram) -> Chart:
    """Draws the share of each format of the originals, by split."""
    return _shares(found, "Formats of the originals", str.upper, _by_count)


def aspects(found: Histogram) -> Chart:
    """Draws the share of each aspect, width / height, of the originals, by split."""
    usual = {str(limit): ratio for limit, ratio in _USUAL}

    def in_words(bucket: str) -> str:
        place = list(map(str, ASPECTS)).index(bucket)
        above = ASPECTS[place + 1] if place + 1 < len(ASPECTS) else None
        limits = f"{bucket} to {above}" if above else f"{bucket} or more"
        return f"{limits} ({usual[bucket]})" if bucket in usual else limits

    return _shares(found, "Width / height of the originals", in_words, _by_value)


def bytes_of_files(found: Histogram) -> Chart:
    """Draws the share of each size of file of the originals, by split."""

    def in_words(bucket: str) -> str:
        low = int(bucket)
        power = max(0, low.bit_length() - 1) // 10
        unit = f"{_BINARY[power]}B"
        return f"{low >> 10 * power} to {low * 2 >> 10 * power} {unit}"

    return _shares(found, "File size of the originals", in_words, _by_value)


def sizes(found: Histogram) -> Chart:
    """Draws the share of each size in pixels of the originals, by split."""

    def in_words(bucket: str) -> str:
        height, width = bucket.split("x")
        return f"{_doubling(width)} × {_doubling(height)}"  # noqa: RUF001

    title = "Width × height of the originals, pixels"  # noqa: RUF001
    return _shares(found, title, in_words, _by_count)


def _doubling(limit: str) -> str:
    low = int(limit)
    return f"{low}–{2 * low - 1}" if low > 1 else "1"  # noqa: RUF001


def _by_count(total: Mapping[str, int]) -> list[str]:
    return sorted(total, key=lambda bucket: (-total[bucket], bucket))


def _by_value(total: Mapping[str, int]) -> list[str]:
    return sorted(total, key=float)


def _shares(
    found: Histogram,
    what: str,
    in_words: Callable[[str], str],
    in_order: Callable[[Mapping[str, int]], list[str]],
) -> Chart:
    """Draws a bar for each bucket and split; small buckets of too many are one."""
    total: dict[str, int] = {}
    for counts in found.values():
        for bucket, images in counts.items():
            total[bucket] = total.get(bucket, 0) + images
    kept = set(_by_count(total)[:_BARS])
    buckets = [bucket for bucket in in_order(total) if bucket in kept]
    labels = [in_words(bucket) for bucket in buckets]
    shares = {
        split: [counts.get(bucket, 0) / sum(counts.values()) for bucket in buckets]
        for split, counts in found.items()
    }
    if len(kept) < len(total):
        labels.append(f"{len(total) - len(kept)} others")
        for values in shares.values():
            values.append(1 - sum(values))
    with charts.style():
        height = 1.2 + 0.16 * len(labels) * (len(shares) + 1)
        figure = Figure(
            figsize=(charts.SIZE[0], max(2.0, height)), layout="constrained"
        )
        axes = figure.add_subplot()
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x")
        places, thick = np.arange(len(labels)), 0.8 / len(shares)
        for number, (split, values) in enumerate(shares.items()):
            shift = (number - (len(shares) - 1) / 2) * thick
            colour = _COLOURS[split]
            axes.barh(places + shift, values, thick, color=colour, label=split)
        axes.set_yticks(places, labels)
        axes.invert_yaxis()
        axes.margins(y=0.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("share of the images of a split")
        charts.legend(axes)
        shown = (
            f"{label}: "
            + ", ".join(f"{split} {values[n]:.1%}" for split, values in shares.items())
            for n, label in enumerate(labels)
        )
        return charts.finish(figure, what, shown)
