"""DATASET → MODEL.

A model of one's own is trained on a DATASET by `keras.Model.fit`:

    from pipeline import dataset
    from trainer import for_training, for_validation, steps_per_epoch

    data = dataset.load("/scratch/dataset")
    model.fit(
        for_training(data, batch_size=64, seed=0),
        steps_per_epoch=steps_per_epoch(data, 64),
        validation_data=for_validation(data, batch_size=64),
        epochs=10,
    )

TensorFlow is imported with the first of these functions, not with this package.
"""

import importlib
from typing import TYPE_CHECKING, Any

from trainer.recipe import RECIPES, Recipe

if TYPE_CHECKING:
    from trainer.data.input_pipeline import (
        for_inference,
        for_training,
        for_validation,
        steps_per_epoch,
    )

__all__ = [
    "RECIPES",
    "Recipe",
    "for_inference",
    "for_training",
    "for_validation",
    "steps_per_epoch",
]


def __getattr__(name: str) -> Any:
    """Imports what needs TensorFlow when it is asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("trainer.data.input_pipeline"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
