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
from trainer.options import CHECKPOINT
from trainer.training.loop import Trained

_FORM = 2  # of the file; release 0.1 numbered the variables and named no form
_NOTHING = Trained()
_DAMAGE = (OSError, ValueError, KeyError, zipfile.BadZipFile)


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Where a run is: with the variables, all that decides what happens next.

    Attributes:
        key: what a run must have in common with this one to go on with it.
        stream: seed of the order of the images, and of their augmentations.
        epoch: how many are done, validation and all.
        trained: of the epoch after these.
        best_val_loss: of all epochs so far; infinite before the first.
        form: of the file; nothing but `key` is read of another.
    """

    key: Mapping[str, Any]
    stream: int
    epoch: int = 0
    trained: Trained = _NOTHING
    best_val_loss: float = float("inf")
    form: int | None = _FORM


def path_in(folder: Path) -> Path:
    """Returns where MODEL has the state of its run."""
    return folder / CHECKPOINT / "state.npz"


def save(
    path: Path, state: RunState, model: keras.Model, optimizer: keras.Optimizer
) -> None:
    """Commits the state of a run as one NumPy archive.

    Raises:
        RunError: a weight is not finite; the state that is there stays.
    """
    arrays: dict[str, Any] = {
        name: variable.numpy() for name, variable in _named(model, optimizer).items()
    }
    _refuse_broken(arrays)
    with atomic.commit(path) as file:
        np.savez(file, state=np.array(json.dumps(asdict(state))), **arrays)


def read(path: Path) -> RunState | None:
    """Returns a saved state, without its variables; None where there is none.

    Raises:
        RunError: the file is damaged.
    """
    if not path.is_file():
        return None

    def load() -> dict[str, Any]:
        with np.load(path) as arrays:
            named = "state" if "state" in arrays else "facts"  # of release 0.1
            return json.loads(str(arrays[named]))

    try:
        values = io_errors.insist(path, load)
        if values.get("form") != _FORM:
            return RunState(key=values["key"], stream=0, form=values.get("form"))
        steps, sums, *seconds = values.pop("trained")
        return RunState(trained=Trained(steps, tuple(sums), *seconds), **values)
    except _DAMAGE as error:
        raise RunError(_damaged(path, error)) from error


def keep_dataset(path: Path, dataset: Dataset) -> None:
    """Keeps what DATASET is now; to be called before the first `save`.

    Args:
        path: of the state.
        dataset: of the run.
    """
    with atomic.commit(path.parent / manifest.MANIFEST) as file:
        file.write(dataset.text)


def dataset_as_begun(path: Path, earlier: RunState | None, dataset: Dataset) -> Dataset:
    """Returns DATASET as it was when the run of a saved state began.

    Where nothing was added since, or where it is another DATASET, which the key of the
    run refuses, it is returned as it is.

    Args:
        path: of the state.
        earlier: the state; None where no run has begun.
        dataset: as it is now.
    """
    kept = path.parent / manifest.MANIFEST
    if not earlier or earlier.key["dataset"] == dataset.fingerprint:
        return dataset
    text = io_errors.insist(kept, kept.read_bytes) if kept.is_file() else b""
    if hashlib.sha256(text).hexdigest() != earlier.key["dataset"]:
        return dataset
    return manifest.before_growth(dataset, text) or dataset


def check(earlier: RunState, key: Mapping[str, Any], folder: Path) -> None:
    """Refuses to go on with a run that `key` does not describe.

    Args:
        earlier: the state of that run.
        key: of this run.
        folder: MODEL.

    Raises:
        RunError: with the first difference.
    """
    if earlier.form != _FORM:
        release = "release 0.1" if earlier.form is None else "another release"
        raise RunError(
            f"{folder} was begun by {release}, and is not finished. Finish it with "
            "that release, or name another MODEL folder."
        )
    if different := difference(earlier.key, key):
        raise RunError(
            f"{folder} belongs to another run: {different}. Use the values of that "
            "run, or another MODEL folder."
        )


def restore(path: Path, model: keras.Model, optimizer: keras.Optimizer) -> None:
    """Puts the saved variables back.

    Raises:
        RunError: the file is damaged.
    """

    def load() -> None:
        with np.load(path) as arrays:
            for name, variable in _named(model, optimizer).items():
                variable.assign(arrays[name])

    try:
        io_errors.insist(path, load)
    except _DAMAGE as error:
        raise RunError(_damaged(path, error)) from error


def _named(model: keras.Model, optimizer: keras.Optimizer) -> dict[str, keras.Variable]:
    """Returns all variables by paths that are the same in every process.

    They are those of Keras, but for the seed of Dropout, whose path counts the seeds
    that a process has made.
    """
    return {
        f"{layer.name}/{variable.name}": variable
        for layer in model.layers
        for variable in layer.variables
    } | {variable.path: variable for variable in optimizer.variables}


def _refuse_broken(arrays: Mapping[str, np.ndarray]) -> None:
    for name, value in arrays.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise RunError(
                f"training diverged: {name} is no finite number any more. What was "
                "saved before is kept. Lower --learning_rate."
            )


def _damaged(path: Path, error: Exception) -> str:
    return (
        f"{path} is damaged ({error}). Restore it from a copy, or remove the MODEL "
        "folder and train again."
    )
