"""checkpoint/: everything that decides what happens next.

state.npz       weights, optimizer, progress, and the key of the run
dataset.json    DATASET's, as it was when the run began: images may be added to it
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pipeline.dataset import manifest
from pipeline.dataset.manifest import Dataset
from pipeline.storage import atomic
from pipeline.storage.resumable_folder import difference
from pipeline.system import io_errors
from pipeline.system.errors import RunError
from trainer.training.loop import Trained

_NOTHING = Trained()
_DAMAGE = (OSError, ValueError, KeyError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Attributes:
        epoch: how many are done, validation and all.
        trained: of the epoch after these.
        best_val_loss: of all epochs so far; infinite before the first.
        stream: seed of the order of the images, and of their augmentations.
    """

    stream: int
    epoch: int = 0
    trained: Trained = _NOTHING
    best_val_loss: float = float("inf")


def save(
    path: Path,
    model: keras.Model,
    optimizer: keras.Optimizer,
    progress: Progress,
    key: Mapping[str, Any],
) -> None:
    """Commits the state of a run as one NumPy archive.

    Raises:
        RunError: a weight is not finite; the state that is there stays.
    """
    arrays: dict[str, Any] = _arrays("model", model) | _arrays("optimizer", optimizer)
    _refuse_broken(arrays)
    facts = json.dumps({"key": key, "progress": asdict(progress)})
    with atomic.commit(path) as file:
        np.savez(file, facts=np.array(facts), **arrays)


def read(path: Path) -> tuple[dict[str, Any], Progress | None]:
    """Returns the key of a saved state, and its progress; nothing without one.

    Raises:
        RunError: the file is damaged.
    """
    if not path.is_file():
        return {}, None

    def load() -> Any:
        with np.load(path) as arrays:
            return json.loads(str(arrays["facts"]))

    try:
        facts = io_errors.insist(path, load)
    except _DAMAGE as error:
        raise RunError(_damaged(path, error)) from error
    values = facts["progress"]
    trained = values.pop("trained")
    sums = tuple(trained[1])
    return facts["key"], Progress(
        trained=Trained(trained[0], sums, *trained[2:]), **values
    )


def keep_dataset(path: Path, dataset: Dataset) -> None:
    """Keeps what DATASET is now; to be called before the first `save`.

    Args:
        path: of the state.
        dataset: of the run.
    """
    with atomic.commit(path.parent / manifest.MANIFEST) as file:
        file.write(dataset.text)


def dataset_as_begun(path: Path, dataset: Dataset) -> Dataset:
    """Returns DATASET as it was when the run of a saved state began.

    Where nothing was added since, or where it is another DATASET, which the key of the
    run refuses, it is returned as it is.

    Args:
        path: of the state.
        dataset: as it is now.
    """
    begun, kept = read(path)[0].get("dataset"), path.parent / manifest.MANIFEST
    if begun is None or begun == dataset.fingerprint or not kept.is_file():
        return dataset
    text = io_errors.insist(kept, kept.read_bytes)
    if hashlib.sha256(text).hexdigest() != begun:
        return dataset
    return manifest.before_growth(dataset, text) or dataset


def check(path: Path, key: Mapping[str, Any]) -> None:
    """Refuses the state of a run that `key` does not describe.

    Raises:
        RunError: with the first difference.
    """
    earlier, progress = read(path)
    if progress and (different := difference(earlier, key)):
        if "dropout_masks" not in earlier:  # without dropout it may go on
            raise RunError(
                f"{path.parent.parent} was begun by release 0.1, and is not finished: "
                f"{different}. Finish it with that release, or name another MODEL "
                "folder."
            )
        raise RunError(
            f"{path.parent.parent} belongs to another run: {different}. Use the "
            "values of that run, or another MODEL folder."
        )


def restore(
    path: Path, model: keras.Model, optimizer: keras.Optimizer | None = None
) -> None:
    """Puts saved weights back, and with an optimizer its state, too.

    Raises:
        RunError: the file is damaged.
    """

    def load() -> None:
        with np.load(path) as arrays:
            _assign("model", model, arrays)
            if optimizer:
                _assign("optimizer", optimizer, arrays)

    try:
        io_errors.insist(path, load)
    except _DAMAGE as error:
        raise RunError(_damaged(path, error)) from error


def _arrays(name: str, owner: Any) -> dict[str, np.ndarray]:
    """Returns weights, moving statistics and seeds; or slots and counts."""
    return {f"{name}{i:04d}": v.numpy() for i, v in enumerate(owner.variables)}


def _assign(name: str, owner: Any, arrays: Mapping[str, np.ndarray]) -> None:
    for i, variable in enumerate(owner.variables):
        variable.assign(arrays[f"{name}{i:04d}"])


def _refuse_broken(arrays: Mapping[str, np.ndarray]) -> None:
    for value in arrays.values():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise RunError(
                "training diverged: a weight is no finite number any more. What was "
                "saved before is kept. Lower --learning_rate."
            )


def _damaged(path: Path, error: Exception) -> str:
    return (
        f"{path} is damaged ({error}). Restore it from a copy, or remove the MODEL "
        "folder and train again."
    )
