"""CSV of predictions: the text of rows, and how they are read back.

A number is the shortest text that reads back as the same float32. orjson writes a row
of them at once, 30 times as fast as pandas.
"""

import csv
import gzip
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import zstandard

from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath
from predictor.format.row_batch import RowBatch, at_once
from predictor.format.top_classes import best

TOP_COLUMNS = ("class", "probability")
SUBMISSION_COLUMNS = ("id", "landmarks")

# Bytes that are parsed at a time: with 14,951 columns blocks of 4 MB take five times as
# long for a number, those of 16 MB twice as long.
_BLOCK = 64 << 20

# Makes the lines of ids and float32[rows, classes], all finite: orjson would write NaN
# as `null`.
Lines = Callable[[Sequence[str], np.ndarray], Iterator[bytes]]


# ------------------------------------------------------------------------------ write


def probabilities(classes: Sequence[str]) -> tuple[bytes, Lines]:
    """Returns the header `id,<class>,<class>,…`, and what makes the lines below it."""

    def lines(ids: Sequence[str], values: np.ndarray) -> Iterator[bytes]:
        for image_id, row in zip(ids, np.ascontiguousarray(values), strict=True):
            numbers = memoryview(_list(row))[1:-1]  # not copied before it must be
            yield b"".join((_quoted(image_id), b",", numbers, b"\n"))

    return _header("id", *classes), lines


def top_k(classes: Sequence[str], k: int) -> tuple[bytes, Lines]:
    """Returns the header `id,class_1,probability_1,…`, and what makes the lines."""
    names = [_quoted(name) for name in classes]

    def lines(ids: Sequence[str], values: np.ndarray) -> Iterator[bytes]:
        for image_id, row, labels in zip(ids, values, best(values, k), strict=True):
            numbers = _list(row[labels])[1:-1].split(b",")
            pairs = (
                names[label] + b"," + number
                for label, number in zip(labels, numbers, strict=True)
            )
            yield b"%b,%b\n" % (_quoted(image_id), b",".join(pairs))

    return _header(*top_k_columns(k)), lines


def submission(classes: Sequence[str]) -> tuple[bytes, Lines]:
    """Returns `id,landmarks`, and what makes the lines: `<id>,<class> <number>`."""

    def lines(ids: Sequence[str], values: np.ndarray) -> Iterator[bytes]:
        (labels,) = best(values, 1).T
        for image_id, row, label in zip(ids, values, labels, strict=True):
            number = _list(row[[label]])[1:-1].decode()
            yield atomic.csv_line([image_id, f"{classes[label]} {number}"]).encode()

    return _header(*SUBMISSION_COLUMNS), lines


def top_k_columns(k: int) -> list[str]:
    """Returns the header of `top_k`."""
    return ["id", *(f"{name}_{n}" for n in range(1, k + 1) for name in TOP_COLUMNS)]


def _header(*columns: str) -> bytes:
    return atomic.csv_line(columns).encode()


def _quoted(text: str) -> bytes:
    """Returns a field of a line, in quotes where RFC 4180 asks for them."""
    return atomic.csv_line([text]).removesuffix("\n").encode()


def _list(row: np.ndarray) -> bytes:
    return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)


# ------------------------------------------------------------------------------- read


def header(path: AnyPath, compression: str) -> list[str]:
    """Returns the columns of a file.

    Raises:
        one of FAULTS: it has none.
    """
    with _text(path, compression) as text:
        return _columns(text)


def parts(path: AnyPath, kind: str, compression: str, width: int) -> Iterator[RowBatch]:
    """Yields the rows of a file, `at_once` so many of them.

    Args:
        path: of the file, whose header is as it must be.
        kind, compression: of its format.
        width: probabilities of a row.

    Raises:
        one of FAULTS: it is damaged.
    """
    # By position: a class may have the name of another column.
    types = {
        "probabilities": [pa.string(), *[pa.float32()] * width],
        "top_k": [pa.string(), *[pa.string(), pa.float32()] * width],
        "submission": [pa.string(), pa.string()],
    }[kind]
    names = [str(number) for number in range(len(types))]
    with _text(path, compression) as text:
        _columns(text)
        if not text.peek(1):  # Arrow refuses what has no rows
            return
        blocks = pa_csv.open_csv(
            text,
            pa_csv.ReadOptions(
                use_threads=False, block_size=_BLOCK, column_names=names
            ),
            pa_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
            pa_csv.ConvertOptions(
                column_types=dict(zip(names, types, strict=True)), null_values=[]
            ),
        )
        for block in blocks:
            for first in range(0, block.num_rows, at_once(width)):
                yield _rows(block.slice(first, at_once(width)), kind)


def _rows(block: pa.RecordBatch, kind: str) -> RowBatch:
    ids = block.column(0).to_pylist()
    if kind == "probabilities":
        numbers = block.select(range(1, block.num_columns))
        return RowBatch(ids, None, numbers.to_tensor().to_numpy())
    if kind == "top_k":
        columns = range(1, block.num_columns, 2)
        rows = zip(*(block.column(at).to_pylist() for at in columns), strict=True)
        numbers = block.select([at + 1 for at in columns])
        return RowBatch(ids, [*map(list, rows)], numbers.to_tensor().to_numpy())
    landmarks = [text.rpartition(" ") for text in block.column(1).to_pylist()]
    texts = pa.array([number or "0" for _, _, number in landmarks], pa.string())
    values = texts.cast(pa.float32()).to_numpy()[:, None]  # not by way of float64
    return RowBatch(ids, [[x] if number else [] for x, _, number in landmarks], values)


@contextmanager
def _text(path: AnyPath, compression: str) -> Iterator[io.BufferedReader]:
    """Opens the decompressed content of a file."""
    with path.open("rb") as file:
        raw: Any = file
        if compression == "gzip":
            raw = gzip.GzipFile(fileobj=cast(BinaryIO, file))
        elif compression == "zstd":
            raw = zstandard.ZstdDecompressor().stream_reader(file, closefd=False)
        yield io.BufferedReader(raw, 1 << 20)


def _columns(text: BinaryIO) -> list[str]:
    """Reads the header, and nothing behind it."""
    return next(csv.reader(map(bytes.decode, text), strict=True), [])
