"""checkpoint/: everything that decides what happens next, saved after every epoch."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pipeline import files
from pipeline.console import RunError
from pipeline.workfolder import difference


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Attributes:
        epoch: how many are done.
        best_val_loss: of all epochs so far; infinite before the first.
    """

    epoch: int = 0
    best_val_loss: float = float("inf")


def save(
    path: Path,
    model: keras.Model,
    optimizer: keras.Optimizer,
    progress: Progress,
    key: Mapping[str, Any],
) -> None:
    """Commits the state of a run as one NumPy archive."""
    facts = json.dumps({"key": key, "progress": asdict(progress)})
    arrays: dict[str, Any] = {
        name: value.numpy() for name, value in _variables(model, optimizer)
    }
    with files.commit(path) as file:
        np.savez(file, facts=np.array(facts), **arrays)


def read_key(path: Path) -> dict[str, Any]:
    """The key of a saved state; without one, an empty key."""
    if not path.is_file():
        return {}
    with np.load(path) as arrays:
        return dict(json.loads(str(arrays["facts"]))["key"])


def restore(
    path: Path, model: keras.Model, optimizer: keras.Optimizer, key: Mapping[str, Any]
) -> Progress:
    """Puts back a saved state; without one, the state of a new run.

    Raises:
        RunError: the state is of a run that `key` does not describe.
    """
    if not path.is_file():
        return Progress()
    with np.load(path) as arrays:
        facts = json.loads(str(arrays["facts"]))
        if different := difference(facts["key"], key):
            raise RunError(
                f"{path.parent.parent} belongs to another run: {different}. Use the "
                "values of that run, or another MODEL folder."
            )
        for name, variable in _variables(model, optimizer):
            variable.assign(arrays[name])
    return Progress(**facts["progress"])


def _variables(
    model: keras.Model, optimizer: keras.Optimizer
) -> list[tuple[str, keras.Variable]]:
    """Weights, moving statistics, dropout seeds, velocities, the count of updates."""
    variables = [*model.variables, *optimizer.variables]
    return [(f"{i:04d}", variable) for i, variable in enumerate(variables)]
