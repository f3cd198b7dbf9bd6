"""Which run a MODEL folder holds: its key, and whether it is this one, and done."""

import dataclasses
from pathlib import Path
from typing import Any

from pipeline.dataset import manifest
from pipeline.dataset.manifest import Dataset
from pipeline.storage import atomic
from pipeline.storage.resumable_folder import difference
from pipeline.system.errors import RunError
from trainer import starting_weights
from trainer.cache.policy import CacheChoice
from trainer.contract import MANIFEST, read_contract
from trainer.options import CHECKPOINT, TrainOptions
from trainer.training import checkpoint
from trainer.training.checkpoint import RunState
from trainer.training.step import DROPOUT_MASKS


def of_run(
    dataset: Dataset,
    options: TrainOptions,
    choice: CacheChoice,
    earlier: RunState | None,
) -> dict[str, Any]:
    """Returns what a run must have in common with the run that it resumes."""
    recipe = options.recipe
    choices = dataclasses.asdict(recipe)
    if recipe.schedule != "cosine":
        del choices["epochs"]  # may be raised
    return {
        "image": dataset.image.pixels(),
        "classes": manifest.classes_entry(dataset.classes),
        "dataset": dataset.fingerprint,
        "recipe": choices,
        "weights": None if options.extend else starting_weights.name(options.start),
        "extend": _extend_key(options, earlier),
        "seed": options.seed,
        "dropout_masks": DROPOUT_MASKS if recipe.dropout else None,
        **choice.key(),
    }


def is_finished(
    folder: Path, key: dict[str, Any], epochs: int, dataset: Dataset
) -> bool:
    """Returns whether MODEL holds this run with as many epochs; refuses another's."""
    path = folder / MANIFEST
    if path.is_file():
        earlier = atomic.read_json(path)
        if different := difference(earlier["run"], key):
            raise RunError(
                f"MODEL {folder} belongs to another run: {different}. Use the values "
                f"of that run, or another MODEL folder{or_extend(folder, dataset)}."
            )
        return earlier["epochs"] >= epochs
    if checkpoint.path_in(folder).is_file():  # of which run, its content tells
        return False
    # Of a run that was killed before it saved, and of this one, which holds the lock.
    if any(path.name != CHECKPOINT for path in folder.iterdir()):
        raise RunError(
            f"MODEL {folder} is there already and no training run made it. Name a new "
            "or an empty folder."
        )
    return False


def growth_in_words(begun: Dataset, now: Dataset) -> str:
    """Returns in words what has come since a run began."""
    images = [
        sum(split.examples for split in one.splits.values()) for one in (begun, now)
    ]
    return (
        f"DATASET {now.folder} has grown since its training began: it had "
        f"{images[0]:,} images and {len(begun.classes):,} classes, and has "
        f"{images[1]:,} and {len(now.classes):,} now"
    )


def or_extend(folder: Path, dataset: Dataset) -> str:
    """Returns what else to do with a finished MODEL of other images."""
    before = atomic.read_json(folder / MANIFEST)["run"]
    first = dataset.classes[: before["classes"]["count"]]
    if before["dataset"] == dataset.fingerprint or (
        manifest.classes_entry(first) != before["classes"]
    ):
        return ""
    return f"; --extend={folder} starts one from this one"


def _extend_key(options: TrainOptions, earlier: RunState | None) -> str | None:
    """Names the MODEL of --extend by its content, wherever it lies.

    A run that goes on needs it no more: its weights are in the saved state.
    """
    if not options.extend:
        return None
    if earlier and earlier.key.get("extend") and not options.extend.exists():
        return str(earlier.key["extend"])
    return f"sha256:{read_contract(options.extend).fingerprint}"
