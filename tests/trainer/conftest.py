"""Fixtures of training: a run in this process."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.training import SHORT


@pytest.fixture(scope="session")
def run(tf) -> Callable[..., None]:
    """Trains MODEL; three epochs from random weights, with a seed, if not said."""
    from trainer import train
    from trainer.options import TrainOptions

    def run(dataset: Path, folder: Path, epochs: int = 3, **options: object) -> None:
        recipe = replace(options.pop("recipe", SHORT), epochs=epochs)
        if "extend" not in options:
            options = {"weights": "none", **options}
        settings = {"seed": 3, "cpu": True, **options}
        train.run(
            TrainOptions(dataset=dataset, model=folder, recipe=recipe, **settings)
        )

    return run
