"""CSV of predictions read back, as csv_writer wrote it: the same float32."""

import csv
import gzip
import io
import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import orjson
import zstandard

from pipeline.storage.object_paths import AnyPath
from predictor.format import csv_writer
from predictor.format.file_format import Format
from predictor.format.row_batch import FAULTS, RowBatch, at_once, in_words

_BUFFER = 1 << 20  # of text: a row of 14,951 classes has 0.2 MB
_LONGEST_ID = 1 << 20  # a quote that nothing closes must not bring the file to memory

_QUOTED = re.compile(rb'"([^"]*+(?:""[^"]*+)*+)",')
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_NO_NUMBERS = (b'"', b"[", b"{", b"t", b"f", b"n")  # how all else begins in JSON
# Of all float32 from 0 to 1, the one whose shortest text, 7.038531e-26, is nearest to a
# float64 that lies midway to the next float32, and would be rounded to that.
_MIDWAY, _MEANT = 7.038531e-26, np.uint32(0x15AE43FD).view(np.float32)

_CUT = "the file ends within it"


def header(path: AnyPath, compression: str) -> list[str]:
    """The columns of a file.

    Raises:
        one of FAULTS: it has none.
    """
    with _text(path, compression) as text:
        return next(_fields(text), [])


def parts(path: AnyPath, form: Format, width: int) -> Iterator[RowBatch]:
    """The rows of a file, `at_once` so many of them.

    Args:
        path: of the file, whose header is as it must be.
        form: of the file.
        width: probabilities of a row.

    Raises:
        one of FAULTS: it is damaged.
    """
    with _text(path, form.compression) as text:
        fields = _fields(text)
        next(fields)
        if form.kind == "probabilities":
            records = _probabilities(text, width)
        elif form.kind == "top_k":
            records = _top_k(fields, width)
        else:
            records = _submission(fields)
        first = 1
        while part := _gather(records, width, first):
            yield part
            first += len(part.ids)


class _Record(NamedTuple):
    """One row."""

    id: str
    classes: list[str] | None
    numbers: np.ndarray


@contextmanager
def _text(path: AnyPath, compression: str) -> Iterator[BinaryIO]:
    """The decompressed content of a file."""
    with path.open("rb") as file:
        raw: Any = file
        if compression == "gzip":
            raw = gzip.GzipFile(fileobj=file)
        elif compression == "zstd":
            raw = zstandard.ZstdDecompressor().stream_reader(file, closefd=False)
        yield cast(BinaryIO, io.BufferedReader(raw, _BUFFER))


def _fields(text: BinaryIO) -> Iterator[list[str]]:
    """Rows in the sense of the csv module; what follows them is not read ahead."""
    return csv.reader(map(_whole, text), strict=True)


def _whole(line: bytes) -> str:
    if not line.endswith(b"\n"):
        raise ValueError(_CUT)
    return line.decode()


def _gather(records: Iterator[_Record], width: int, first: int) -> RowBatch | None:
    """As many rows as may be in memory; None where there are no more.

    Args:
        records: what is left of them.
        width: numbers of a row.
        first: the number of the first of them, for errors.
    """
    most = at_once(width)
    ids: list[str] = []
    classes: list[list[str]] = []
    values = np.zeros((most, width), np.float32)
    try:
        for record in itertools.islice(records, most):
            values[len(ids), : len(record.numbers)] = record.numbers
            ids.append(record.id)
            if record.classes is not None:
                classes.append(record.classes)
    except FAULTS as error:
        raise ValueError(f"row {first + len(ids)}: {in_words(error)}") from error
    return RowBatch(ids, classes or None, values[: len(ids)]) if ids else None


def _probabilities(text: BinaryIO, width: int) -> Iterator[_Record]:
    while line := text.readline():
        image_id, numbers = _cut(line, text)
        yield _Record(image_id, None, _numbers(numbers, width))


def _top_k(fields: Iterator[list[str]], width: int) -> Iterator[_Record]:
    for image_id, *rest in fields:
        names, numbers = rest[::2], rest[1::2]
        if len(rest) != 2 * width:
            raise ValueError(f"it has {len(rest)} fields below the id, not {2 * width}")
        yield _Record(image_id, names, _numbers(",".join(numbers).encode(), width))


def _submission(fields: Iterator[list[str]]) -> Iterator[_Record]:
    for row in fields:
        if len(row) != len(csv_writer.SUBMISSION_COLUMNS):
            raise ValueError(f"it has {len(row)} fields, not id and landmarks")
        image_id, landmarks = row
        name, _, number = landmarks.rpartition(" ")
        if landmarks:
            yield _Record(image_id, [name], _numbers(number.encode(), 1))
        else:
            yield _Record(image_id, [], np.empty(0, np.float32))


def _cut(line: bytes, text: BinaryIO) -> tuple[str, bytes]:
    """The id and the rest of a row; reads on where the id has line breaks."""
    if not line.startswith(b'"'):
        image_id, _, numbers = line.partition(b",")
    else:
        while not (found := _QUOTED.match(line)):
            more = text.readline()
            if not more or len(line) > _LONGEST_ID:
                raise ValueError("the quote before its id is not closed")
            line += more
        image_id, numbers = found[1].replace(b'""', b'"'), line[found.end() :]
    if not line.endswith(b"\n"):
        raise ValueError(_CUT)
    return image_id.decode(), numbers


def _numbers(text: bytes, width: int) -> np.ndarray:
    """The float32 of `0.5,0.25,…`, exactly those that were written.

    As JSON, by orjson: of 200 rows of 14,951 numbers, 2.4 times as fast as
    pyarrow.csv.read_csv and 4.7 times as fast as its streaming reader, 1.3 times as a
    column of pyarrow.csv, 3 times as numpy.fromstring, 5 times as pandas.read_csv, 8
    times as the csv module and numpy. All of them round to float64 first, but for
    pyarrow.

    Raises:
        ValueError: there are more or fewer, or something else.
    """
    try:
        if any(mark in text for mark in _NO_NUMBERS):
            raise ValueError("not numbers alone")
        values = orjson.loads(b"[%b]" % text)
    except ValueError as error:
        raise ValueError(_odd_field(text)) from error
    if len(values) != width:
        raise ValueError(f"it has {len(values)} numbers, not {width}")
    exact = np.array(values, np.float64)
    with np.errstate(over="ignore"):  # infinite is for others to judge
        rounded = exact.astype(np.float32)
    rounded[exact == _MIDWAY] = _MEANT
    return rounded


def _odd_field(text: bytes) -> str:
    """Names the first field that is no number."""
    fields = text.decode(errors="replace").removesuffix("\n").split(",")
    odd = (at for at, field in enumerate(fields) if not _NUMBER.fullmatch(field))
    at = next(odd, 0)
    return f"number {at + 1} of it is {fields[at][:40]!r}"
