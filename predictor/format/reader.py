"""PREDICTIONS read back, as file_format wrote them: the same float32."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from pipeline.dataset import manifest
from pipeline.storage import atomic as files
from pipeline.storage.object_paths import AnyPath
from pipeline.system import io_errors
from pipeline.system.errors import RunError, UsageError
from predictor.format import csv_files, file_format, predictions_manifest
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
    readable = (predictions_manifest.VERSION, predictions_manifest.PARQUET_VERSION)
    if value.get("version") not in readable:
        raise RunError(
            f"{path} has version {value.get('version')}; this program reads "
            f"{' and '.join(map(str, readable))}. Predict again with `make predict`."
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
        return tuple(_checked_classes(path, predictions))
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
        _checked_classes(path, predictions)
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
        from predictor.format import parquet_files  # here: CSVs need not wait for it

        return parquet_files.parts(path, form.kind, predictions.value["version"], width)
    return csv_files.parts(path, form.kind, form.compression, width)


def _checked_classes(path: AnyPath, predictions: Predictions) -> list[str]:
    """Returns the classes that a file names; raises one of FAULTS where it is odd.

    That is the columns of another format, or other classes than were promised. None but
    `probabilities` names them.
    """
    form, version = predictions.format, predictions.value["version"]
    if form.parquet:
        from predictor.format import parquet_files

        if form.kind != "probabilities":
            return []
        found = parquet_files.classes(path, version)
    else:
        header = csv_files.header(path, form.compression)
        expected = {
            "submission": list(csv_files.SUBMISSION_COLUMNS),
            "top_k": csv_files.top_k_columns(form.top_k),
            "probabilities": ["id", *header[1:]],
        }[form.kind]
        if header != expected:
            raise ValueError(f"its header is {_short(header)}, not {_short(expected)}")
        if form.kind != "probabilities":
            return []
        found = header[1:]
    promised, there = predictions.value["classes"], manifest.classes_entry(tuple(found))
    if promised != there:
        raise ValueError(
            f"its header has other classes: {there}, {MANIFEST} promises {promised}"
        )
    return found


def _short(names: Sequence[str]) -> str:
    more = f", … ({len(names)} columns)" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more
