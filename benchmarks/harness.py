"""What every benchmark does: measure in turn, judge, isolate, and report."""

import math
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.images import conversion
from pipeline.storage import atomic
from pipeline.system import console, resources
from pipeline.system.child_process import end_with_the_parent

_PACKAGES = ("apache-beam", "tensorflow")  # besides those that decide the bytes
_WARM_UP = 0.5  # of the seconds: graphs are built, and buffers filled on the side

# Told apart without colour vision: what is ours, what is not, and the line.
_OURS, _OTHERS, _LINE = "#0072b2", "#999999", "#d55e00"

# Values by measurement, one per repeat; images/s where a benchmark names no other unit.
Samples = dict[str, list[float]]

Rate = Callable[[float], float]  # measures for so many seconds; returns images/s

# Returns one value, or several by their own names.
Measure = Callable[[], float | Mapping[str, float]]


@dataclass(frozen=True)
class Target:
    """What the median of a measurement, or of a ratio of two, must be.

    Attributes:
        one: the measurement.
        other: what it is divided by, within each repeat; nothing by default.
        at_least, at_most: the target; a ratio without one is only shown.
    """

    one: str
    other: str = ""
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        name: what was measured.
        unit: of the values.
        values: one per repeat, or one in all; NaN where nothing could be computed.
        at_least, at_most: the target for the median.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    at_least: float | None = None
    at_most: float | None = None

    @property
    def median(self) -> float:
        """Returns the median of the values, NaN when any of them is NaN."""
        if any(map(math.isnan, self.values)):
            return math.nan
        return statistics.median(self.values)

    def target(self) -> str:
        """Returns the target in words, and whether the median meets it."""
        if self.at_least is not None:
            words, met = f"≥ {self.at_least:g}", self.median >= self.at_least
        elif self.at_most is not None:
            words, met = f"≤ {self.at_most:g}", self.median <= self.at_most
        else:
            return ""
        return f"{words}  {'met' if met else 'MISSED'}"

    def to_json(self) -> dict[str, Any]:
        """Returns the fields and the median; NaN, which is not JSON, becomes null."""
        values = [None if math.isnan(value) else value for value in self.values]
        median = None if math.isnan(self.median) else self.median
        return {**asdict(self), "values": values, "median": median}


def figures(
    samples: Samples, targets: Sequence[Target], units: Mapping[str, str]
) -> list[Figure]:
    """Returns a line for every measurement, then one for every ratio.

    Args:
        samples: what was measured.
        targets: those of something that was not measured are left out.
        units: by measurement.
    """
    alone = {one.one: one for one in targets if not one.other}
    found = []
    for name in samples:
        goal, values = alone.get(name, Target(name)), tuple(samples[name])
        unit = units.get(name, "images/s")
        found.append(Figure(name, unit, values, goal.at_least, goal.at_most))
    for goal in targets:
        if goal.other and {goal.one, goal.other} <= samples.keys():
            # Not strict: where one was repeated more often, its first repeats count.
            pairs = zip(samples[goal.one], samples[goal.other], strict=False)
            values = tuple(a / b for a, b in pairs)
            name = f"{goal.one} / {goal.other}"
            found.append(Figure(name, "times", values, goal.at_least, goal.at_most))
    return found


def alternate(
    ways: Mapping[str, Measure], repeats: int, samples: Samples | None = None
) -> Samples:
    """Measures everything once, then everything once again, and so on.

    Args:
        ways: what is measured, by name. A measurement that returns several values is
            kept under the names that it returns.
        repeats: of each.
        samples: of earlier repeats, to which these are added.
    """
    samples = {} if samples is None else samples
    with console.progress(repeats * len(ways), "measuring", unit="sample") as bar:
        for _ in range(repeats):
            for name, measure in ways.items():
                value = measure()
                found = value if isinstance(value, Mapping) else {name: value}
                for each, number in found.items():
                    samples.setdefault(each, []).append(number)
                bar.update()
    return samples


def per_second(step: Callable[[], Any], seconds: float) -> float:
    """Calls a function for at least so many seconds; returns calls per second."""
    calls, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        step()
        calls += 1
    if tensorflow := sys.modules.get("tensorflow"):
        # A GPU may have some still to do.
        tensorflow.test.experimental.sync_devices()
    return calls / (time.perf_counter() - started)


def stream(start: Callable[[], Iterator[Any]], batch_size: int) -> Rate:
    """Prepares the rate of an endless stream of full batches.

    Every measurement starts the stream anew: one that rests between two measurements
    fills its buffers, and would be measured emptying them.
    """

    def rate(seconds: float) -> float:
        batches = start()
        per_second(lambda: next(batches), _WARM_UP * seconds)
        return per_second(lambda: next(batches), seconds) * batch_size

    return rate


def isolated(
    function: Callable[..., Any], *arguments: Any, cores: int | None = None
) -> Any:
    """Runs a function in a fresh process and returns its result.

    Args:
        function: at the top of a module.
        arguments: of the function.
        cores: that the process has from its first moment; all of them by default.
    """
    context = multiprocessing.get_context("spawn")
    with (
        _pinned(cores),
        ProcessPoolExecutor(1, context, initializer=_begin) as process,
    ):
        return process.submit(function, *arguments).result()


@contextmanager
def _pinned(cores: int | None) -> Iterator[None]:
    """Gives so many cores to the processes that are started inside."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _begin() -> None:
    """Prepares a fresh process as training and predicting do."""
    end_with_the_parent()
    resources.limit_arenas()
    # TensorFlow's notes, which nothing else stops; errors are handed over.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def memory(field: str, process: int | None = None) -> float:
    """Returns megabytes of a process by a field of its /proc/PID/status.

    Not by getrusage: its maximum includes that of the parent, before exec.

    Args:
        field: VmRSS (now), VmHWM (at the peak), RssAnon (that nothing else can have),
            RssFile (of files, which the kernel can drop).
        process: this one by default.
    """
    status = Path(f"/proc/{process or 'self'}/status").read_text()
    (line,) = (each for each in status.splitlines() if each.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024 / 1e6


def machine() -> dict[str, Any]:
    """Describes what measured figures depend on besides the code, for JSON."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return {
        "processor": next(iter(named), platform.machine()),
        "cores": resources.cores(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": conversion.versions() | {p: metadata.version(p) for p in _PACKAGES},
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def in_words(here: Mapping[str, Any]) -> str:
    """Returns `machine()` in one line."""
    versions = ", ".join(f"{name} {v}" for name, v in here["versions"].items())
    return (
        f"{here['processor']}, {here['cores']} cores, load {here['load']} before the "
        f"run; Python {here['python']}, {versions}"
    )


def report(
    path: Path,
    here: Mapping[str, Any],
    samples: Samples,
    targets: Sequence[Target],
    units: Mapping[str, str],
    /,
    **more: Any,
) -> None:
    """Prints the table and writes the JSON.

    Args:
        path: of the JSON.
        here: from `machine()`, before anything was measured.
        samples, targets, units: see `figures`.
        more: what else goes into the JSON.
    """
    found = figures(samples, targets, units)
    console.say(table(found))
    path.parent.mkdir(parents=True, exist_ok=True)
    value = {"machine": here, **more, "figures": [one.to_json() for one in found]}
    atomic.write_json(path, value)
    console.conclude(str(path))


def table(found: Sequence[Figure]) -> str:
    """Returns a table: median, spread and target of every figure."""
    rows = [
        (*map(_number, (one.median, min(one.values), max(one.values))), one.unit)
        for one in found
    ]
    frame = pd.DataFrame(rows, columns=["median", "min", "max", ""])
    frame["target"] = [one.target() for one in found]
    frame.index = pd.Index([one.name for one in found])
    return frame.to_string()


def _number(value: float) -> str:
    """Returns three or four digits; a dash where there is no number."""
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def chart(
    path: Path, samples: Samples, *, ours: Container[str], line: str, title: str
) -> None:
    """Draws medians as bars, with the range of the repeats, on a logarithmic axis.

    Args:
        path: of the PNG.
        samples: in images/s.
        ours: which of them are drawn in our colour.
        line: the one that is drawn across all bars, instead of a bar.
        title: what was measured, and on what.
    """
    # Here: a process that is measured need not load it.
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(9, 0.34 * len(samples) + 1.6), layout="constrained")
    axes = canvas.add_subplot()
    frame = pd.DataFrame({name: samples[name] for name in samples if name != line})
    medians = frame.median()
    bars = axes.barh(
        medians.index,
        medians,
        color=[_OURS if name in ours else _OTHERS for name in medians.index],
        xerr=[medians - frame.min(), frame.max() - medians],
    )
    axes.bar_label(bars, [f"{median:,.0f}" for median in medians], padding=6)
    across = statistics.median(samples[line])
    label = f"{line}: {across:,.0f}"
    axes.axvline(across, color=_LINE, linestyle="--", label=label)
    axes.set_xscale("log")
    axes.set_xlim(min(*medians, across) / 2, medians.max() * 4)
    axes.set_xlabel("images/s")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right")
    axes.set_title(title, loc="left", fontsize="medium")
    with atomic.commit_path(path) as unfinished:
        canvas.savefig(unfinished, dpi=150, format="png")
