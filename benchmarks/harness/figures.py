"""Measured figures: the values of every repeat, their median, and their target."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        name: what it is.
        unit: of the values.
        values: one per repeat, or one in all; NaN where there was no slope.
        at_least, at_most: the target for the median.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    at_least: float | None = None
    at_most: float | None = None

    @property
    def median(self) -> float:
        """NaN when any value is."""
        if any(map(math.isnan, self.values)):
            return math.nan
        return statistics.median(self.values)

    def target(self) -> str:
        """The target in words, and whether it is met."""
        if self.at_least is not None:
            words, met = f"≥ {self.at_least:g}", self.median >= self.at_least
        elif self.at_most is not None:
            words, met = f"≤ {self.at_most:g}", self.median <= self.at_most
        else:
            return ""
        return f"{words}  {'met' if met else 'MISSED'}"

    def to_json(self) -> dict[str, Any]:
        """NaN is not JSON; null is."""
        values = [None if math.isnan(value) else value for value in self.values]
        median = None if math.isnan(self.median) else self.median
        return {**asdict(self), "values": values, "median": median}


def divide(a: Sequence[float], b: Sequence[float]) -> tuple[float, ...]:
    """Ratios within each repeat."""
    return tuple(x / y for x, y in zip(a, b, strict=True))


def table(figures: Sequence[Figure]) -> list[str]:
    """The lines of a table: median and spread of every figure, and its target."""
    lines = [f"{'':<46} {'median':>8} {'min':>8} {'max':>8}", "-" * 88]
    for figure in figures:
        low, high = min(figure.values), max(figure.values)
        numbers = " ".join(f"{_number(v):>8}" for v in (figure.median, low, high))
        lines.append(
            f"{figure.name:<46} {numbers} {figure.unit:<9}{figure.target()}".rstrip()
        )
    return lines


def _number(value: float) -> str:
    """Three or four digits; a dash where there is no number."""
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
