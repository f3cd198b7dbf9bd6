"""Histograms of the originals: what the photos of a dataset were like, by split.

They are functions of the images alone: the limits of the buckets are fixed, and counts
of shards add up in any order. A bucket is named by its lower limit.
"""

import bisect
from collections.abc import Iterable
from typing import NamedTuple

# {kind: {bucket: images}}, kinds as in `count`.
Histograms = dict[str, dict[str, int]]

# Of width / height: the usual 3:2, 4:3, 16:9, 1:1 lie inside a bucket, not at its edge.
ASPECTS = (0, 0.25, 0.5, 0.62, 0.7, 0.8, 0.95, 1.05, 1.25, 1.4, 1.6, 2, 4)


class Original(NamedTuple):
    """What the header of a source image says.

    Attributes:
        format: `jpeg`, `png`, …, as Pillow names it.
        height, width: pixels, of the upright picture.
    """

    format: str
    height: int
    width: int


def count(histograms: Histograms, original: Original, size: int) -> None:
    """Adds one image.

    Args:
        histograms: to be changed; `format`, `height_x_width`, `aspect` (width /
            height) and `bytes`.
        original: its header.
        size: bytes of the file.
    """
    _, height, width = original
    buckets = {
        "format": original.format,
        "height_x_width": f"{_power_of_two(height)}x{_power_of_two(width)}",
        "aspect": str(ASPECTS[bisect.bisect_right(ASPECTS, width / height) - 1]),
        "bytes": str(_power_of_two(size)),
    }
    for kind, bucket in buckets.items():
        counts = histograms.setdefault(kind, {})
        counts[bucket] = counts.get(bucket, 0) + 1


def total(parts: Iterable[Histograms]) -> Histograms:
    """Adds up histograms of several shards."""
    whole: Histograms = {}
    for part in parts:
        for kind, counts in part.items():
            into = whole.setdefault(kind, {})
            for bucket, images in counts.items():
                into[bucket] = into.get(bucket, 0) + images
    return whole


def _power_of_two(value: int) -> int:
    """The largest power of two that is no larger."""
    return 1 << (value.bit_length() - 1)
