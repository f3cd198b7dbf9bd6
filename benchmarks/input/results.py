"""From the samples of the benchmark to its figures, their targets and its tables."""

import math
import statistics
from collections.abc import Mapping, Sequence

from benchmarks.harness.figures import Figure, divide
from benchmarks.input import bottleneck, stages
from pipeline.system.console import in_bytes

# What is measured besides the stages, in images/s.
ENCODED, DECODED = "from --cache=encoded", "from --cache=decoded"
THREADS, TURBO = "tf.io.decode_jpeg alone, all cores", "libjpeg-turbo alone, all cores"
ELEMENT, GATHER = "a chain of single examples", "tf.gather alone, all cores"
KERAS, FLOW = "image_dataset_from_directory", "flow_from_directory"
KERAS_ORIGINALS, FLOW_ORIGINALS = f"{KERAS}, originals", f"{FLOW}, originals"
MODEL = "the model"
ONE_CORE, ALL_CORES = "in a new process, 1 core", "in a new process, all cores"
FIRST_BATCH = "first batch after TensorFlow's import"  # in seconds

# What ours must be at least, in multiples of another.
_TARGETS = (
    (stages.DECODE, ELEMENT, 1.2),
    (stages.DECODE, THREADS, 0.85),
    (stages.DECODE, TURBO, 0.7),
    (stages.DECODE, KERAS, 1.5),
    (stages.DECODE, FLOW, 3),
    (stages.DECODE, KERAS_ORIGINALS, None),
    (stages.DECODE, FLOW_ORIGINALS, 40),
    (stages.FLIP, stages.DEVICE, 0.95),
    (DECODED, GATHER, 0.9),
)
_SETTLING = 0.1  # of the epochs, until allocators have what they keep

Samples = Mapping[str, Sequence[float]]


def rates(samples: Samples) -> list[Figure]:
    """Images/s of everything but the stages, which have a table of their own."""
    return [
        Figure(name, "images/s", tuple(values))
        for name, values in samples.items()
        if name not in (*stages.STAGES, FIRST_BATCH)
    ]


def comparisons(samples: Samples, *, cores: int) -> list[Figure]:
    """Ratios of what was measured, and the seconds to the first batch."""
    found = [
        Figure(f"{ours} / {other}", "times", _ratios(samples, ours, other), least)
        for ours, other, least in _TARGETS
        if ours in samples and other in samples
    ]
    if ONE_CORE in samples:
        ratios = _ratios(samples, ALL_CORES, ONE_CORE)
        least = 0.925 * cores  # 1.85 for two
        found.append(Figure(f"1 → {cores} cores", "times", ratios, least))
    first = tuple(samples[FIRST_BATCH])
    return [*found, Figure(FIRST_BATCH, "s", first, at_most=2)]


def memory(name: str, resident: Sequence[float]) -> Figure:
    """The growth of a process, from its resident megabytes after every epoch.

    The slope of a line through all epochs but the first tenth.
    """
    settled = resident[math.ceil(_SETTLING * len(resident)) :]
    slope = statistics.linear_regression(range(len(settled)), settled).slope
    what = f"memory over {len(resident)} epochs, {name}"
    return Figure(what, "MB/epoch", (slope,), at_most=1)


def stage_table(samples: Samples, *, jpeg: float, pixels: float) -> list[str]:
    """A line for every stage: images/s, and what it hands out in bytes.

    Args:
        samples: images/s.
        jpeg, pixels: bytes of an image, in a record and decoded.
    """
    lines = [f"{'up to':<22} {'images/s':>9} {'min':>8} {'max':>8}   handing out"]
    for name in stages.STAGES:
        median = statistics.median(samples[name])
        size = jpeg if name in stages.RECORDS else pixels
        low, high = min(samples[name]), max(samples[name])
        lines.append(
            f"{name:<22} {median:>9,.0f} {low:>8,.0f} {high:>8,.0f}   "
            f"{in_bytes(median * size)}/s"
        )
    return lines


def to_judge(samples: Samples, *, cores: int, kind: str) -> bottleneck.Rates:
    """The medians that the verdict is about; `kind` of cache is that of `auto`."""
    median = {name: statistics.median(values) for name, values in samples.items()}
    return bottleneck.Rates(
        read=median[stages.READ],
        shards=median[stages.DEVICE],
        encoded=median[ENCODED],
        decoded=median[DECODED],
        model=median[MODEL],
        cores=cores,
        kind=kind,
    )


def _ratios(samples: Samples, a: str, b: str) -> tuple[float, ...]:
    return divide(samples[a], samples[b])
