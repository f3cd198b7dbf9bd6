"""The text of CSV rows."""

import csv
import io

import numpy as np
import pandas as pd
import pytest

from predictor.format import csv_files

ODD = ["plain.jpg", "a, b.jpg", 'say "x".jpg', "two\nlines.jpg", "cr\r.jpg", "ü/é.jpg"]


def text_of(ids: list[str], rows: np.ndarray, classes: list[str]) -> str:
    header, lines = csv_files.probabilities(classes)
    return (header + b"".join(lines(ids, rows))).decode()


@pytest.mark.parametrize("reader", ["csv", "pandas"])
def test_odd_names_survive(reader: str) -> None:
    classes = ["a,b", 'c"d', "ë f"]
    rows = np.random.default_rng(0).random((len(ODD), 3), np.float32)
    text = text_of(ODD, rows, classes)
    if reader == "csv":
        header, *body = csv.reader(io.StringIO(text, newline=""))
        ids = [row[0] for row in body]
        numbers = [row[1:] for row in body]
    else:
        frame = pd.read_csv(io.BytesIO(text.encode()), lineterminator="\n", dtype=str)
        header, ids = list(frame.columns), list(frame.id)
        numbers = frame.iloc[:, 1:].to_numpy()
    assert header == ["id", *classes]
    assert ids == ODD
    np.testing.assert_array_equal(np.asarray(numbers, np.float32), rows)


def test_every_float32_reads_back_exactly() -> None:
    """All magnitudes, denormal numbers among them."""
    bits = np.random.default_rng(0).integers(0, 0x3F800001, 20_000, np.uint32)
    numbers = np.append(bits.view(np.float32), np.float32([0, 1, 1e-45, 1 / 3]))
    text = text_of(["x"], numbers[None], [str(i) for i in range(len(numbers))])
    fields = text.splitlines()[1].split(",")[1:]
    np.testing.assert_array_equal(np.array(fields, np.float32), numbers)
    assert "0.33333334" in fields


def test_rows_of_a_larger_array(tmp_path) -> None:
    """A view that is not contiguous."""
    rows = np.arange(12, dtype=np.float32).reshape(2, 6)[:, ::2]
    text = text_of(["x", "y"], rows, ["a", "b", "c"])
    assert text.splitlines()[1:] == ["x,0.0,2.0,4.0", "y,6.0,8.0,10.0"]


def test_the_best_classes_in_order() -> None:
    """Of equal ones the first; numbers as in the full row."""
    header, lines = csv_files.top_k(["a", "b,c", "d", "e"], 3)
    rows = np.float32([[0.25, 0.25, 0.1, 0.4], [0.7, 0.1, 0.1, 0.1]])
    text = (header + b"".join(lines(["x", "y"], rows))).decode()
    assert text.splitlines() == [
        "id,class_1,probability_1,class_2,probability_2,class_3,probability_3",
        'x,e,0.4,a,0.25,"b,c",0.25',
        'y,a,0.7,"b,c",0.1,d,0.1',
    ]


def test_a_submission_has_the_best_class() -> None:
    header, lines = csv_files.submission(["8815", "a,b"])
    rows = np.float32([[0.97, 0.03], [0.4, 0.6]])
    text = (header + b"".join(lines(["x", "y,z"], rows))).decode()
    assert text.splitlines() == ["id,landmarks", "x,8815 0.97", '"y,z","a,b 0.6"']
