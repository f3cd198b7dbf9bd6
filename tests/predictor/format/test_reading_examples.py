"""What docs/predictions.md says of reading PREDICTIONS is run."""

import json
from pathlib import Path

import numpy as np
import pytest

from predictor.format.file_format import Format
from tests.support.files import REPOSITORY
from tests.support.predictions import write_predictions

CLASSES = ["red", "green", "blue"]
VALUES = np.random.default_rng(0).random((5, 3), np.float32)
IDS = [f"{n}.jpg" for n in range(5)]


def examples() -> list[str]:
    """The indented blocks below the heading, without their indent."""
    text = (REPOSITORY / "docs" / "predictions.md").read_text()
    blocks = text.partition("## Read them")[2].split("\n\n")
    return [
        "\n".join(line.removeprefix("    ") for line in block.splitlines())
        for block in blocks
        if block.startswith("    ")
    ]


@pytest.mark.parametrize("example", examples(), ids=lambda text: text.split()[-1])
def test_an_example_reads_all_rows(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = Format(parquet="parquet" in example)
    parts = [(IDS[:2], VALUES[:2]), (IDS[2:], VALUES[2:])]
    write_predictions(tmp_path / "PREDICTIONS", form, CLASSES, parts)
    monkeypatch.chdir(tmp_path)
    assert len(example.splitlines()) == 3
    found: dict = {}
    exec(example, found)
    table = found["table"]
    if "pandas" not in example:
        table = table.to_pandas()
    if form.parquet:
        assert found.get("classes", CLASSES) == CLASSES
        values = found.get("values", np.stack(table["probabilities"]))
        assert list(table["id"]) == IDS
    else:
        table = table.reset_index() if "id" not in table else table
        assert list(table["id"]) == IDS
        values = table[CLASSES].to_numpy(np.float32)
    np.testing.assert_array_equal(values, VALUES)


def test_there_is_an_example_for_each_library_and_format() -> None:
    assert len(examples()) == 4
    assert json.dumps(examples()).count("pandas") == 2
