"""The harness, on planted numbers and planted slowness."""

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import harness
from benchmarks.harness import Figure, Target
from pipeline.system import resources

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
    """The medians of a and b are 6 and 4; that of their ratios is 2, and not 1.5."""
    samples = {"a": [4.0, 6.0, 9.0], "b": [1.0, 4.0, 4.5], "c": [2.0]}
    targets = (Target("a", "b", at_least=2), Target("a", "c"), Target("a", "none"))
    found = {one.name: one for one in harness.figures(samples, targets, {})}
    assert list(found) == ["a", "b", "c", "a / b", "a / c"]
    assert found["a / b"].values == (4, 1.5, 2)
    assert found["a / b"].median == 2
    assert found["a / b"].target() == "≥ 2  met"
    assert found["a / c"].values == (2,)  # of the repeats that both have


def test_a_measurement_has_its_target_and_its_unit() -> None:
    samples = {"start": [1.0, 3.0], "rate": [5.0]}
    one, other = harness.figures(samples, [Target("start", at_most=1)], {"start": "s"})
    assert (one.unit, one.median, one.target()) == ("s", 2, "≤ 1  MISSED")
    assert (other.unit, other.target()) == ("images/s", "")


def test_everything_is_measured_in_turn() -> None:
    order = []

    def measure(name: str, value: float) -> float:
        order.append(name)
        return value

    ways = {
        "a": lambda: measure("a", len(order)),
        "b": lambda: {"b, one": measure("b", 7.0), "b, two": 8.0},
    }
    samples = harness.alternate(ways, 2)
    assert order == ["a", "b", "a", "b"]
    assert samples == {"a": [0, 2], "b, one": [7, 7], "b, two": [8, 8]}
    harness.alternate({"a": lambda: 9.0}, 1, samples)
    assert samples["a"] == [0, 2, 9]


def test_a_slower_stream_is_found_slower() -> None:
    started = []

    def start(pause: float) -> Iterator[None]:
        started.append(pause)
        while True:
            time.sleep(pause)
            yield

    ways = {
        name: harness.stream(lambda pause=pause: start(pause), 5)
        for name, pause in (("fast", 0.001), ("slow", 0.02))
    }
    samples = harness.alternate(
        {name: lambda rate=rate: rate(0.1) for name, rate in ways.items()}, 2
    )
    assert started == [0.001, 0.02] * 2  # anew for each measurement
    # A pause of 20 ms for a batch of 5 gives 250 images/s at most.
    assert max(samples["slow"]) <= 250
    (ratio,) = harness.figures(samples, [Target("fast", "slow", at_least=2)], {})[2:]
    assert ratio.target() == "≥ 2  met"


def inside(megabytes: int) -> tuple[int, set[int], float]:
    filled = bytearray(os.urandom(1 << 20)) * megabytes
    found = os.getpid(), os.sched_getaffinity(0), harness.memory("VmRSS")
    assert filled
    return found


def test_a_process_of_its_own_has_so_many_cores() -> None:
    before = os.sched_getaffinity(0)
    process, cores, small = harness.isolated(inside, 1, cores=1)
    assert process != os.getpid()
    assert cores == {min(before)}
    assert os.sched_getaffinity(0) == before
    _, cores, large = harness.isolated(inside, 101)
    assert cores == before
    assert 90 < large - small < 130


def test_the_report_says_the_same_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = harness.machine()
    path = tmp_path / "new" / "some.json"
    samples = {"rate": [1234.5, 1100.0, 1300.0], "slope": [NAN, 2.0]}
    targets = [Target("rate", at_least=1200)]
    harness.report(
        path, here, samples, targets, {"slope": "s"}, samples=samples["rate"]
    )
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["rate", "1,234", "1,100", "1,300", "images/s", "≥", "1200", "met"] in lines
    (slope,) = [line for line in lines if line[0] == "slope"]
    assert slope[1] == "-"
    value = json.loads(path.read_text())
    assert value["machine"] == here
    assert value["samples"] == samples["rate"]
    rate, slope = value["figures"]
    assert (rate["median"], rate["values"]) == (1234.5, samples["rate"])
    assert (slope["median"], slope["values"]) == (None, [None, 2.0])


def test_the_machine_in_words() -> None:
    here = harness.machine()
    said = harness.in_words(here)
    assert here["cores"] == resources.cores()
    for word in (here["processor"], f"{here['cores']} cores", "tensorflow 2."):
        assert word in said


def test_the_chart_is_a_picture(tmp_path: Path) -> None:
    samples = {"ours": [100.0, 120.0], "other": [10.0, 10.0], "model": [70.0, 70.0]}
    path = tmp_path / "bars.png"
    harness.chart(path, samples, ours={"ours"}, line="model", title="somewhere")
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    widths = [
        (np.abs(pixels - colour).max(axis=2) < 3).any(axis=0).sum()
        for colour in ((0, 0x72, 0xB2), (0x99, 0x99, 0x99))
    ]
    assert widths[0] > widths[1] > 0  # the faster one has the longer bar
    assert [one.name for one in tmp_path.iterdir()] == ["bars.png"]
