"""Flags of `python -m trainer`: DATASET → MODEL.

train   trains MODEL on DATASET (the verb of a command line without one)
doctor  tries out whether this node can train
curves  draws the history of MODEL
export  writes MODEL for TensorFlow Serving and for LiteRT
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from pipeline.dataset import shard_cache
from pipeline.storage import flag_paths, folder_lock
from pipeline.storage.object_paths import AnyPath
from pipeline.system import console, errors
from trainer.cache import policy
from trainer.options import CHECKPOINT, Options
from trainer.recipe import CHOICES, NO_AUGMENTATION, RECIPES, Recipe

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", None, "DATASET, as `make shards` makes it.")
flags.DEFINE_string("model", None, "Folder to make: MODEL.")
flags.DEFINE_enum("recipe", "article", sorted(RECIPES), "What to do.")
# Instead of the recipe's field of that name; see trainer/recipe.py.
INTEGERS = {
    "epochs": "May be raised later, unless the schedule is a cosine over them.",
    "batch_size": "Over all replicas.",
    "head_epochs": "That come first and train the head alone.",
    "steps_per_execution": "Training steps in one call of TensorFlow.",
    "accumulate": "Parts that a batch goes through the convolutions in.",
}
FLOATS = {
    "learning_rate": "Of the epochs after the head's.",
    "head_learning_rate": "Of the head's epochs.",
    "warmup_epochs": "Of the cosine schedule.",
    "label_smoothing": "Share of the target that is spread over all classes.",
    "class_weights": "Power of the inverse frequency; 0 is none.",
}
for name, what in INTEGERS.items():
    flags.DEFINE_integer(name, None, f"Instead of the recipe's. {what}")
for name, what in FLOATS.items():
    flags.DEFINE_float(name, None, f"Instead of the recipe's. {what}")
for name in ("trainable", "precision"):
    flags.DEFINE_enum(name, None, CHOICES[name], "Instead of the recipe's.")
flags.DEFINE_bool(
    "tf32",
    None,
    "Instead of the recipe's. GPUs since Ampere round the inputs of float32 "
    "convolutions and matrix products to 10 bits of mantissa, and are faster.",
)
flags.DEFINE_bool("jit", None, "Compile the frozen layers with XLA.")
flags.DEFINE_enum(
    "augmentation",
    "recipe",
    ("recipe", "none"),
    "Whether training images are augmented as the recipe says, or not at all. "
    "--cache=features needs recipes without augmentation, or none.",
)
FIELDS = (*INTEGERS, *FLOATS, "trainable", "precision", "tf32", "jit")
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
    policy.KINDS,
    "Kept from epoch to epoch: JPEGs (encoded), pixels (decoded), or what the frozen "
    "layers make of them (features); auto: what fits and pays.",
)
flags.DEFINE_string(
    "cache_dir",
    None,
    "Folder on a local disk, kept for later runs, for features, and for pixels that "
    "memory cannot hold. Without it MODEL/cache, removed when the run is complete.",
)
flags.DEFINE_enum(
    "feature_dtype",
    "float32",
    policy.FEATURE_DTYPES,
    "How --cache=features stores features. float32 is exact; float16 takes half of its "
    "space and uint8 a quarter, and both round.",
)
flags.DEFINE_integer(
    "virtual_devices", None, "Split the CPU into as many devices.", lower_bound=1
)
flags.DEFINE_bool("cpu", False, "Train on the CPU, even where there are GPUs.")
flags.DEFINE_enum(
    "all_reduce",
    "nccl",
    ("nccl", "hierarchical_copy", "reduce_to_one"),
    "How GPUs sum gradients.",
)
flags.DEFINE_float("save_minutes", 15, "Between two saves inside an epoch.")
flags.DEFINE_integer(
    "keep_snapshots", None, "How many, the best; without it all.", lower_bound=1
)
flags.DEFINE_float(
    "hang_minutes",
    30,
    "Minutes without any progress, in steps or in filling or checking a cache, after "
    "which the run is ended.",
)
flags.DEFINE_string(
    "shard_cache",
    None,
    "Folder for vgg16-shards-UID, where shards go that are fetched from a store. "
    "Default: the one for temporary files.",
)
flags.DEFINE_integer(
    "shard_cache_bytes",
    None,
    "That it holds at most. Default: a tenth of the free disk.",
    lower_bound=1,
)


def train(passed_on: Sequence[str]) -> None:
    """Trains MODEL on DATASET."""
    console.nothing_passed_on(passed_on)
    console.required(dataset=FLAGS.dataset, model=FLAGS.model)
    recipe = _recipe()
    folder = flag_paths.local_path(FLAGS.model, "model")
    with folder_lock.held(folder, notes=CHECKPOINT):  # a second run is told so at once
        from trainer import train  # here: TensorFlow takes seconds that --help need not

        train.run(
            _dataset(),
            folder,
            recipe=recipe,
            weights=str(flag_paths.local_path(FLAGS.weights, "weights")),
            options=Options(
                seed=FLAGS.seed,
                cache=FLAGS.cache,
                cache_folder=_local("cache_dir"),
                feature_dtype=FLAGS.feature_dtype,
                save_minutes=FLAGS.save_minutes,
                keep_snapshots=FLAGS.keep_snapshots,
                hang_minutes=FLAGS.hang_minutes,
                virtual_devices=FLAGS.virtual_devices,
                cpu=FLAGS.cpu,
                all_reduce=FLAGS.all_reduce,
            ),
        )


def doctor(passed_on: Sequence[str]) -> None:
    """Tries out whether this node can train."""
    console.nothing_passed_on(passed_on)
    from trainer.doctor import checks

    checks.run(
        _dataset() if FLAGS.dataset else None,
        _local("model"),
        _recipe(),
    )


def curves(passed_on: Sequence[str]) -> None:
    """Draws the history of MODEL."""
    console.nothing_passed_on(passed_on)
    console.required(model=FLAGS.model)
    from trainer import curves

    curves.run(flag_paths.local_path(FLAGS.model, "model"))


def export(passed_on: Sequence[str]) -> None:
    """Writes MODEL for TensorFlow Serving and for LiteRT."""
    console.nothing_passed_on(passed_on)
    console.required(model=FLAGS.model)
    from trainer.export import export_model

    export_model.run(flag_paths.local_path(FLAGS.model, "model"))


def _dataset() -> AnyPath:
    """Returns DATASET, and sets where shards of a store are fetched to."""
    shard_cache.cache_at(_local("shard_cache"), FLAGS.shard_cache_bytes)
    return flag_paths.path(FLAGS.dataset)


def _local(flag: str) -> Path | None:
    text = FLAGS[flag].value
    return flag_paths.local_path(text, flag) if text else None


def _recipe() -> Recipe:
    """Returns the recipe, with the fields that flags override."""
    given: dict[str, Any] = {
        name: FLAGS[name].value for name in FIELDS if FLAGS[name].present
    }
    if FLAGS.augmentation == "none":
        given["augmentation"] = NO_AUGMENTATION
    try:
        return dataclasses.replace(RECIPES[FLAGS.recipe], **given)
    except ValueError as error:
        raise errors.UsageError(str(error)) from error


VERBS = {
    "train": train,
    "curves": curves,
    "export": export,
    "doctor": doctor,
}

if __name__ == "__main__":
    sys.exit(
        console.main(
            VERBS,
            default="train",
            argv=sys.argv,
            about=__doc__ or "",
            moved={"bench": "python -m benchmarks input|features|accuracy"},
        )
    )
