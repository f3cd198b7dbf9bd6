"""PREDICTIONS read back, as predictor.formats wrote them: the same float32."""

import csv
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import orjson
import zstandard

from pipeline import files, manifest
from pipeline.console import RunError, UsageError
from predictor import csv_shards, csv_text, formats
from predictor.csv_shards import MANIFEST, Entry

LEDGER = ("examples", "predicted", "rejected")

_NUMBERS = 4 << 20  # in memory at a time: 16 MB
_ROWS = 4096  # in memory at a time, for the sake of their ids
_BUFFER = 1 << 20  # of text: a row of 14,951 classes has 0.2 MB
_LONGEST_ID = 1 << 20  # a quote that nothing closes must not bring the file to memory

_QUOTED = re.compile(rb'"([^"]*+(?:""[^"]*+)*+)",')
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_NO_NUMBERS = (b'"', b"[", b"{", b"t", b"f", b"n")  # how all else begins in JSON
# Of all float32 from 0 to 1, the one whose shortest text, 7.038531e-26, is nearest to a
# float64 that lies midway to the next float32, and would be rounded to that.
_MIDWAY, _MEANT = 7.038531e-26, np.uint32(0x15AE43FD).view(np.float32)

_CUT = "the file ends within it"
_FAULTS = (ValueError, csv.Error, EOFError, OSError, zlib.error, zstandard.ZstdError)


@dataclass(frozen=True)
class Predictions:
    """A complete PREDICTIONS folder.

    Attributes:
        folder: where it is.
        value: predictions.json.
        format: of its files.
        files: in order.
    """

    folder: Path
    value: Mapping[str, Any]
    format: formats.Format
    files: tuple[Entry, ...]

    @property
    def width(self) -> int:
        """Probabilities in a row."""
        if self.format.kind == "probabilities":
            return int(self.value["classes"]["count"])
        return self.format.top_k if self.format.kind == "top_k" else 1


class Rows(NamedTuple):
    """Some rows of a file.

    Attributes:
        ids: of the images; of `submission`, of the sample.
        classes: the names of every row's classes; None of `probabilities`, whose header
            has them. A row of `submission` that knows nothing has none.
        probabilities: float32[rows, k]; 0 where a row has no class.
    """

    ids: list[str]
    classes: list[list[str]] | None
    probabilities: np.ndarray


class DamagedFileError(RunError):
    """A file of PREDICTIONS is not what was written.

    Attributes:
        path: the file.
        problem: what is wrong with it, and in which row, from 1 below the header.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.problem}. Restore the file from a copy, or remove its "
            "folder and run the same `make predict` again."
        )


def load(folder: Path) -> Predictions:
    """Reads predictions.json, and looks at no other file.

    Raises:
        RunError: there is no such folder, or it is incomplete, of another version, or
            damaged.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise RunError(f"PREDICTIONS {folder} does not exist. `make predict` makes it.")
    if not path.is_file():
        raise RunError(
            f"PREDICTIONS {folder} is incomplete: it has no {MANIFEST}, which is "
            "written last. Run the same `make predict` again; it goes on where it "
            "stopped."
        )
    value = files.read_json(path)
    if value.get("version") != csv_shards.VERSION:
        raise RunError(
            f"{path} has version {value.get('version')}; this program reads "
            f"{csv_shards.VERSION}. Predict again with `make predict`."
        )
    try:
        return _predictions(folder, value)
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise RunError(
            f"{path} is damaged: {type(error).__name__}: {error}. Restore it, or "
            "predict again with `make predict`."
        ) from error


def classes(predictions: Predictions) -> tuple[str, ...]:
    """The class names in the header of format `probabilities`, in order.

    Raises:
        RunError: there is no file, or its header is not what predictions.json promises.
    """
    if not predictions.files:
        raise RunError(
            f"PREDICTIONS {predictions.folder} has no file, and so no classes. Predict "
            "a split that has images."
        )
    path = predictions.folder / predictions.files[0].file
    try:
        if predictions.format.parquet:
            import pyarrow.parquet as pq  # here: half a second that CSVs need not

            header = pq.read_schema(path).names
        else:
            with _text(path, predictions.format.compression) as text:
                header = next(_fields(text), [])
        _check_header(header, predictions)
    except _FAULTS as error:
        raise DamagedFileError(path, _in_words(error)) from error
    return tuple(header[1:])


def rows(predictions: Predictions, entry: Entry) -> Iterator[Rows]:
    """Reads a file, about 16 MB of numbers at a time.

    Raises:
        DamagedFileError: it is missing, cut or damaged. Rows that come before the
            damage may have been given.
    """
    path = predictions.folder / entry.file
    parts = _parquet_parts if predictions.format.parquet else _csv_parts
    count = 0
    try:
        if (length := path.stat().st_size) != entry.bytes:
            raise ValueError(f"has {length} bytes, {MANIFEST} promises {entry.bytes}")
        for part in parts(path, predictions):
            count += len(part.ids)
            yield part
    except _FAULTS as error:
        raise DamagedFileError(path, _in_words(error)) from error
    if count != entry.rows:
        problem = f"has {count} rows, {MANIFEST} promises {entry.rows}"
        raise DamagedFileError(path, problem)


def _predictions(folder: Path, value: Mapping[str, Any]) -> Predictions:
    """Checks what all others take for granted; raises what `load` calls damage."""
    form = formats.of_key(value)
    if form.kind not in formats.KINDS or form.compression not in formats.COMPRESSIONS:
        raise ValueError(f"format is {form.kind!r}, compression {form.compression!r}")
    entries = tuple(Entry(**entry) for entry in value["files"])
    for entry in entries:
        for name, kind in Entry.__annotations__.items():
            _typed(getattr(entry, name), kind, f"{name} of {entry.file!r}")
    for name in LEDGER:
        _typed(value["ledger"][name], int, f"ledger.{name}")
    _typed(value["rows"], int, "rows")
    _typed(value["classes"]["count"], int, "classes.count")
    for name in ("model", "split"):
        _typed(value[name], str, name)
    for name in ("dataset", "images"):
        _typed(value[name] or "", str, name)
    return Predictions(folder, value, form, entries)


def _typed(value: Any, kind: type, name: str) -> None:
    if type(value) is not kind:
        raise TypeError(f"{name} is {value!r}, not of type {kind.__name__}")


def _check_header(header: Sequence[str], predictions: Predictions) -> None:
    """Refuses the columns of another format, or of other classes."""
    form = predictions.format
    if form.kind == "submission":
        expected = list(csv_text.SUBMISSION_COLUMNS)
    elif form.kind == "top_k":
        numbers = range(1, form.top_k + 1)
        columns = itertools.product(numbers, csv_text.TOP_COLUMNS)
        expected = ["id", *(f"{name}_{n}" for n, name in columns)]
    else:
        expected = ["id", *header[1:]]
    if header != expected:
        raise ValueError(f"its header is {_short(header)}, not {_short(expected)}")
    promised = predictions.value["classes"]
    if form.kind == "probabilities" and promised != (
        found := manifest.classes_entry(tuple(header[1:]))
    ):
        raise ValueError(
            f"its header has other classes: {found}, {MANIFEST} promises {promised}"
        )


def _short(names: Sequence[str]) -> str:
    more = f", … ({len(names)} columns)" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more


def _in_words(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "is missing"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    return " ".join((str(error) or type(error).__name__).split())


# ------------------------------------------------------------------------------- CSV


class _Record(NamedTuple):
    """One row."""

    id: str
    classes: list[str] | None
    numbers: np.ndarray


def _csv_parts(path: Path, predictions: Predictions) -> Iterator[Rows]:
    form, width = predictions.format, predictions.width
    with _text(path, form.compression) as text:
        fields = _fields(text)
        _check_header(next(fields, []), predictions)
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


@contextmanager
def _text(path: Path, compression: str) -> Iterator[BinaryIO]:
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


def _gather(records: Iterator[_Record], width: int, first: int) -> Rows | None:
    """As many rows as may be in memory; None where there are no more.

    Args:
        records: what is left of them.
        width: numbers of a row.
        first: the number of the first of them, for errors.
    """
    at_once = _rows_at_once(width)
    ids: list[str] = []
    classes: list[list[str]] = []
    values = np.zeros((at_once, width), np.float32)
    try:
        for record in itertools.islice(records, at_once):
            values[len(ids), : len(record.numbers)] = record.numbers
            ids.append(record.id)
            if record.classes is not None:
                classes.append(record.classes)
    except _FAULTS as error:
        raise ValueError(f"row {first + len(ids)}: {_in_words(error)}") from error
    return Rows(ids, classes or None, values[: len(ids)]) if ids else None


def _rows_at_once(width: int) -> int:
    return max(1, min(_ROWS, _NUMBERS // width))


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
        if len(row) != len(csv_text.SUBMISSION_COLUMNS):
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


# --------------------------------------------------------------------------- Parquet


def _parquet_parts(path: Path, predictions: Predictions) -> Iterator[Rows]:
    import pyarrow as pa  # here: half a second that CSVs need not
    import pyarrow.parquet as pq

    top_k = predictions.format.kind == "top_k"
    with pq.ParquetFile(path) as file:
        header, types = file.schema_arrow.names, file.schema_arrow.types
        _check_header(header, predictions)
        # By position: a class may be named `id`.
        names = [0, *(range(1, len(header), 2) if top_k else [])]
        numbers = list(range(2, len(header), 2) if top_k else range(1, len(header)))
        for columns, kind in ((names, pa.string()), (numbers, pa.float32())):
            if odd := [at for at in columns if types[at] != kind]:
                at = odd[0]
                raise ValueError(f"column {header[at]!r} is {types[at]}, not {kind}")
        for batch in file.iter_batches(_rows_at_once(predictions.width)):
            for what, columns in (("names", names), ("numbers", numbers)):
                if any(batch.column(at).null_count for at in columns):
                    raise ValueError(f"a column of {what} has gaps (null)")
            ids, *classes = (batch.column(at).to_pylist() for at in names)
            top = [list(row) for row in zip(*classes, strict=True)]
            values = batch.select(numbers).to_tensor().to_numpy()
            yield Rows(ids, top if top_k else None, values)
