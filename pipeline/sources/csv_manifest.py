"""A CSV of images: `id,label[,split]`, and the files that it names."""

from __future__ import annotations

import csv
import itertools
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from pipeline.dataset.manifest import SPLITS
from pipeline.images import image_bytes
from pipeline.sources.folder_tree import FolderTree
from pipeline.sources.listing import Candidate, Listing, is_utf8, printable
from pipeline.storage.object_paths import AnyPath
from pipeline.system.errors import RunError

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("id", "label", "split")
_ENCODING, _ERRORS = "utf-8-sig", "surrogateescape"  # so that a bad row can be named
_CHUNK = 1 << 16  # rows in memory at a time


class Row(NamedTuple):
    """One row; "" where it has no such column.

    Attributes:
        number: from 1, without the header and empty lines.
    """

    number: int
    id: str
    label: str
    split: str


def list_named(
    path: AnyPath, places: Sequence[FolderTree], *, labelled_test: bool = False
) -> Listing:
    """Lists the files that a CSV names, under the ids that it gives them.

    Args:
        path: the CSV. Without a column `split`, all is train and to be carved.
        places: where the files are; an id is a path below any of them.
        labelled_test: rows of test must have a label, too.

    Raises:
        RunError: the CSV is no such list, or an id is there twice in a split.
    """
    listing = Listing("manifest")
    name = f"--manifest={path}"
    files = _Files(places, listing.ignored)
    seen: dict[str, dict[str, int]] = {}
    listing.carved = "split" not in columns(path, name)
    for row in rows(path, name, required=("id", "label")):
        row = row._replace(split="train") if listing.carved else row
        _check(row, name, labelled_test)
        first = seen.setdefault(row.split, {}).setdefault(row.id, row.number)
        if first != row.number:
            raise RunError(
                f"{name}: rows {first} and {row.number} of {row.split} have the same "
                f"id {row.id!r}; each may be there once. Remove one of them."
            )
        listing.add(row.id, files.find(row.id), row.split, row.label or None)
    listing.ignored += files.unnamed()
    return listing


def rows(path: AnyPath, name: str, *, required: Sequence[str]) -> Iterator[Row]:
    """Yields the rows of a CSV, a bounded number of which is in memory.

    Args:
        path: the file.
        name: what messages call it.
        required: columns that it must have; others of `Row` it may have.

    Raises:
        RunError: it is no such CSV, has no row, or a row has no id or is not UTF-8.
    """
    number = 0
    for chunk in _chunks(path, name, required):
        cells = (chunk[c] if c in chunk else itertools.repeat("") for c in _COLUMNS)
        for row in zip(*cells, strict=False):
            number += 1
            if not row[0]:
                raise RunError(
                    f"{name}: row {number} has no id. Complete or remove it."
                )
            if not is_utf8("".join(row)):
                shown = printable(",".join(row))
                raise RunError(
                    f"{name}: row {number} is not UTF-8: {shown}. Convert it."
                )
            yield Row(number, *row)
    if not number:
        raise RunError(f"{name} has a header and no row. Name another file.")


def columns(path: AnyPath, name: str) -> list[str]:
    """The names in the header.

    Raises:
        RunError: the file is missing or empty, no text, or its first row is longer.
    """
    if not path.is_file():
        raise RunError(f"{name} is no file. Name a CSV with a header.")
    try:
        with path.open(encoding=_ENCODING, errors=_ERRORS, newline="") as lines:
            header, *first = itertools.islice(filter(None, csv.reader(lines)), 2)
    except csv.Error as error:
        raise RunError(f"{name} is no CSV: {error}. Name another file.") from error
    except ValueError as error:  # nothing to unpack
        raise RunError(f"{name} is empty. It takes a header and rows.") from error
    if not is_utf8("".join(header)):
        raise RunError(f"{name} is not UTF-8. Convert it.")
    if first and len(first[0]) > len(header):  # pandas would drop what is too much
        raise RunError(
            f"{name}: row 1 has {len(first[0])} fields, and the header "
            f"{len(header)}: {','.join(header)}. Quote fields that hold a comma."
        )
    return header


class _Files:
    """The files of all places by path, and which of them were named."""

    def __init__(self, places: Sequence[FolderTree], ignored: list[str]) -> None:
        self._found: dict[str, Candidate] = {}
        self._again: dict[str, Candidate] = {}  # of another place
        self._named: set[str] = set()
        for place in places:
            for found in place.files(ignored):
                first = self._found.setdefault(found.path, found)
                if first is not found:
                    self._again[found.path] = found

    def find(self, image_id: str) -> Candidate:
        """The file of an id; one with a problem where there is none.

        Raises:
            RunError: two places have it.
        """
        path = self._path(image_id) or self._path(str(PurePosixPath(image_id)))
        if path is None:
            return Candidate(image_id, "", missing(image_id))
        if path in self._again:
            raise RunError(
                f"two roots have the file {path!r} of id {image_id!r}: "
                f"{image_bytes.path(self._found[path].uri)} and "
                f"{image_bytes.path(self._again[path].uri)}. Rename or remove one of "
                "them."
            )
        self._named.add(path)
        return self._found[path]

    def unnamed(self) -> Iterator[str]:
        """The files that no id led to."""
        for path, found in self._found.items():
            if path not in self._named:
                inner = "" if image_bytes.is_file(found.uri) else f"/{path}"
                yield printable(f"{image_bytes.path(found.uri)}{inner}")

    def _path(self, image_id: str) -> str | None:
        return next((path for path in spellings(image_id) if path in self._found), None)


def spellings(image_id: str) -> tuple[str, str]:
    """The paths that an id may mean: itself, and with `.jpg` where it has nothing."""
    itself, added = image_id, f"{image_id}.jpg"
    return (itself, added) if posixpath.splitext(itself)[1] else (added, itself)


def leads_out(image_id: str) -> bool:
    """Whether an id is no path below the folder of the images."""
    return image_id.startswith("/") or ".." in image_id.split("/")


def missing(image_id: str) -> tuple[str, str]:
    """The reason and the detail of an id without a file."""
    if leads_out(image_id):
        return "bad_name", "the id leads out of IMAGES"
    return "no_file", f"IMAGES has no file {' or '.join(spellings(image_id))}"


def _check(row: Row, name: str, labelled_test: bool) -> None:
    """Refuses what no image can be listed under."""
    if row.split not in SPLITS:
        raise RunError(
            f"{name}: row {row.number}, id {row.id!r}, is of split {row.split!r}; the "
            f"splits are {', '.join(SPLITS)}. Correct it."
        )
    if not row.label and (row.split != "test" or labelled_test):
        raise RunError(
            f"{name}: row {row.number}, id {row.id!r}, of {row.split} has no label. "
            "Complete or remove it; only test may do without, and not with "
            "--labelled_test."
        )
    if "\n" in row.label or "\r" in row.label:
        raise RunError(
            f"{name}: row {row.number}, id {row.id!r}, has a line break in its label "
            f"{row.label!r}, and classes.txt has one class per line. Correct it."
        )


def _chunks(
    path: AnyPath, name: str, required: Sequence[str]
) -> Iterator[pd.DataFrame]:
    """Yields the rows of a CSV, all of it text, _CHUNK at a time."""
    there = columns(path, name)
    if missing := [column for column in required if column not in there]:
        raise RunError(
            f"{name} has no column {' and no column '.join(missing)}; its header is "
            f"{','.join(there)}. It takes {','.join(required)}, by these names and "
            "with commas. Rename the columns."
        )
    try:
        import pandas as pd  # here: a shard worker has none
    except ImportError as error:
        raise RunError(
            f"{name} is read with pandas, which is not installed: `pip install pandas`."
        ) from error
    try:
        with (
            path.open("rb") as file,
            pd.read_csv(
                file,
                dtype=object,
                keep_default_na=False,
                index_col=False,
                encoding=_ENCODING,
                encoding_errors=_ERRORS,
                chunksize=_CHUNK,
            ) as chunks,
        ):
            yield from chunks
    except ValueError as error:
        raise RunError(
            f"{name} is no CSV: {' '.join(str(error).split())}. Correct that line."
        ) from error
