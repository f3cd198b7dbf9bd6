"""Text files of a user, as editors and spreadsheets save them: class lists and CSVs.

They may be UTF-8, with a byte order mark or without, or UTF-16, have the line ends of
any system, and as CSVs commas, semicolons, tabs or bars between their cells. Messages
name the line, numbered from 1, and show what is there.
"""

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from typing import TextIO

from pipeline.sources import names
from pipeline.storage.object_paths import AnyPath
from pipeline.system import io_errors
from pipeline.system.errors import RunError

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SEPARATORS = (",", ";", "\t", "|")
_ALSO = {"label": "landmark_id"}  # columns by the names that Kaggle gives them
_SHOWN = 80  # letters of a line


def lines(path: AnyPath, flag: str) -> list[str]:
    """Returns the lines of a text, without their ends.

    Args:
        path: the file.
        flag: what messages call it: `--classes=PATH`.

    Raises:
        RunError: there is no such file, or it is no text.
    """
    with _open(path, flag) as text:
        return [line.rstrip("\r\n") for line in text]


class Table:
    """A CSV with a header.

    Args:
        path: the file.
        flag: what messages call it: `--manifest=PATH`.
        required: columns that it must have; case and blanks of names do not count.
        optional: columns that are read where it has them.

    Raises:
        RunError: there is no such file, it is no text, or it lacks a column.
    """

    def __init__(
        self,
        path: AnyPath,
        flag: str,
        *,
        required: Sequence[str],
        optional: Sequence[str] = (),
    ) -> None:
        self._flag, self._required = flag, required
        self._wanted = [*required, *optional]
        self._text, self._above = _open(path, flag), 0
        line = self._first_line()
        if line.strip("\"'\r\n ").lower().startswith("sep="):  # as Excel writes it
            line = self._first_line()
        headers = {mark: _cells(line, mark) for mark in _SEPARATORS}
        self._separator = next(
            (
                mark
                for mark, cells in headers.items()
                if all(self._positions(name, cells) for name in required)
            ),
            max(_SEPARATORS, key=lambda mark: len(headers[mark])),
        )
        self._header = headers[self._separator]
        self._at = [self._position(name) for name in self._wanted]

    def has(self, column: str) -> bool:
        """Returns whether the header has an optional column."""
        return self._at[self._wanted.index(column)] is not None

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yields the number of the line and the wanted cells of every row.

        A cell is "" where there is no such column. Empty rows are left out.

        Raises:
            RunError: there is no row; or a row has too many or too few cells, or blanks
                at the ends of a wanted one.
        """
        number, least = 0, 1 + max(at for at in self._at if at is not None)
        for number, cells in self._rows():
            if len(cells) < least or any(cells[len(self._header) :]):
                raise RunError(
                    f"{self._flag}: line {number} has {len(cells)} cells, and the "
                    f"header has {len(self._header)}: "
                    f"{_shown(self._separator.join(cells))}. Complete it, or quote "
                    f"cells that hold a {self._separator!r}."
                )
            wanted = ["" if at is None else cells[at] for at in self._at]
            for name, cell in zip(self._wanted, wanted, strict=True):
                if cell != cell.strip():
                    raise RunError(
                        f"{self._flag}: line {number} has blanks at the ends of the "
                        f"{name} {names.shown(cell)}, which is another than "
                        f"{names.shown(cell.strip())}. Remove such blanks everywhere."
                    )
            yield number, wanted
        if not number:
            raise RunError(f"{self._flag} has a header and no row. Name another file.")

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yields the number of the first line, and all cells, of rows with any."""
        reader = csv.reader(self._text, delimiter=self._separator, strict=True)
        while True:
            number = self._above + reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise RunError(
                    f"{self._flag}: the row that begins in line {number} is no row of "
                    f"a CSV: {error}. Is a quote missing, or one too much? Inside of "
                    'quotes it is written twice: "".'
                ) from error
            if any(cells):
                yield number, cells

    def _first_line(self) -> str:
        """Returns the next line that has anything in it.

        Raises:
            RunError: there is none.
        """
        while line := self._text.readline():
            self._above += 1
            if line.strip():
                return line
        raise RunError(f"{self._flag} is empty. It takes a header and rows.")

    def _positions(self, name: str, header: Sequence[str]) -> list[int]:
        """Returns where the header has a column, by its name or else nearly by it."""
        for like in (str, names.key):
            for one in filter(None, (name, _ALSO.get(name))):
                found = [
                    at for at, cell in enumerate(header) if like(cell) == like(one)
                ]
                if found:
                    return found
        return []

    def _position(self, name: str) -> int | None:
        found = self._positions(name, self._header)
        if len(found) == 1 or not (found or name in self._required):
            return found[0] if found else None
        header = _shown(self._separator.join(self._header))
        if found:
            raise RunError(
                f"{self._flag} has the column {name} {len(found)} times; its header is "
                f"{header}. Rename all but one."
            )
        missing = [x for x in self._required if not self._positions(x, self._header)]
        flags = " or name them (--id_column, --label_column)"
        named = flags if self._flag.startswith("--manifest") else ""
        raise RunError(
            f"{self._flag} has no column {' and no column '.join(missing)}; its header "
            f"is {header}. Rename the columns{named}."
        )


def _open(path: AnyPath, flag: str) -> TextIO:
    """Opens a text of a known encoding; all of its bytes are in memory."""
    try:
        data = io_errors.insist(path, path.read_bytes)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise RunError(f"{flag} is no file. Correct the path.") from error
    except OSError as error:
        raise RunError(
            f"{io_errors.shortened(flag)} cannot be read: {error.strerror}. Correct "
            "the path, or make it readable."
        ) from error
    encoding = next((e for mark, e in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        data.decode(encoding)
    except UnicodeDecodeError as error:
        raise RunError(f"{flag}{_fault(data, error)}") from error
    if encoding.startswith("utf-8") and b"\0" in data:
        raise RunError(
            f"{flag} is no text: line {_line(data, data.index(0))} has a zero byte. "
            "Save it as UTF-8."
        )
    return io.TextIOWrapper(io.BytesIO(data), encoding=encoding, newline="")


def _fault(data: bytes, error: UnicodeDecodeError) -> str:
    """Says where a text is not of its encoding, and what stands there."""
    if error.encoding.startswith("utf-16"):
        return f" is no whole UTF-16: {error.reason}. Save it as UTF-8."
    begin = max(data.rfind(end, 0, error.start) for end in (b"\n", b"\r")) + 1
    line = data[begin:].splitlines()[0].decode("utf-8", "surrogateescape")
    latin = data[begin:].splitlines()[0].decode("latin-1")
    return (
        f" is not UTF-8: line {_line(data, error.start)} is {_shown(line)}, and would "
        f"be {_shown(latin)} in Latin-1. Save it as UTF-8: `iconv -f latin1 -t utf-8`."
    )


def _line(data: bytes, offset: int) -> int:
    above = data[:offset]
    return 1 + (above.count(b"\n") or above.count(b"\r"))


def _cells(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator, strict=True))
    except csv.Error:  # quotes that end elsewhere
        return [line.rstrip("\r\n")]


def _shown(text: str) -> str:
    return names.shown(text[:_SHOWN]) + ("…" if len(text) > _SHOWN else "")
