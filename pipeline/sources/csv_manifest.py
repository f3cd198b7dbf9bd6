"""A CSV of images: `id,label[,split]`, and the files that it names."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.dataset.manifest import SPLITS
from pipeline.sources import names
from pipeline.sources.folder_tree import FolderTree
from pipeline.sources.listing import Listing
from pipeline.sources.named_files import NamedFiles
from pipeline.sources.user_text import Table
from pipeline.storage.object_paths import AnyPath
from pipeline.system.errors import RunError


def left_out(roots: Sequence[AnyPath]) -> list[str]:
    """Returns a warning for each CSV in a root that may be the list of its photos."""
    found = []
    for root in roots:
        if not isinstance(root, Path) or not root.is_dir():
            continue
        for path in sorted(root.glob("*.csv")):
            with contextlib.suppress(RunError):  # it is no such list
                Table(path, "", required=("id", "label"))
                found.append(
                    f"{path} has ids and labels, and is not read: the folders say what "
                    f"is there. Is it the list of these photos? --manifest={path}"
                )
    return found


class Row(NamedTuple):
    """One row; "" where it has no such column.

    Attributes:
        line: from 1, the header among them.
    """

    line: int
    id: str
    label: str
    split: str


def list_named(
    path: AnyPath,
    places: Sequence[FolderTree],
    *,
    labelled_test: bool = False,
    id_column: str = "id",
    label_column: str = "label",
) -> Listing:
    """Lists the files that a CSV names, under the ids that it gives them.

    Args:
        path: the CSV. Without a column `split`, all is train and to be carved.
        places: where the files are; an id is a path below any of them.
        labelled_test: rows of test must have a label, too.
        id_column, label_column: their names; `landmark_id` is a label, too.

    Raises:
        RunError: the CSV is no such list, two rows of a split name one file, or none
            names a file that is there.
    """
    listing = Listing("manifest")
    flag = f"--manifest={path}"
    columns = (id_column, label_column)
    table = Table(path, flag, required=columns, optional=("split",))
    listing.carved = not table.has("split")
    files = NamedFiles(places, listing.ignored)
    seen: dict[str, dict[str, int]] = {}  # line by path, by split
    for row in _rows(table, flag):
        row = row._replace(split="train") if listing.carved else row
        _check(row, flag, labelled_test)
        found = files.find(row.id)
        line = seen.setdefault(row.split, {}).setdefault(found.path, row.line)
        if line != row.line:
            again = _rows(Table(path, flag, required=columns), flag)
            first = next(one for one in again if one.line == line)
            raise RunError(f"{flag}: {_again(first, row, found.path)}")
        listing.add(row.id, found, row.split, sys.intern(row.label) or None)
    files.ignore_unnamed(seen.values(), listing.ignored)
    if not listing.refs:
        reject = listing.rejects[0]
        example = files.example()
        there = f"it has {names.shown(example)}" if example else "it has no file"
        raise RunError(
            f"IMAGES {', '.join(place.where for place in places)} holds none of the "
            f"files that {flag} names. The first of {len(listing.rejects):,} ids is "
            f"{names.shown(reject.id)}: {reject.detail}; {there}. An id is a path "
            "below IMAGES, or the name of a file without its extension."
        )
    return listing


def ids(path: AnyPath, flag: str) -> Iterator[str]:
    """Yields the ids of a CSV, whatever else it has.

    Raises:
        RunError: it is no CSV with a column `id`, has no row, or a row without an id.
    """
    for row in _rows(Table(path, flag, required=["id"]), flag):
        yield row.id


def _rows(table: Table, flag: str) -> Iterator[Row]:
    for line, cells in table.rows():
        if not cells[0]:
            raise RunError(f"{flag}: line {line} has no id. Complete or remove it.")
        yield Row(line, *cells, *[""] * (3 - len(cells)))


def _again(first: Row, row: Row, path: str) -> str:
    """Says that two rows are one."""
    where = f"lines {first.line} and {row.line} of {row.split}"
    what = f"have the same id {row.id!r}"
    if first.id != row.id:
        what = f"name the same file {path!r}: {first.id!r} and {row.id!r}"
    labels = ""
    if first.label != row.label:
        labels = f", and have two labels: {first.label!r} and {row.label!r}"
    return f"{where} {what}{labels}. Each may be there once: remove one of them."


def _check(row: Row, flag: str, labelled_test: bool) -> None:
    """Refuses what no image can be listed under."""
    if row.split not in SPLITS:
        raise RunError(
            f"{flag}: line {row.line}, id {row.id!r}, is of split {row.split!r}; the "
            f"splits are {', '.join(SPLITS)}. Correct it."
        )
    if not row.label and (row.split != "test" or labelled_test):
        raise RunError(
            f"{flag}: line {row.line}, id {row.id!r}, of {row.split} has no label. "
            "Complete or remove it; only test may do without, and not with "
            "--labelled_test."
        )
    if "\n" in row.label or "\r" in row.label:
        raise RunError(
            f"{flag}: line {row.line}, id {row.id!r}, has a line break in its label "
            f"{row.label!r}, and classes.txt has one class per line. Correct it."
        )
