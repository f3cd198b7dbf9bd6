"""The picture of a history."""

from pathlib import Path

import pytest
from PIL import Image

from pipeline.system.errors import RunError
from trainer import curves
from trainer.training import history

LOSSES = (2.0, 1.5, 1.2, 1.4, 1.5)


def rows(count: int, *, validated: bool = True) -> list[history.Row]:
    return [
        {
            "epoch": number + 1,
            "seconds": 3.0,
            "loss": 2.0 / (number + 1),
            "accuracy": 0.5,
            "top5_accuracy": 0.9,
            "val_loss": LOSSES[min(number, 4)] if validated else None,
            "val_accuracy": 0.4 if validated else None,
            "val_top5_accuracy": 0.8 if validated else None,
            "learning_rate": 1e-3 / 2**number,
            "images_per_second": 25.0,
            "input_wait": 0.25,
        }
        for number in range(count)
    ]


def lines(axes) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines}


def test_the_picture_shows_the_history() -> None:
    made = rows(5)
    loss, accuracy, rate, speed = curves.figure(made, title="run").axes
    assert lines(loss)["train"] == [row["loss"] for row in made]
    assert lines(loss)["validation"] == list(LOSSES)
    assert lines(accuracy)["validation, top 5"] == [80.0] * 5
    assert lines(rate)["learning rate"] == [row["learning_rate"] for row in made]
    assert lines(speed)["images/s"] == [25.0] * 5
    assert "25% of the time" in speed.get_title(loc="left")
    ring = loss.lines[-1]
    assert (list(ring.get_xdata()), list(ring.get_ydata())) == ([3], [1.2])


def test_axes_are_logarithmic_where_values_are_far_apart() -> None:
    short, long = (curves.figure(rows(n), title="run").axes[2] for n in (3, 10))
    assert (short.get_yscale(), long.get_yscale()) == ("linear", "log")


def test_in_words() -> None:
    assert curves.in_words(rows(5)) == (
        "lowest validation loss 1.2000 (accuracy 40.0%) in epoch 3, not lowered for 2 "
        "epochs"
    )
    assert curves.in_words(rows(3)).endswith("in epoch 3, the last so far")
    assert "no validation" in curves.in_words(rows(3, validated=False))


@pytest.mark.parametrize("count", [1, 500])
@pytest.mark.parametrize("validated", [True, False])
def test_the_same_history_is_the_same_file(
    tmp_path: Path, count: int, validated: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    history._write(folder / history.FILE, rows(count, validated=validated))
    curves.run(folder)
    first = (folder / curves.FILE).read_bytes()
    curves.run(folder)
    assert (folder / curves.FILE).read_bytes() == first
    assert Image.open(folder / curves.FILE).size == (1320, 840)
    assert f"{folder / curves.FILE}: " in capsys.readouterr().out


def test_no_history_yet(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no history\.csv with an epoch in it"):
        curves.run(tmp_path)
