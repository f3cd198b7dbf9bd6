"""What PREDICTIONS look like: the kinds of rows, and how a file of them is encoded."""

import gzip
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Protocol, cast

import google_crc32c
import numpy as np
import zstandard

from pipeline.system.command_line import option
from pipeline.system.errors import UsageError
from predictor.format import csv_files, predictions_manifest

KINDS = ("probabilities", "top_k", "submission")
COMPRESSIONS = ("none", "gzip", "zstd")

# Digits compress no better at higher levels: 0.43 of the size at 150 MB/s (gzip 1),
# 0.38 at 27 (gzip 6); 0.37 at 500 (zstd 1), 0.38 at 44 (zstd 9).
_LEVEL = 1
EXTENSIONS = {"none": ".csv", "gzip": ".csv.gz", "zstd": ".csv.zst"}


@dataclass(frozen=True, kw_only=True)
class Format:
    """How rows are written."""

    kind: str = option(
        "Chooses the rows: probabilities of every class, top_k (the best classes and "
        "their probabilities), or Kaggle's `id,landmarks` (submission).",
        "probabilities",
        choices=KINDS,
        name="format",
    )
    top_k: int = option(
        "Sets how many classes a row of --format=top_k has.", 5, lower_bound=1
    )
    compression: str = option(
        "Chooses how CSVs are compressed.", "none", choices=COMPRESSIONS
    )
    parquet: bool = option("Writes Parquet in place of CSV.", False)

    def __post_init__(self) -> None:
        if self.parquet and self.compression != "none":
            raise UsageError("--parquet compresses by itself; leave out --compression")
        if self.parquet and self.kind == "submission":
            raise UsageError("--format=submission is a CSV; leave out --parquet")

    @property
    def extension(self) -> str:
        """Returns the extension of the files, with its dot."""
        return ".parquet" if self.parquet else EXTENSIONS[self.compression]

    @property
    def version(self) -> int:
        """Returns the version of predictions.json."""
        names = predictions_manifest
        return names.PARQUET_VERSION if self.parquet else names.VERSION

    def check(self, classes: Sequence[str]) -> None:
        """Refuses what a model of these classes cannot give.

        Raises:
            UsageError: it has too few.
        """
        if self.kind == "top_k" and self.top_k > len(classes):
            raise UsageError(
                f"--top_k={self.top_k}, and MODEL has {len(classes)} classes; use "
                f"--top_k={len(classes)} or less"
            )

    def key(self) -> dict[str, Any]:
        """Returns what of it decides the bytes: the entries of predictions.json."""
        values = asdict(self)
        kind = values.pop("kind")
        return {
            "format": kind,
            **values,
            "top_k": self.top_k if kind == "top_k" else None,
        }


def of_key(key: Mapping[str, Any]) -> Format:
    """The format that has a `Format.key`."""
    return Format(
        kind=key["format"],
        top_k=key["top_k"] or Format.top_k,
        compression=key["compression"],
        parquet=key["parquet"],
    )


class Table(Protocol):
    """A file of rows that is being written."""

    def write(self, ids: Sequence[str], probabilities: np.ndarray) -> None:
        """Adds rows.

        Args:
            ids: of the images.
            probabilities: float32[rows, classes], finite; not kept.
        """


class Output:
    """Counts and sums up what goes to a file.

    CRC-32C, as google_crc32c has it, takes 3 % of the time of the text; SHA-256 took a
    third of it.
    """

    closed = False  # asks pyarrow; who has the file closes it

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._checksum = google_crc32c.Checksum()
        self.length = 0

    def write(self, data: bytes) -> int:
        """Hands on to the file."""
        data = bytes(data)
        self._checksum.update(data)
        self.length += len(data)
        self._file.write(data)
        return len(data)

    def flush(self) -> None:
        """Does nothing; writers of libraries call it."""

    def close(self) -> None:
        """Does nothing; writers of libraries call it."""

    @property
    def crc32c(self) -> str:
        """Returns the checksum of everything so far, hexadecimal."""
        return self._checksum.digest().hex()


@contextmanager
def table(format: Format, classes: Sequence[str], output: Output) -> Iterator[Table]:
    """Opens a file of rows; it is whole at the end of the context."""
    if format.parquet:
        from predictor.format import parquet_files  # here: CSVs need not wait for it

        with parquet_files.table(format.kind, format.top_k, classes, output) as rows:
            yield rows
    else:
        with compressed(format.compression, output) as text:
            yield _Csv(format, classes, text)


class _Csv:
    """Lines of text."""

    def __init__(self, format: Format, classes: Sequence[str], text: BinaryIO) -> None:
        if format.kind == "top_k":
            header, self._lines = csv_files.top_k(classes, format.top_k)
        elif format.kind == "submission":
            header, self._lines = csv_files.submission(classes)
        else:
            header, self._lines = csv_files.probabilities(classes)
        self._text = text
        text.write(header)

    def write(self, ids: Sequence[str], probabilities: np.ndarray) -> None:
        for line in self._lines(ids, probabilities):
            self._text.write(line)


@contextmanager
def compressed(compression: str, output: Output) -> Iterator[BinaryIO]:
    """The same bytes for the same text: no name and no time in a header."""
    raw = cast(BinaryIO, output)
    if compression == "gzip":
        with gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as file:
            yield cast(BinaryIO, file)
    elif compression == "zstd":
        compressor = zstandard.ZstdCompressor(_LEVEL, write_checksum=True)
        with compressor.stream_writer(raw, closefd=False) as file:
            yield cast(BinaryIO, file)
    else:
        yield raw
