"""Flags of `python -m trainer`."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from pipeline import console
from trainer import cache
from trainer.recipe import RECIPES, Recipe

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", None, "DATASET, as `make shards` makes it.")
flags.DEFINE_string("model", None, "Folder to make: MODEL.")
flags.DEFINE_enum("recipe", "article", sorted(RECIPES), "What to do.")
flags.DEFINE_integer(
    "epochs", None, "Instead of the recipe's. May be raised later.", lower_bound=1
)
flags.DEFINE_integer(
    "batch_size", None, "Over all replicas. Instead of the recipe's.", lower_bound=1
)
flags.DEFINE_float("learning_rate", None, "Instead of the recipe's.", lower_bound=0)
flags.DEFINE_string(
    "weights", "imagenet", "Of the convolutions: imagenet, none, or a file's path."
)
flags.DEFINE_integer(
    "seed",
    None,
    "Makes the run deterministic.",
    lower_bound=0,
    upper_bound=2**31 - 1,
)
flags.DEFINE_enum(
    "cache",
    "auto",
    cache.KINDS,
    "Kept from epoch to epoch: JPEGs (encoded), or pixels (decoded); auto: what fits.",
)
flags.DEFINE_string(
    "cache_dir",
    None,
    "Folder on a local disk, kept for later runs, for pixels that memory cannot hold. "
    "Without it MODEL/cache, removed when the run is complete.",
)
flags.DEFINE_integer(
    "virtual_devices", None, "Split the CPU into as many devices.", lower_bound=1
)
flags.DEFINE_bool("cpu", False, "Train on the CPU, even where there are GPUs.")
flags.DEFINE_string("images", None, "Of bench: originals, as people read them.")
flags.DEFINE_string("output", "bench", "Of bench: folder for its results.")
flags.DEFINE_integer("repeats", 5, "Of bench: of every measurement.", lower_bound=1)


def train(passed_on: Sequence[str]) -> None:
    """Trains MODEL on DATASET."""
    console.nothing_passed_on(passed_on)
    console.required(dataset=FLAGS.dataset, model=FLAGS.model)
    recipe = _recipe()
    from trainer import train  # here: TensorFlow takes seconds that --help need not

    train.run(
        console.path(FLAGS.dataset),
        console.path(FLAGS.model),
        recipe=recipe,
        weights=str(console.path(FLAGS.weights)),
        seed=FLAGS.seed,
        cache_kind=FLAGS.cache,
        cache_folder=console.path(FLAGS.cache_dir) if FLAGS.cache_dir else None,
        virtual_devices=FLAGS.virtual_devices,
        cpu=FLAGS.cpu,
    )


def bench(passed_on: Sequence[str]) -> None:
    """Measures how fast this node feeds a model, and says who waits for whom."""
    console.nothing_passed_on(passed_on)
    console.required(dataset=FLAGS.dataset)
    recipe = _recipe()
    from trainer import benchmark

    benchmark.run(
        console.path(FLAGS.dataset),
        console.path(FLAGS.output),
        recipe=recipe,
        images=console.path(FLAGS.images) if FLAGS.images else None,
        repeats=FLAGS.repeats,
        virtual_devices=FLAGS.virtual_devices,
        cpu=FLAGS.cpu,
    )


def _recipe() -> Recipe:
    """The recipe, with the fields that flags override."""
    fields = ("epochs", "batch_size", "learning_rate")
    given: dict[str, Any] = {
        name: FLAGS[name].value for name in fields if FLAGS[name].present
    }
    try:
        return dataclasses.replace(RECIPES[FLAGS.recipe], **given)
    except ValueError as error:
        raise console.UsageError(str(error)) from error


VERBS = {"train": train, "bench": bench}

if __name__ == "__main__":
    sys.exit(console.main(VERBS, default="train", argv=sys.argv, about=__doc__ or ""))
