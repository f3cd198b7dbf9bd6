"""Figures: their median, their target, and how they are printed."""

import json
import math

import pytest

from benchmarks.harness.figures import Figure, divide, table

NAN = math.nan


@pytest.mark.parametrize(
    ("values", "limits", "words"),
    [
        ((1.9, 1.8, 2.5), {"at_least": 1.9}, "≥ 1.9  met"),
        ((1.9, 1.8, 2.5), {"at_least": 2}, "≥ 2  MISSED"),
        ((1.4,), {"at_most": 1.5}, "≤ 1.5  met"),
        ((1.6,), {"at_most": 1.5}, "≤ 1.5  MISSED"),
        ((2, NAN), {"at_least": 1}, "≥ 1  MISSED"),
        ((2,), {}, ""),
    ],
)
def test_the_median_meets_the_target(
    values: tuple[float, ...], limits: dict[str, float], words: str
) -> None:
    assert Figure("x", "times", values, **limits).target() == words


def test_ratios_are_within_a_repeat() -> None:
    assert divide((6, 8), (3, 2)) == (2, 4)


def test_the_table_shows_median_and_spread() -> None:
    lines = table([Figure("rate", "images/s", (1234.5, 1100, 1300))])
    assert lines[-1].split() == ["rate", "1,234", "1,100", "1,300", "images/s"]
    assert table([Figure("rate", "s", (NAN,))])[-1].split() == ["rate", *"---", "s"]


def test_json_has_null_where_there_is_no_number() -> None:
    value = Figure("rate", "s", (NAN, 2.0)).to_json()
    assert json.loads(json.dumps(value, allow_nan=False))["values"] == [None, 2.0]
    assert value["median"] is None
