"""snapshot/: the model of every epoch that lowered the validation loss."""

import re
from pathlib import Path

import keras

from trainer import model

FOLDER = "snapshot"
_NAME = re.compile(r"(\d{3,})-(\d\.\d{5})\.keras")  # epoch and accuracy


def write(network: keras.Model, folder: Path, epoch: int, accuracy: float) -> None:
    """Commits `snapshot/{epoch:03d}-{accuracy:.5f}.keras` of MODEL."""
    (folder / FOLDER).mkdir(exist_ok=True)
    path = folder / FOLDER / f"{epoch:03d}-{accuracy:.5f}.keras"
    model.write_keras(network, path)


def forget_after(folder: Path, epoch: int) -> None:
    """Removes those of later epochs, whose state a kill forestalled."""
    for made, _, path in found(folder):
        if made > epoch:
            path.unlink()


def keep_newest(folder: Path, count: int) -> None:
    """Removes all but the newest: each is better than the one before it."""
    for _, _, path in found(folder)[:-count]:
        path.unlink()


def found(folder: Path) -> list[tuple[int, float, Path]]:
    """Lists epoch, accuracy and path of what `write` has made, by epoch.

    Other files in the folder are somebody's own.
    """
    named = (
        (_NAME.fullmatch(path.name), path) for path in (folder / FOLDER).glob("*.keras")
    )
    return sorted((int(name[1]), float(name[2]), path) for name, path in named if name)
