"""The look of all pages: it can be read, light and dark."""

import re
from pathlib import Path

import pytest

from pipeline.page import charts, rendering

STYLE = Path(rendering.__file__).with_name("base.html.j2").read_text()
SCHEMES = [
    dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", block))
    for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
]


def contrast(one: str, other: str) -> float:
    """Returns the ratio of WCAG 2.2 between two colours, from 1 to 21."""

    def luminance(colour: str) -> float:
        parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
        linear = [
            x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_contrast_is_that_of_the_recommendation() -> None:
    """Its own examples: black on white, and the lightest grey that passes."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("scheme", SCHEMES, ids=["light", "dark"])
def test_text_can_be_read(scheme: dict[str, str]) -> None:
    """AA asks for 4.5 to 1, and for 3 to 1 of what is no text."""
    for paper in ("paper", "card"):
        for ink in ("ink", "quiet", "link"):
            assert contrast(scheme[ink], scheme[paper]) >= 4.5, (ink, paper)
        for bar in ("bar", "warning"):
            assert contrast(scheme[bar], scheme[paper]) >= 3, (bar, paper)


@pytest.mark.parametrize("dark", [False, True])
def test_charts_can_be_read(dark: bool) -> None:
    paper = SCHEMES[dark]["paper"]
    for light, in_the_dark in charts.IN_THE_DARK.items():
        if light != charts.GRID:
            colour = in_the_dark if dark else light
            text = light in (charts.INK, charts.LINE)
            assert contrast(colour, paper) >= (4.5 if text else 3), light
