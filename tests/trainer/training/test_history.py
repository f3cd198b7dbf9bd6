"""history.csv."""

import csv
from pathlib import Path

from trainer.training import history

ROW = dict.fromkeys(history.COLUMNS, 0.5)


def test_rows_come_back(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    history.append(path, {**ROW, "epoch": 1, "val_loss": None})
    history.append(path, {**ROW, "epoch": 2, "loss": 1 / 3})
    first, second = history.read(path)
    assert (first["epoch"], first["val_loss"], first["loss"]) == (1, None, 0.5)
    assert abs(second["loss"] - 1 / 3) < 1e-7


def test_an_epoch_done_again_takes_the_place_of_what_followed(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    for epoch in (1, 2, 3):
        history.append(path, {**ROW, "epoch": epoch})
    history.append(path, {**ROW, "epoch": 2, "loss": 7.0})
    assert [(row["epoch"], row["loss"]) for row in history.read(path)] == [
        (1, 0.5),
        (2, 7.0),
    ]


def test_the_columns_are_those_that_others_rely_on(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    history.append(path, {**ROW, "epoch": 1})
    with path.open() as file:
        header = next(csv.reader(file))
    assert ",".join(header) == (
        "epoch,seconds,loss,accuracy,top5_accuracy,val_loss,val_accuracy,"
        "val_top5_accuracy,learning_rate,images_per_second,input_wait"
    )


def test_no_history_has_no_rows(tmp_path: Path) -> None:
    assert history.read(tmp_path / "history.csv") == []
