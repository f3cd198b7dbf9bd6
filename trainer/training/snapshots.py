"""snapshot/: the model of every epoch that lowered the validation loss."""

from pathlib import Path

import keras

from trainer import model

FOLDER = "snapshot"


def write(network: keras.Model, folder: Path, epoch: int, accuracy: float) -> None:
    """Commits `snapshot/{epoch:03d}-{accuracy:.5f}.keras` of MODEL."""
    (folder / FOLDER).mkdir(exist_ok=True)
    path = folder / FOLDER / f"{epoch:03d}-{accuracy:.5f}.keras"
    model.write_keras(network, path)


def forget_after(folder: Path, epoch: int) -> None:
    """Removes those of later epochs, whose state a kill forestalled."""
    for path in _all(folder):
        if _epoch(path) > epoch:
            path.unlink()


def keep_newest(folder: Path, count: int) -> None:
    """Removes all but the newest: each is better than the one before it."""
    for path in sorted(_all(folder), key=_epoch)[:-count]:
        path.unlink()


def _all(folder: Path) -> list[Path]:
    return list((folder / FOLDER).glob("[!.]*.keras"))  # no scratch files


def _epoch(path: Path) -> int:
    return int(path.name.partition("-")[0])
