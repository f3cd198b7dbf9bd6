"""What predictions will take, said in advance."""

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.system import resources
from pipeline.system.errors import RunError
from predictor.format import file_format
from predictor.format.file_format import Format
from predictor.writing import size_estimate

FORMATS = [
    *(Format(), Format(compression="gzip"), Format(compression="zstd")),
    *(Format(parquet=True), Format(kind="top_k"), Format(kind="submission")),
]


@pytest.mark.parametrize("format", FORMATS, ids=lambda f: f"{f.kind}{f.extension}")
@pytest.mark.parametrize("classes", [10, 2000])
def test_it_is_about_what_is_written(
    format: Format, classes: int, tmp_path: Path
) -> None:
    """Of 1,000 rows of other probabilities, to 15 %."""
    names = [f"class {n}" for n in range(classes)]
    weights = np.random.default_rng(1).exponential(1, (1000, classes)) ** 8
    values = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    with (tmp_path / "file").open("wb") as file:
        output = file_format.Output(file)
        with file_format.table(format, names, output) as table:
            table.write([f"{n:022x}.jpg" for n in range(1000)], values)
    each, _ = size_estimate.sample(format, names)
    assert each * 1000 == pytest.approx(output.length, rel=0.15)


def test_little_is_not_worth_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size_estimate.announce(tmp_path, Format(), ["a", "b"], rows=100, writers=1)
    assert capsys.readouterr().out == ""


def test_much_is_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [str(n) for n in range(1000)]
    rows = resources.free_disk(tmp_path) // 2 // 14_000
    if rows * 13_000 < 1e9:
        pytest.skip("the disk is too small for much")
    size_estimate.announce(tmp_path, Format(), names, rows=rows, writers=2)
    said = capsys.readouterr().out
    assert f"{rows:,} rows of 1,000 classes take" in said
    assert "of 2 writing processes" in said
    assert "--format=top_k takes less" in said


@pytest.mark.parametrize(
    ("format", "advice"),
    [
        (Format(), "--format=top_k"),
        (Format(kind="top_k"), "--compression=zstd"),
        (Format(kind="top_k", compression="zstd"), "a smaller --top_k"),
    ],
)
def test_more_than_the_disk_holds(format: Format, advice: str, tmp_path: Path) -> None:
    """It need not exist yet."""
    rows = resources.free_disk(tmp_path) // 10
    with pytest.raises(RunError, match=f"GB free, and .* write less: {advice}"):
        size_estimate.announce(
            tmp_path / "not" / "yet", format, list("abcdefgh"), rows=rows, writers=1
        )
    assert os.listdir(tmp_path) == []
