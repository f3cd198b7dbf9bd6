"""PREDICTIONS read back, as file_format wrote them: the same float32."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from pipeline.dataset import manifest
from pipeline.storage import atomic as files
from pipeline.storage.object_paths import AnyPath
from pipeline.system import io_errors
from pipeline.system.errors import RunError, UsageError
from predictor.format import csv_reader, csv_writer, file_format, predictions_manifest
from predictor.format.predictions_manifest import MANIFEST, Entry
from predictor.format.row_batch import FAULTS, RowBatch, in_words

LEDGER = ("examples", "predicted", "rejected")


@dataclass(frozen=True)
class Predictions:
    """A complete PREDICTIONS folder.

    Attributes:
        folder: where it is.
        value: predictions.json.
        format: of its files.
        files: in order.
    """

    folder: AnyPath
    value: Mapping[str, Any]
    format: file_format.Format
    files: tuple[Entry, ...]

    @property
    def width(self) -> int:
        """Probabilities in a row."""
        if self.format.kind == "probabilities":
            return int(self.value["classes"]["count"])
        return self.format.top_k if self.format.kind == "top_k" else 1


class DamagedFileError(RunError):
    """A file of PREDICTIONS is not what was written.

    Attributes:
        path: the file.
        problem: what is wrong with it, and in which row, from 1 below the header.
    """

    def __init__(self, path: AnyPath, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.problem}. Restore the file from a copy, or remove its "
            "folder and run the same `make predict` again."
        )


def load(folder: AnyPath) -> Predictions:
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
    if value.get("version") != predictions_manifest.VERSION:
        raise RunError(
            f"{path} has version {value.get('version')}; this program reads "
            f"{predictions_manifest.VERSION}. Predict again with `make predict`."
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
        return tuple(_header(path, predictions)[1:])
    except FAULTS as error:
        _raise(error, path)


def rows(predictions: Predictions, entry: Entry) -> Iterator[RowBatch]:
    """Reads a file, about 16 MB of numbers at a time.

    Raises:
        DamagedFileError: it is missing, cut or damaged. Rows that come before the
            damage may have been given.
        OSError: it cannot be read now, which says nothing about it.
    """
    path = predictions.folder / entry.file
    count = 0
    try:
        if (length := path.stat().st_size) != entry.bytes:
            raise ValueError(f"has {length} bytes, {MANIFEST} promises {entry.bytes}")
        _header(path, predictions)
        for part in _parts(path, predictions):
            count += len(part.ids)
            yield part
    except FAULTS as error:
        _raise(error, path)
    if count != entry.rows:
        problem = f"has {count} rows, {MANIFEST} promises {entry.rows}"
        raise DamagedFileError(path, problem)


def _raise(error: Exception, path: AnyPath) -> NoReturn:
    """Raises what one of FAULTS means; an error of the system is left as it is."""
    if isinstance(error, OSError) and not io_errors.is_about_file(error):
        error.filename = error.filename or str(path)
        raise error
    raise DamagedFileError(path, in_words(error)) from error


def _predictions(folder: AnyPath, value: Mapping[str, Any]) -> Predictions:
    """Checks what all others take for granted; raises what `load` calls damage."""
    form = file_format.of_key(value)
    if (
        form.kind not in file_format.KINDS
        or form.compression not in file_format.COMPRESSIONS
    ):
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


def _parts(path: AnyPath, predictions: Predictions) -> Iterator[RowBatch]:
    form, width = predictions.format, predictions.width
    if form.parquet:
        from predictor.format import (
            parquet_reader,  # here: half a second that CSVs need not
        )

        return parquet_reader.parts(path, form, width)
    return csv_reader.parts(path, form, width)


def _header(path: AnyPath, predictions: Predictions) -> list[str]:
    """The columns of a file; raises one of FAULTS where they are not its format's."""
    form = predictions.format
    if form.parquet:
        from predictor.format import parquet_reader

        columns = parquet_reader.header(path)
    else:
        columns = csv_reader.header(path, form.compression)
    _check_header(columns, predictions)
    return columns


def _check_header(header: Sequence[str], predictions: Predictions) -> None:
    """Refuses the columns of another format, or of other classes."""
    form = predictions.format
    if form.kind == "submission":
        expected = list(csv_writer.SUBMISSION_COLUMNS)
    elif form.kind == "top_k":
        numbers = range(1, form.top_k + 1)
        columns = itertools.product(numbers, csv_writer.TOP_COLUMNS)
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
