"""The text of PREDICTIONS."""

import csv
import io

import numpy as np
import pandas as pd
import pytest

from pipeline.console import RunError
from predictor import csv_shards

ODD = ["plain.jpg", "a, b.jpg", 'say "x".jpg', "two\nlines.jpg", "cr\r.jpg", "ü/é.jpg"]


def text_of(ids: list[str], rows: np.ndarray, classes: list[str]) -> str:
    parts = csv_shards.lines([name.encode() for name in ids], rows)
    return (csv_shards.header(classes) + b"".join(parts)).decode()


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


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_broken_output_stops_and_names_the_images(bad: float) -> None:
    rows = np.full((3, 2), 0.5, np.float32)
    rows[1, 0] = bad
    with pytest.raises(RunError, match=r"not finite for 1 of 3 images: y\.jpg"):
        list(csv_shards.lines([b"x.jpg", b"y.jpg", b"z.jpg"], rows))


def test_shard_names() -> None:
    assert csv_shards.shard_name(7, 12) == "predictions-00007-of-00012.csv"
