"""Predictions read back: every id, class and number as written, or what is damaged."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.system.errors import RunError
from predictor.format import file_format, predictions_manifest, reader
from predictor.format.file_format import Format
from predictor.format.reader import DamagedFileError
from predictor.format.row_batch import RowBatch
from predictor.format.top_classes import best
from tests.support.predictions import edit, write_predictions

ODD = ["plain.jpg", "a, b.jpg", 'say "x".jpg', "two\nlines.jpg", "cr\r.jpg", "ü/é.jpg"]
ODD += ['"', '",', '"",\n"', "\r\n,", "", " ", "a\tb", "写真.jpg"]
ODD_CLASSES = ["a,b", 'c"d', "ë f", "id", " x ", "two\nlines", "null", '"', "7"]
FORMATS = [
    *(Format(compression=name) for name in file_format.COMPRESSIONS),
    *(Format(kind="top_k", top_k=2, compression=c) for c in file_format.COMPRESSIONS),
    *(Format(parquet=True), Format(kind="top_k", top_k=2, parquet=True)),
]
SUBMISSIONS = [
    Format(kind="submission", compression=c) for c in file_format.COMPRESSIONS
]
IDS = ["a.jpg", "b.jpg", "c.jpg"]
CLASSES = ["red", "green", "blue"]
VALUES = np.float32([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0.0625, 0.0625, 0.875]])
FILE = "predictions-00000-of-00001.csv"


def name_of(form: Format) -> str:
    return f"{form.kind}{form.extension}"


def read_all(folder: Path) -> RowBatch:
    """All rows of the only file."""
    predictions = reader.load(folder)
    (entry,) = predictions.files
    parts = list(reader.rows(predictions, entry))
    return RowBatch(
        [image_id for part in parts for image_id in part.ids],
        None if parts[0].classes is None else [n for p in parts for n in p.classes],
        np.concatenate([part.probabilities for part in parts]),
    )


def any_float32(rows: int, classes: int, seed: int) -> np.ndarray:
    """Finite numbers of every magnitude from 0 on, denormal ones among them."""
    bits = np.random.default_rng(seed).integers(0, 0x7F800000, (rows, classes), "u4")
    return bits.view(np.float32)


def assert_same_bits(found: np.ndarray, written: np.ndarray) -> None:
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.uint32), written.view(np.uint32))


# -------------------------------------------------------------------------- whole


@pytest.mark.parametrize("form", FORMATS, ids=name_of)
def test_odd_names_and_every_magnitude_survive(form: Format, tmp_path: Path) -> None:
    values = any_float32(len(ODD), len(ODD_CLASSES), seed=1)
    folder = write_predictions(tmp_path / "p", form, ODD_CLASSES, [(ODD, values)])
    found = read_all(folder)
    assert found.ids == ODD
    if form.kind == "probabilities":
        assert reader.classes(reader.load(folder)) == tuple(ODD_CLASSES)
        assert found.classes is None
        assert_same_bits(found.probabilities, values)
    else:
        labels = best(values, 2)
        assert found.classes == [[ODD_CLASSES[n] for n in row] for row in labels]
        assert_same_bits(found.probabilities, np.take_along_axis(values, labels, 1))


@pytest.mark.parametrize("form", FORMATS, ids=name_of)
def test_wide_rows_read_back_bit_for_bit(form: Format, tmp_path: Path) -> None:
    names = [str(n) for n in range(3_001)]
    values = any_float32(20, len(names), seed=2)
    values[3, 5] = np.float32(7.038531e-26)
    ids = [f"{n}.jpg" for n in range(len(values))]
    found = read_all(write_predictions(tmp_path / "p", form, names, [(ids, values)]))
    if form.kind == "top_k":
        values = -np.sort(-values, axis=1)[:, :2]
    assert_same_bits(found.probabilities, np.ascontiguousarray(values))


@pytest.mark.parametrize("form", FORMATS, ids=name_of)
def test_many_rows_come_in_parts(form: Format, tmp_path: Path) -> None:
    ids = [f"{n}\n.jpg" for n in range(5_000)]
    values = any_float32(len(ids), 3, seed=3)
    folder = write_predictions(tmp_path / "p", form, CLASSES, [(ids, values)])
    predictions = reader.load(folder)
    parts = list(reader.rows(predictions, predictions.files[0]))
    assert [len(part.ids) for part in parts] == [4_096, 904]
    assert [image_id for part in parts for image_id in part.ids] == ids
    if form.kind == "probabilities":
        assert_same_bits(np.concatenate([p.probabilities for p in parts]), values)


@pytest.mark.parametrize("form", [Format(), Format(parquet=True)], ids=name_of)
def test_no_more_numbers_than_fit_a_few_megabytes(form: Format, tmp_path: Path) -> None:
    values = any_float32(60, 100_000, seed=5)
    names = [str(n) for n in range(values.shape[1])]
    ids = [f"{n}.jpg" for n in range(len(values))]
    folder = write_predictions(tmp_path / "p", form, names, [(ids, values)])
    predictions = reader.load(folder)
    parts = list(reader.rows(predictions, predictions.files[0]))
    assert max(part.probabilities.nbytes for part in parts) <= 4 * (4 << 20)
    assert_same_bits(np.concatenate([p.probabilities for p in parts]), values)


@pytest.mark.parametrize("form", [*FORMATS, *SUBMISSIONS], ids=name_of)
def test_a_file_without_rows(form: Format, tmp_path: Path) -> None:
    """All its images were rejected."""
    parts = [([], np.empty((0, 3), np.float32))]
    folder = write_predictions(tmp_path / "p", form, CLASSES, parts)
    predictions = reader.load(folder)
    assert list(reader.rows(predictions, predictions.files[0])) == []


@pytest.mark.parametrize("form", SUBMISSIONS, ids=name_of)
def test_a_submission(form: Format, tmp_path: Path) -> None:
    """Class names have blanks, too."""
    values = any_float32(len(ODD), len(ODD_CLASSES), seed=4)
    folder = write_predictions(tmp_path / "p", form, ODD_CLASSES, [(ODD, values)])
    found = read_all(folder)
    assert found.ids == ODD
    assert found.classes == [[ODD_CLASSES[n]] for n in values.argmax(axis=1)]
    assert_same_bits(found.probabilities, values.max(axis=1, keepdims=True))


def test_a_submission_that_knows_nothing_of_an_id(tmp_path: Path) -> None:
    form = Format(kind="submission")
    folder = write_predictions(tmp_path / "p", form, CLASSES, [(IDS, VALUES)])
    rewrite(folder, lambda text: text.replace("green 0.75", ""))
    found = read_all(folder)
    assert found.classes == [["red"], [], ["blue"]]
    assert found.probabilities.tolist() == [[0.5], [0], [0.875]]


def test_the_one_float32_that_rounds_twice(tmp_path: Path) -> None:
    """Its shortest text is nearest to a float64 between it and the next float32."""
    number = np.uint32(0x15AE43FD).view(np.float32)
    assert np.float32(float("7.038531e-26")) != number  # by way of float64
    values = np.array([[number, number]])
    folder = write_predictions(tmp_path / "p", Format(), ["a", "b"], [(["x"], values)])
    assert b"7.038531e-26" in (folder / FILE).read_bytes()
    assert_same_bits(read_all(folder).probabilities, values)


@pytest.mark.slow
def test_every_float32_from_0_to_1_reads_back_exactly(tmp_path: Path) -> None:
    rows, step = 64, 1 << 23
    names = [str(number) for number in range(step // rows)]
    for first in range(0, 0x3F800001, step):
        bits = np.arange(first, first + step, dtype=np.uint32).clip(max=0x3F800000)
        values = bits.view(np.float32).reshape(rows, -1)
        ids = [str(row) for row in range(rows)]
        folder = tmp_path / str(first)
        write_predictions(folder, Format(), names, [(ids, values)])
        assert_same_bits(read_all(folder).probabilities, values)
        shutil.rmtree(folder)


# ------------------------------------------------------------------------- damage


def rewrite(folder: Path, change: Callable[[str], str]) -> None:
    """Changes the only file, a plain CSV, and has predictions.json promise its length.

    Raises:
        AssertionError: that changes nothing.
    """
    path = folder / FILE
    before = path.read_bytes().decode()
    after = change(before)
    assert after != before
    path.write_bytes(after.encode())
    length = len(after.encode())
    edit(folder, lambda value: value["files"][0].update(bytes=length))


FEW, MANY = r"Row #2: Expected 4 columns, got 3", r"Row #2: Expected 4 columns, got 5"
PROBABILITIES: dict[str, tuple[Callable[[str], str], str]] = {
    "a row less": (lambda t: t[: t.index("c.jpg")], "has 2 rows, .* promises 3"),
    "a row more": (lambda t: f"{t}d,1,0,0\n", "has 4 rows, .* promises 3"),
    "an empty line": (lambda t: t.replace("c.jpg", "\nc.jpg"), "Row #3: .* value ''"),
    "a number less": (lambda t: t.replace(",0.75", ""), FEW),
    "a number more": (lambda t: t.replace("0.75", "1,0.75"), MANY),
    "an empty field": (lambda t: t.replace("0.75", ""), "Row #2: .* invalid value ''"),
    "null": (lambda t: t.replace("0.75", "null"), "Row #2: .* invalid value 'null'"),
    "a word": (lambda t: t.replace("0.875", "xyz"), "#3: Row #3: .* value 'xyz'"),
    "a list": (lambda t: t.replace("0.75", "[0.75]"), r"invalid value '\[0\.75\]'"),
    "a blank": (lambda t: t.replace("0.75", "0 .75"), "invalid value '0 .75'"),
    "an open quote": (lambda t: t.replace("b.jpg", '"b.jpg'), "Row #2: Expected 4 col"),
    "another class": (lambda t: t.replace("green", "grey"), "header has other classes"),
    "a class less": (lambda t: t.replace(",green", ""), "'count': 2.*'count': 3"),
    "swapped classes": (lambda t: t.replace("red,green", "green,red"), "other classes"),
    "another column": (lambda t: t.replace("id,", "ID,"), "its header is 'ID', 'red'"),
    "no header": (lambda t: t[t.index("\n") + 1 :], "its header is 'a.jpg', '0.5'"),
    "no content": (lambda t: "", "its header is , not 'id'"),
}
TOP_K: dict[str, tuple[Callable[[str], str], str]] = {
    "a row less": (lambda t: t[: t.index("c.jpg")], "has 2 rows, .* promises 3"),
    "a field less": (lambda t: t.replace(",0.75", ""), "Row #2: Expected 5 columns, g"),
    "a field more": (lambda t: t.replace("0.75", "1,0.75"), "Row #2: Expected 5 colum"),
    "a word": (lambda t: t.replace("0.75", "x"), "Row #2: .* invalid value 'x'"),
    "an open quote": (lambda t: t.replace("c.jpg", '"c.jpg'), "Row #3: Expected 5 col"),
    "another k": (lambda t: t.replace("_2", "_3"), r"its header is 'id', 'class_1'"),
}
SUBMISSION: dict[str, tuple[Callable[[str], str], str]] = {
    "a field more": (lambda t: t.replace("red ", "red,"), "Expected 2 columns, got 3"),
    "no probability": (lambda t: t.replace(" 0.75", ""), "string: 'green' as a scalar"),
    "another column": (lambda t: t.replace("marks", "mark"), "not 'id', 'landmarks'"),
}
DAMAGE = [
    pytest.param(form, *case, id=f"{form.kind}: {what}")
    for form, cases in (
        (Format(), PROBABILITIES),
        (Format(kind="top_k", top_k=2), TOP_K),
        (Format(kind="submission"), SUBMISSION),
    )
    for what, case in cases.items()
]


@pytest.mark.parametrize(("form", "change", "message"), DAMAGE)
def test_damaged_text(
    form: Format, change: Callable[[str], str], message: str, tmp_path: Path
) -> None:
    folder = write_predictions(tmp_path / "p", form, CLASSES, [(IDS, VALUES)])
    rewrite(folder, change)
    with pytest.raises(DamagedFileError, match=message) as caught:
        read_all(folder)
    said = str(caught.value)
    assert said.startswith(f"{folder / FILE}: ")
    assert said.endswith("run the same `make predict` again.")


def test_an_id_that_is_not_utf8(tmp_path: Path) -> None:
    folder = write_predictions(tmp_path / "p", Format(), CLASSES, [(IDS, VALUES)])
    content = (folder / FILE).read_bytes().replace(b"b.jpg", b"\xff.jpg")
    (folder / FILE).write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"Row #2: .* invalid UTF8 data"):
        read_all(folder)


def test_the_row_of_the_damage_is_named(tmp_path: Path) -> None:
    ids = [f"{n}.jpg" for n in range(5_000)]
    values = any_float32(len(ids), 3, seed=3)
    folder = write_predictions(tmp_path / "p", Format(), CLASSES, [(ids, values)])
    rewrite(folder, lambda text: text.replace("4998.jpg,", "4998.jpg,x"))
    with pytest.raises(DamagedFileError, match=r"Row #4999: .* invalid value 'x"):
        read_all(folder)


@pytest.mark.parametrize("form", [*FORMATS, *SUBMISSIONS], ids=name_of)
@pytest.mark.parametrize("cut", [1, 9, 60])
def test_a_cut_file(form: Format, cut: int, tmp_path: Path) -> None:
    """Told by its length."""
    folder = write_predictions(tmp_path / "p", form, CLASSES, [(IDS, VALUES)])
    name = predictions_manifest.shard_name(0, 1, form.extension)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-cut])
    with pytest.raises(DamagedFileError, match=rf"has \d+ bytes, .* {len(content)}"):
        read_all(folder)


@pytest.mark.parametrize("form", FORMATS, ids=name_of)
def test_flipped_bits_are_found_or_harmless(form: Format, tmp_path: Path) -> None:
    """Whatever breaks is said to be damage; nothing else is raised."""
    folder = write_predictions(tmp_path / "p", form, CLASSES, [(IDS, VALUES)])
    path = folder / predictions_manifest.shard_name(0, 1, form.extension)
    content = path.read_bytes()
    predictions = reader.load(folder)
    rng = np.random.default_rng(0)
    found = 0
    for position in rng.integers(len(content), size=150):
        broken = bytearray(content)
        broken[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(broken)
        try:
            list(reader.rows(predictions, predictions.files[0]))
        except DamagedFileError as error:
            assert error.path == path  # noqa: PT017 (most of them raise, not all)
            found += 1
    assert found > 20


def test_a_missing_file(tmp_path: Path) -> None:
    folder = write_predictions(tmp_path / "p", Format(), CLASSES, [(IDS, VALUES)])
    (folder / FILE).unlink()
    with pytest.raises(DamagedFileError, match=f"{FILE}: is missing"):
        read_all(folder)
    with pytest.raises(DamagedFileError, match=f"{FILE}: is missing"):
        reader.classes(reader.load(folder))


def test_parquet_of_other_columns(tmp_path: Path) -> None:
    def replace(**columns: pa.Array) -> None:
        table = pa.table(
            {"id": pa.array(IDS), "probabilities": lists(VALUES), **columns}
        )
        names = {"classes": json.dumps(columns.pop("classes", CLASSES))}
        pq.write_table(table.replace_schema_metadata(names), path)
        length = path.stat().st_size
        edit(folder, lambda value: value["files"][0].update(bytes=length))

    def lists(values: np.ndarray) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 3)

    form = Format(parquet=True)
    folder = write_predictions(tmp_path / "p", form, CLASSES, [(IDS, VALUES)])
    path = folder / predictions_manifest.shard_name(0, 1, ".parquet")
    replace()
    assert read_all(folder).ids == IDS
    replace(probabilities=lists(VALUES.astype(np.float64)))
    with pytest.raises(
        DamagedFileError, match=r"probabilities' is .*double>\[3\], not"
    ):
        read_all(folder)
    gap = pa.array([[0.5, None, 0.5]] * 3, pa.list_(pa.float32(), 3))
    replace(probabilities=gap)
    with pytest.raises(DamagedFileError, match="'probabilities' has gaps"):
        read_all(folder)
    replace(id=pa.array(["a", None, "c"]))
    with pytest.raises(DamagedFileError, match="'id' has gaps"):
        read_all(folder)
    table = pq.read_table(path).replace_schema_metadata({"classes": '["a"]'})
    pq.write_table(table, path)
    edit(folder, lambda v: v["files"][0].update(bytes=path.stat().st_size))
    with pytest.raises(DamagedFileError, match="its header has other classes"):
        reader.classes(reader.load(folder))


@pytest.mark.parametrize("kind", ["probabilities", "top_k"])
def test_parquet_of_an_earlier_release(kind: str, tmp_path: Path) -> None:
    """Version 2 had a column for each class, or each rank."""
    form = Format(kind=kind, top_k=2, parquet=True)
    folder = write_predictions(tmp_path / "p", form, ODD_CLASSES[:3], [(IDS, VALUES)])
    path = folder / predictions_manifest.shard_name(0, 1, ".parquet")
    new = read_all(folder)
    columns, names = [pa.array(IDS)], ["id"]
    if kind == "probabilities":
        columns += [pa.array(column) for column in VALUES.T.copy()]
        names += ODD_CLASSES[:3]
    else:
        for n in range(2):
            columns.append(pa.array([row[n] for row in new.classes]))
            columns.append(pa.array(new.probabilities[:, n].copy()))
            names += [f"class_{n + 1}", f"probability_{n + 1}"]
    pq.write_table(pa.Table.from_arrays(columns, names), path)
    edit(folder, lambda v: v.update(version=2))
    edit(folder, lambda v: v["files"][0].update(bytes=path.stat().st_size))
    old = read_all(folder)
    assert (old.ids, old.classes) == (new.ids, new.classes)
    assert_same_bits(old.probabilities, new.probabilities)
    if kind == "probabilities":
        assert reader.classes(reader.load(folder)) == tuple(ODD_CLASSES[:3])


def test_damage_survives_the_way_from_another_process() -> None:
    error = pickle.loads(pickle.dumps(DamagedFileError(Path("x"), "is missing")))
    assert (error.path, error.problem) == (Path("x"), "is missing")
    assert str(error).startswith("x: is missing. Restore")


# --------------------------------------------------------------- predictions.json


def test_what_is_not_complete_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="p does not exist"):
        reader.load(tmp_path / "p")
    folder = write_predictions(tmp_path / "p", Format(), CLASSES, [(IDS, VALUES)])
    (folder / "predictions.json").unlink()
    with pytest.raises(
        RunError, match=r"is incomplete: .*the same `make predict` again"
    ):
        reader.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda value: value.update(version=1),
            "has version 1; this program reads 2 and 3",
        ),
        (lambda value: value.pop("version"), "has version None"),
        (lambda value: value.pop("files"), "damaged: KeyError: 'files'"),
        (lambda value: value.pop("ledger"), "damaged: KeyError: 'ledger'"),
        (lambda value: value.pop("images"), "damaged: KeyError: 'images'"),
        (lambda value: value.pop("top_k"), "damaged: KeyError: 'top_k'"),
        (lambda value: value.update(rows="3"), "rows is '3', not of type int"),
        (lambda value: value.update(model=None), "model is None, not of type str"),
        (lambda value: value.update(ledger=[]), "damaged: TypeError"),
        (lambda value: value.update(classes=3), "damaged: TypeError"),
        (lambda value: value.update(format="csv"), "format is 'csv'"),
        (lambda value: value.update(compression="xz"), "compression 'xz'"),
        (
            lambda value: value.update(parquet=True, compression="gzip"),
            "damaged: UsageError",
        ),
        (
            lambda value: value["ledger"].update(rejected=None),
            "ledger.rejected is None",
        ),
        (lambda value: value["files"][0].update(rows=True), "rows of .* is True"),
        (lambda value: value["files"][0].pop("crc32c"), "damaged: TypeError.*crc32c"),
        (lambda value: value["files"][0].update(more=1), "damaged: TypeError.*more"),
        (lambda value: value.update(files=["x"]), "damaged: TypeError"),
    ],
)
def test_a_damaged_manifest(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    folder = write_predictions(tmp_path / "p", Format(), CLASSES, [(IDS, VALUES)])
    edit(folder, change)
    with pytest.raises(RunError, match=message):
        reader.load(folder)


def test_classes_of_nothing(tmp_path: Path) -> None:
    folder = write_predictions(tmp_path / "p", Format(), CLASSES, [])
    with pytest.raises(RunError, match="has no file, and so no classes"):
        reader.classes(reader.load(folder))
