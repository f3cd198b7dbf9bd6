"""A bar for every rate, as a picture."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure as Canvas

from benchmarks.harness.figures import Figure
from pipeline.storage import atomic

_OURS, _OTHERS, _MODEL = (
    "#0072b2",
    "#999999",
    "#d55e00",
)  # told apart without colour vision


def draw(
    path: Path,
    ours: Sequence[Figure],
    others: Sequence[Figure],
    model: Figure,
    *,
    title: str,
) -> None:
    """Bars of medians, with the range of the repeats, on a logarithmic axis.

    Args:
        path: of the PNG.
        ours, others: in images/s.
        model: what training takes, a line across all bars.
        title: what was measured, and on what.
    """
    figures = [*ours, *others]
    canvas = Canvas(figsize=(9, 0.34 * len(figures) + 1.6), layout="constrained")
    axes = canvas.add_subplot()
    medians = [figure.median for figure in figures]
    spread = [
        [figure.median - min(figure.values) for figure in figures],
        [max(figure.values) - figure.median for figure in figures],
    ]
    colours = [_OURS] * len(ours) + [_OTHERS] * len(others)
    bars = axes.barh(
        [figure.name for figure in figures], medians, color=colours, xerr=spread
    )
    axes.bar_label(bars, [f"{median:,.0f}" for median in medians], padding=6)
    axes.axvline(
        model.median,
        color=_MODEL,
        linestyle="--",
        label=f"your model: {model.median:,.0f}",
    )
    axes.set_xscale("log")
    axes.set_xlim(min([*medians, model.median]) / 2, max(medians) * 4)
    axes.set_xlabel("images/s")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right")
    axes.set_title(title, loc="left", fontsize="medium")
    with atomic.commit_path(path) as unfinished:
        canvas.savefig(unfinished, dpi=150, format="png")
