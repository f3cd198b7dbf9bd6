"""Every kind of row in every encoding: written, and read by those who know nothing."""

import csv
import gzip
import io
import json
from itertools import product
from pathlib import Path

import google_crc32c
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import zstandard

from pipeline.system.errors import UsageError
from predictor.format import file_format
from predictor.format.file_format import COMPRESSIONS, KINDS, Format, Output

IDS = [
    *("plain.jpg", "a, b.jpg", 'say "x".jpg', "two\nlines.jpg", "cr\r.jpg"),
    *("crlf\r\n.jpg", "ü/é/日本.jpg", " spaces .jpg", "'.jpg", "123", "x" * 5000),
    *("nan", "NA", "", "\N{ROCKET}", "a\tb", "\ufeff.jpg", "#1.jpg", "\\N"),
]
CLASSES = ["a,b", 'c"d', "ë f", "two\nlines", "cr\r", "1", "NA", "\N{ROCKET}"]
TOP = 3


def rows() -> np.ndarray:
    """Probabilities; the smallest and the largest numbers, and equal ones."""
    values = np.random.default_rng(0).random((len(IDS), len(CLASSES)), np.float32)
    values[1] = [0, 1, 1e-45, 1 / 3, 0.1, 3e-39, 1e-10, 0.5]
    values[2] = 1 / 8
    return values


def encode(format: Format, *, at_once: int = len(IDS)) -> bytes:
    file = io.BytesIO()
    output = Output(file)
    with file_format.table(format, CLASSES, output) as table:
        for start in range(0, len(IDS), at_once):
            part = slice(start, start + at_once)
            kept = rows()[part]
            table.write(IDS[part], kept)
            kept[:] = -1  # what was handed over may change now
    content = file.getvalue()
    assert output.length == len(content)
    assert output.crc32c == google_crc32c.Checksum(content).hexdigest().decode()
    return content


def decompress(content: bytes, compression: str) -> bytes:
    if compression == "gzip":
        return gzip.decompress(content)
    if compression == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(content)
    return content


def expected(kind: str) -> tuple[list[str], list[list[str | np.float32]]]:
    """The header and the rows, written another way."""
    if kind == "probabilities":
        body = [[name, *row] for name, row in zip(IDS, rows(), strict=True)]
        return ["id", *CLASSES], body
    order = np.argsort(-rows(), axis=1, kind="stable")
    body = []
    for name, row, labels in zip(IDS, rows(), order, strict=True):
        cells: list[str | np.float32] = [name]
        for label in labels[: TOP if kind == "top_k" else 1]:
            cells += [CLASSES[label], row[label]]
        body.append(cells)
    if kind == "submission":
        return ["id", "landmarks"], body
    header = ["id"]
    for rank in range(1, TOP + 1):
        header += [f"class_{rank}", f"probability_{rank}"]
    return header, body


def assert_rows(kind: str, header: list[str], body: list[list[str]]) -> None:
    wanted_header, wanted = expected(kind)
    if kind == "submission":  # `class probability`, in one field
        body = [[name, *text.rsplit(" ", 1)] for name, text in body]
    assert header == wanted_header
    assert len(body) == len(wanted)
    for ours, theirs in zip(body, wanted, strict=True):
        typed = [
            np.float32(one) if isinstance(other, np.float32) else one
            for one, other in zip(ours, theirs, strict=True)
        ]
        assert typed == theirs


CSVS = list(product(KINDS, COMPRESSIONS))


@pytest.mark.parametrize(("kind", "compression"), CSVS)
@pytest.mark.parametrize("at_once", [1, 5, len(IDS)])
def test_csv_by_the_csv_module(kind: str, compression: str, at_once: int) -> None:
    format = Format(kind=kind, top_k=TOP, compression=compression)
    text = decompress(encode(format, at_once=at_once), compression).decode()
    assert text.endswith("\n")
    header, *body = csv.reader(io.StringIO(text, newline=""))
    assert_rows(kind, header, body)


@pytest.mark.parametrize(("kind", "compression"), CSVS)
def test_csv_by_pandas(kind: str, compression: str, tmp_path: Path) -> None:
    """Which knows the compression by the extension."""
    format = Format(kind=kind, top_k=TOP, compression=compression)
    path = tmp_path / f"x{format.extension}"
    path.write_bytes(encode(format))
    options = {"dtype": str, "keep_default_na": False, "lineterminator": "\n"}
    frame = pd.read_csv(path, **options)
    assert_rows(kind, list(frame.columns), frame.to_numpy().tolist())


def test_csv_by_pyarrow() -> None:
    content = encode(Format())
    types = {name: pa.string() for name in ["id", *CLASSES]}
    table = pyarrow.csv.read_csv(
        io.BytesIO(content),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=types, strings_can_be_null=False
        ),
    )
    body = [list(row.values()) for row in table.to_pylist()]
    assert_rows("probabilities", table.column_names, body)


@pytest.mark.parametrize("kind", ["probabilities", "top_k"])
@pytest.mark.parametrize("at_once", [1, 5, len(IDS)])
def test_parquet(kind: str, at_once: int) -> None:
    content = encode(Format(kind=kind, top_k=TOP, parquet=True), at_once=at_once)
    table = pq.read_table(io.BytesIO(content))
    _, body = expected(kind)
    numbers = "fixed_size_list<element: float>"
    types = [str(field.type) for field in table.schema]
    assert json.loads(table.schema.metadata[b"classes"]) == CLASSES
    if kind == "probabilities":
        assert table.column_names == ["id", "probabilities"]
        assert types == ["string", f"{numbers}[{len(CLASSES)}]"]
        rows = [[row["id"], *row["probabilities"]] for row in table.to_pylist()]
    else:
        assert table.column_names == ["id", "classes", "probabilities"]
        names = f"fixed_size_list<element: string>[{TOP}]"
        assert types == ["string", names, f"{numbers}[{TOP}]"]
        rows = []
        for row in table.to_pylist():
            pairs = zip(row["classes"], row["probabilities"], strict=True)
            rows.append([row["id"], *(cell for pair in pairs for cell in pair)])
    assert rows == body


def test_large_parquet_has_groups_of_rows() -> None:
    """It is not kept in memory as a whole."""
    classes = [str(n) for n in range(4096)]
    file = io.BytesIO()
    values = np.random.default_rng(0).random((512, 4096), np.float32)
    with file_format.table(Format(parquet=True), classes, Output(file)) as table:
        for number in range(10):
            table.write([f"{number}/{n}" for n in range(512)], values)
    content = pq.ParquetFile(file)
    assert content.num_row_groups == 2
    assert content.metadata.num_rows == 5120
    last = content.read_row_group(1)
    assert last["id"][-1].as_py() == "9/511"
    numbers = last["probabilities"].combine_chunks().flatten().to_numpy()
    np.testing.assert_array_equal(numbers.reshape(-1, 4096)[-512:], values)


EVERY = [Format(kind=kind, compression=name) for kind, name in CSVS] + [
    Format(kind=kind, parquet=True) for kind in ("probabilities", "top_k")
]


def ids(format: Format) -> str:
    return f"{format.kind}{format.extension}"


@pytest.mark.parametrize("format", EVERY, ids=ids)
def test_the_same_rows_are_the_same_bytes(
    format: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = encode(format)
    monkeypatch.setattr("time.time", lambda: 2e9)  # later
    assert encode(format) == first
    if format.compression == "gzip":
        assert first[3:8] == bytes(5)  # neither a name nor a time


@pytest.mark.parametrize("format", EVERY, ids=ids)
def test_a_file_without_rows(format: Format, tmp_path: Path) -> None:
    path = tmp_path / f"x{format.extension}"
    with (
        path.open("wb") as file,
        file_format.table(format, ["a", "b", "c", "d", "e"], Output(file)),
    ):
        pass
    frame = pd.read_parquet(path) if format.parquet else pd.read_csv(path)
    columns = {"probabilities": 6, "top_k": 11, "submission": 2}
    if format.parquet:
        columns = {"probabilities": 2, "top_k": 3}
    assert frame.shape == (0, columns[format.kind])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parquet": True, "compression": "gzip"}, "leave out --compression"),
        ({"parquet": True, "kind": "submission"}, "is a CSV; leave out --parquet"),
    ],
)
def test_what_does_not_go_together(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Format(**options)


def test_more_than_all_classes() -> None:
    Format(kind="top_k", top_k=3).check(["a", "b", "c"])
    Format(top_k=4).check(["a", "b", "c"])  # it is of no use there, and of no harm
    with pytest.raises(UsageError, match="--top_k=4, and MODEL has 3 classes; use"):
        Format(kind="top_k", top_k=4).check(["a", "b", "c"])


@pytest.mark.parametrize("format", EVERY, ids=ids)
def test_a_key_is_its_format(format: Format) -> None:
    assert file_format.of_key(format.key()) == format
    assert Format(top_k=9).key() == Format().key()
