"""Charts of a page, as pictures with a text that says what they show.

All text in them is ours; names of classes stay in HTML, which can show any script.
A chart has no background, and its ink follows the scheme of the reader, light or dark.
"""

import base64
import contextlib
import io
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

# Told apart without colour vision; 3:1 or more against either background.
FIRST, SECOND, THIRD = "#0072b2", "#d55e00", "#009e73"
LINE, INK, GRID = "#5b6470", "#1c2128", "#d9dde3"
# The same in the dark; the names of these colours are their values in the light.
IN_THE_DARK = {
    FIRST: "#3d9be0",
    SECOND: "#ec7f2b",
    THIRD: "#1fae86",
    LINE: "#a5adba",
    INK: "#e6e9ee",
    GRID: "#343a44",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "path",  # laid out here, whatever fonts there are
    "svg.hashsalt": "page",  # the same bytes for the same figure
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "savefig.transparent": True,
}
SIZE = 5.6, 3.5  # inches


class Chart(NamedTuple):
    """A picture.

    Attributes:
        source: a `data:` URL.
        text: what it shows, for those who do not see it.
    """

    source: str
    text: str


def style() -> contextlib.AbstractContextManager[None]:
    """Returns the context in which a chart of a page is drawn."""
    return mpl.rc_context(_STYLE)


def new_axes() -> tuple[Figure, Axes]:
    """Makes a figure of one chart; within `style`."""
    figure = Figure(figsize=SIZE, layout="constrained")
    return figure, figure.add_subplot()


def percent(axes: Axes) -> None:
    """Makes the vertical axis one of shares, from 0 to 1."""
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def legend(axes: Axes, columns: int = 3) -> None:
    """Puts the legend above the chart, where nothing is drawn."""
    axes.legend(ncols=columns, loc="lower right", bbox_to_anchor=(1, 1))


def finish(figure: Figure, what: str, shown: Iterable[str]) -> Chart:
    """Returns the picture of a figure; within `style`.

    Args:
        figure: drawn in the colours of this module.
        what: the kind of chart, and of what.
        shown: its values in words.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    svg = drawn.getvalue().decode().replace("</style>", f"{_dark_rules()}</style>", 1)
    encoded = base64.b64encode(svg.encode()).decode()
    return Chart(f"data:image/svg+xml;base64,{encoded}", f"{what}: {'; '.join(shown)}")


def _dark_rules() -> str:
    """Returns CSS that replaces the colours of elements, which matplotlib writes."""
    rules = "".join(
        rule for colours in IN_THE_DARK.items() for rule in _rules(*colours)
    )
    return f"@media (prefers-color-scheme: dark) {{{rules}}}"


def _rules(light: str, dark: str) -> Iterator[str]:
    for what in ("fill", "stroke"):
        yield f'[style*="{what}: {light}"] {{{what}: {dark} !important}}\n'
