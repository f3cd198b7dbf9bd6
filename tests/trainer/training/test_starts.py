"""Notes of the starts of a run: kept across starts, and never in the way."""

import json
from pathlib import Path

from trainer.training import starts

RUN = {"run": {"seed": 1}, "recipe": {"name": "demo"}, "devices": ["CPU:0"]}


def add(folder: Path, epoch: int) -> None:
    starts.add(folder, versions={"python": "3"}, epoch=epoch, step=0, **RUN)


def test_every_start_is_kept(tmp_path: Path) -> None:
    assert starts.read(tmp_path) == {}
    for epoch in (0, 3):
        add(tmp_path, epoch)
    value = starts.read(tmp_path)
    assert (value["run"], value["recipe"]) == (RUN["run"], RUN["recipe"])
    first, second = value["starts"]
    assert (first["epoch"], second["epoch"]) == (0, 3)
    assert first["time"] <= second["time"]
    assert first["cores"] >= 1
    assert first["processor"]
    assert [path.name for path in tmp_path.iterdir()] == [starts.FILE]


def test_a_damaged_one_stops_no_run(tmp_path: Path) -> None:
    (tmp_path / starts.FILE).write_text("{")
    add(tmp_path, 2)
    assert [start["epoch"] for start in starts.read(tmp_path)["starts"]] == [2]
    assert json.loads((tmp_path / starts.FILE).read_text())["run"] == RUN["run"]
