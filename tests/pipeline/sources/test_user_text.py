"""Texts of a user: encodings, line ends, separators; faults name line and content."""

from pathlib import Path

import pytest

from pipeline.sources import user_text
from pipeline.sources.user_text import Table
from pipeline.system.errors import RunError

ROWS = [["1", "café"], ["2", "x, y"]]
TEXT = 'id{0}label{0}more{1}1{0}café{0}{1}{1}{0}{0}{1}"2"{0}"x, y"{0}z{1}'
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be")
MARKS = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "text.csv"
    path.write_bytes(MARKS.get(encoding, b"") + text.encode(encoding))
    return path


def cells(path: Path) -> list[list[str]]:
    table = Table(path, "--x", required=("id", "label"), optional=("split",))
    assert not table.has("split")
    return [row[:2] for _, row in table.rows()]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(tmp_path: Path, encoding: str, end: str) -> None:
    assert cells(write(tmp_path, TEXT.format(",", end), encoding)) == ROWS
    lines = user_text.lines(write(tmp_path, f"a{end}é{end}", encoding), "--x")
    assert lines == ["a", "é"]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("above", ["", "\n\n", "sep={}\r\n", '"sep={}"\n'])
def test_separators(tmp_path: Path, separator: str, above: str) -> None:
    text = above.format(separator) + TEXT.format(separator, "\n")
    assert cells(write(tmp_path, text)) == ROWS


@pytest.mark.parametrize(
    "header",
    [
        "id,label",
        "ID,Label",
        " id , label",
        '"id","label"',
        "id,landmark_id",
        "Id,LABEL",
    ],
)
def test_columns_by_nearly_their_names(tmp_path: Path, header: str) -> None:
    assert cells(write(tmp_path, f"{header}\n1,x\n")) == [["1", "x"]]


def test_a_label_comes_before_what_may_stand_for_it(tmp_path: Path) -> None:
    path = write(tmp_path, "landmark_id,label,id\n5,x,1\n")
    assert cells(path) == [["1", "x"]]


def test_lines_are_counted_as_an_editor_does(tmp_path: Path) -> None:
    path = write(tmp_path, 'sep=,\n\nid,label\n\n1,"x\ny"\n\n2,z\n')
    table = Table(path, "--x", required=["id"])
    assert [number for number, _ in table.rows()] == [5, 8]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a\nb\ncaf\xe9\n", r"line 3 is '.*', and would be 'café' in Latin-1\. Save"),
        (b"a\rb\rcaf\xe9", "line 3 is"),
        (b"a\nb\0c\n", "line 2 has a zero byte"),
        (b"\xff\xfea", "is no whole UTF-16"),
        (b"a\0b\0", "is no text: line 1 has a zero byte"),
    ],
)
def test_what_is_no_text(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(RunError, match=f"--classes=x.*{message}"):
        user_text.lines(tmp_path / "x", "--classes=x")


@pytest.mark.parametrize("name", ["none", "n" * 300, "/".join(["n" * 200] * 30), "."])
def test_what_is_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        RunError, match=r"--x (is no file|cannot be read: File name too)"
    ):
        user_text.lines(tmp_path / name, "--x")
