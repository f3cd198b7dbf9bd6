"""Folders of release 0.1, made by its own code, in the programs of today."""

import csv
import shutil
from pathlib import Path

import pytest

from tests.support.files import tree
from tests.support.processes import Program

FOLDERS = Path(__file__).parents[1] / "testdata" / "release-0.1"
FINISHED, UNFINISHED = FOLDERS / "finished", FOLDERS / "unfinished"


def rows(folder: Path) -> list[list[str]]:
    """The rows of all files, in order, without their headers."""
    found = []
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="") as file:
            found += list(csv.reader(file))[1:]
    return found


def test_a_model_and_a_dataset_predict_what_they_did(
    program: Program, tmp_path: Path
) -> None:
    result = program(
        *("predictor", "predict", f"--model={FINISHED / 'model'}", "--cpu"),
        *(f"--dataset={FINISHED / 'dataset'}", f"--predictions={tmp_path / 'made'}"),
    )
    assert result.returncode == 0, result.stderr
    made, earlier = rows(tmp_path / "made"), rows(FINISHED / "predictions")
    assert [row[0] for row in made] == [row[0] for row in earlier]
    for row, before in zip(made, earlier, strict=True):
        numbers = [float(cell) for cell in before[1:]]
        assert [float(cell) for cell in row[1:]] == pytest.approx(numbers, abs=1e-5)


def test_predictions_are_verified(program: Program) -> None:
    result = program(
        *("predictor", "verify", f"--predictions={FINISHED / 'predictions'}"),
        f"--dataset={FINISHED / 'dataset'}",
    )
    assert result.returncode == 0, result.stderr
    assert "whole" in result.stdout


def test_predictions_are_evaluated(program: Program, tmp_path: Path) -> None:
    result = program(
        *("predictor", "evaluate", f"--dataset={FINISHED / 'dataset'}"),
        *(f"--predictions={FINISHED / 'validation-predictions'}",),
        *("--split=validation", f"--evaluation={tmp_path / 'evaluation'}"),
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "evaluation" / "evaluation.json").is_file()


def test_a_dataset_is_trained_on(program: Program, tmp_path: Path) -> None:
    result = program(
        *("trainer", "train", f"--dataset={FINISHED / 'dataset'}", "--cpu"),
        *(f"--model={tmp_path / 'model'}", "--recipe=demo", "--weights=none"),
        *("--epochs=1", "--batch_size=4"),
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "model" / "model.json").is_file()


@pytest.mark.parametrize("kind", ["dataset", "model", "predictions"])
def test_what_is_unfinished_is_refused_by_name(
    program: Program, tmp_path: Path, images: Path, kind: str
) -> None:
    folder = Path(shutil.copytree(UNFINISHED / kind, tmp_path / "begun"))
    before = tree(folder)
    data, model = f"--dataset={FINISHED / 'dataset'}", f"--model={FINISHED / 'model'}"
    words = {
        "dataset": ("pipeline", f"--images={images}", f"--dataset={folder}"),
        "model": ("trainer", data, f"--model={folder}", "--recipe=demo", "--cpu"),
        "predictions": ("predictor", data, model, f"--predictions={folder}", "--cpu"),
    }
    result = program(
        *words[kind], *(["--weights=none", "--batch_size=4"] if kind == "model" else [])
    )
    assert result.returncode == 1, result.stderr
    assert "begun was begun by release 0.1, and is not finished" in result.stderr
    assert "Finish it with that release" in result.stderr
    assert tree(folder) == before
