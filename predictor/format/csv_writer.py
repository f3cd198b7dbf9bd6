"""The text of CSV rows.

A number is the shortest text that reads back as the same float32. orjson writes a row
of them at once, 30 times as fast as pandas.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import orjson

from pipeline.storage import atomic
from predictor.format.top_classes import best

TOP_COLUMNS = ("class", "probability")
SUBMISSION_COLUMNS = ("id", "landmarks")

# Makes the lines of ids and float32[rows, classes], all finite: orjson would write NaN
# as `null`.
Lines = Callable[[Sequence[str], np.ndarray], Iterator[bytes]]


def probabilities(classes: Sequence[str]) -> tuple[bytes, Lines]:
    """The header `id,<class>,<class>,…`, and what makes the lines below it."""

    def lines(ids: Sequence[str], values: np.ndarray) -> Iterator[bytes]:
        for image_id, row in zip(ids, np.ascontiguousarray(values), strict=True):
            numbers = memoryview(_list(row))[1:-1]  # not copied before it must be
            yield b"".join((_quoted(image_id), b",", numbers, b"\n"))

    return _header("id", *classes), lines


def top_k(classes: Sequence[str], k: int) -> tuple[bytes, Lines]:
    """The header `id,class_1,probability_1,…`, and what makes the lines below it."""
    columns = [f"{name}_{n}" for n in range(1, k + 1) for name in TOP_COLUMNS]
    names = [_quoted(name) for name in classes]

    def lines(ids: Sequence[str], values: np.ndarray) -> Iterator[bytes]:
        for image_id, row, labels in zip(ids, values, best(values, k), strict=True):
            numbers = _numbers(row[labels]).split(b",")
            pairs = (
                names[label] + b"," + number
                for label, number in zip(labels, numbers, strict=True)
            )
            yield b"%b,%b\n" % (_quoted(image_id), b",".join(pairs))

    return _header("id", *columns), lines


def submission(classes: Sequence[str]) -> tuple[bytes, Lines]:
    """The header `id,landmarks`, and what makes the lines: `<id>,<class> <number>`."""

    def lines(ids: Sequence[str], values: np.ndarray) -> Iterator[bytes]:
        (labels,) = best(values, 1).T
        for image_id, row, label in zip(ids, values, labels, strict=True):
            number = _numbers(row[[label]]).decode()
            yield atomic.csv_line([image_id, f"{classes[label]} {number}"]).encode()

    return _header(*SUBMISSION_COLUMNS), lines


def _header(*columns: str) -> bytes:
    return atomic.csv_line(columns).encode()


def _quoted(text: str) -> bytes:
    """A field of a line, in quotes where RFC 4180 asks for them."""
    return atomic.csv_line([text]).removesuffix("\n").encode()


def _numbers(row: np.ndarray) -> bytes:
    return _list(row)[1:-1]


def _list(row: np.ndarray) -> bytes:
    return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)
