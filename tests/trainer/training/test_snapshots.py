"""snapshot/ of MODEL: what a run has made, and what somebody has put there."""

from pathlib import Path

import pytest

from trainer.training import snapshots

MADE = ["001-0.25000.keras", "003-0.50000.keras", "1000-1.00000.keras"]
OTHERS = ["best.keras", "003.keras", "notes-1.keras", ".scratch-3-0.50000.keras"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / snapshots.FOLDER).mkdir()
    for name in [*MADE, *OTHERS]:
        (tmp_path / snapshots.FOLDER / name).write_text("weights")
    return tmp_path


def names(model: Path) -> set[str]:
    return {path.name for path in (model / snapshots.FOLDER).iterdir()}


def test_those_of_the_run_are_found_by_epoch(model: Path) -> None:
    found = [(epoch, accuracy) for epoch, accuracy, _ in snapshots.found(model)]
    assert found == [(1, 0.25), (3, 0.5), (1000, 1.0)]


def test_files_of_others_stay(model: Path) -> None:
    snapshots.forget_after(model, 3)
    assert names(model) == {*MADE[:2], *OTHERS}
    snapshots.keep_newest(model, 1)
    assert names(model) == {MADE[1], *OTHERS}
