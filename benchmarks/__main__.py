"""Flags of `python -m benchmarks`: figures for the docs and for those who change code.

    input        how fast this node feeds a model, by stage and beside other ways
    features     training from cached features beside training from pixels
    accuracy     validation accuracy from features of each dtype, over seeds
    shards       the shard job beside other ways to make the same small images
    predictions  how fast predictions are written, beside other ways

`shards` measures on the photos of IMAGES, the others on DATASET. What follows the first
`--` goes to Beam, for `shards` alone.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from pipeline.dataset.manifest import CHROMAS, RESIZES, SPLITS, ImageContract
from pipeline.storage import flag_paths
from pipeline.system import console, errors, resources
from trainer.recipe import CHOICES, RECIPES, Recipe

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", None, "DATASET, as `make shards` makes it.")
flags.DEFINE_string(
    "images", None, "Photos: what `shards` resizes; what `input` reads without shards."
)
flags.DEFINE_integer(
    "repeats",
    None,
    "Repetitions of every measurement. Default: 5 for input, else 3.",
    lower_bound=1,
)
flags.DEFINE_string("output", "bench", "Folder for tables, charts and JSON.")
flags.DEFINE_enum("recipe", "article", sorted(RECIPES), "Recipe of the model.")
flags.DEFINE_integer("batch_size", None, "Global batch size, in place of the recipe's.")
flags.DEFINE_enum(
    "precision", None, CHOICES["precision"], "Precision, in place of the recipe's."
)
flags.DEFINE_bool("jit", None, "Compile the frozen layers with XLA.")
flags.DEFINE_integer(
    "virtual_devices", None, "Split the CPU into as many devices.", lower_bound=1
)
flags.DEFINE_bool("cpu", False, "Use the CPU, even where there are GPUs.")
flags.DEFINE_enum("split", "test", SPLITS, "Split that `predictions` predicts.")
flags.DEFINE_integer("height", 150, "Rows of an image of `shards`.", lower_bound=1)
flags.DEFINE_integer("width", 200, "Columns of an image of `shards`.", lower_bound=1)
flags.DEFINE_enum("resize", "stretch", RESIZES, "Resize rule of `shards`.")
flags.DEFINE_integer(
    "quality", 90, "JPEG quality of `shards`.", lower_bound=1, upper_bound=100
)
flags.DEFINE_enum("chroma", "420", CHROMAS, "Colour subsampling of `shards`.")
flags.DEFINE_integer(
    "bench_images",
    3000,
    "Images of the large job of `shards`; the photos are repeated.",
    lower_bound=2,
)
flags.DEFINE_integer(
    "workers", resources.cores(), "Processes of `shards`.", lower_bound=1
)
flags.DEFINE_integer("seed", 0, "Seed that chooses the photos of `shards`.")


def input_pipeline(passed_on: Sequence[str]) -> None:
    """Measures how fast this node feeds a model."""
    console.nothing_passed_on(passed_on)
    console.required(dataset=FLAGS.dataset)
    from benchmarks.input import input_pipeline

    input_pipeline.run(
        flag_paths.path(FLAGS.dataset),
        flag_paths.local_path(FLAGS.output, "output"),
        images=_local("images"),
        repeats=FLAGS.repeats or 5,
        **_training(),
    )


def features(passed_on: Sequence[str]) -> None:
    """Measures what training from cached features saves."""
    console.nothing_passed_on(passed_on)
    console.required(dataset=FLAGS.dataset)
    from benchmarks.features import feature_training

    feature_training.run(
        flag_paths.path(FLAGS.dataset),
        flag_paths.local_path(FLAGS.output, "output"),
        repeats=FLAGS.repeats or 3,
        **_training(),
    )


def accuracy(passed_on: Sequence[str]) -> None:
    """Measures what the dtype of cached features costs in accuracy."""
    console.nothing_passed_on(passed_on)
    console.required(dataset=FLAGS.dataset)
    from benchmarks.features import accuracy

    accuracy.run(
        flag_paths.path(FLAGS.dataset),
        flag_paths.local_path(FLAGS.output, "output"),
        repeats=FLAGS.repeats or 3,
        **_training(),
    )


def shards(beam_arguments: Sequence[str]) -> None:
    """Measures the shard job beside other ways, on the photos of IMAGES."""
    console.required(images=FLAGS.images)
    from benchmarks.shards import shard_job

    shard_job.run(
        flag_paths.local_path(FLAGS.images, "images"),
        contract=ImageContract(
            height=FLAGS.height,
            width=FLAGS.width,
            resize=FLAGS.resize,
            quality=FLAGS.quality,
            chroma=FLAGS.chroma,
        ),
        count=FLAGS.bench_images,
        workers=FLAGS.workers,
        repeats=FLAGS.repeats or 3,
        seed=FLAGS.seed,
        output=_output("shards.json"),
        beam_arguments=beam_arguments,
    )


def predictions(passed_on: Sequence[str]) -> None:
    """Measures how fast predictions are written."""
    console.nothing_passed_on(passed_on)
    console.required(dataset=FLAGS.dataset)
    from benchmarks.predictions import writing

    writing.run(
        flag_paths.path(FLAGS.dataset),
        split=FLAGS.split,
        repeats=FLAGS.repeats or 3,
        output=_output("predictions.json"),
    )


def _output(name: str) -> Path:
    """Returns a file of the folder of --output, which is made if it is not there."""
    folder = flag_paths.local_path(FLAGS.output, "output")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def _training() -> dict[str, Any]:
    """Returns the recipe and the devices, as the benchmarks of training take them."""
    return {
        "recipe": _recipe(),
        "virtual_devices": FLAGS.virtual_devices,
        "cpu": FLAGS.cpu,
    }


def _recipe() -> Recipe:
    """Returns the recipe, with the fields that flags override."""
    given: dict[str, Any] = {
        name: FLAGS[name].value
        for name in ("batch_size", "precision", "jit")
        if FLAGS[name].present
    }
    try:
        return dataclasses.replace(RECIPES[FLAGS.recipe], **given)
    except ValueError as error:
        raise errors.UsageError(str(error)) from error


def _local(flag: str) -> Path | None:
    text = FLAGS[flag].value
    return flag_paths.local_path(text, flag) if text else None


VERBS = {
    "input": input_pipeline,
    "features": features,
    "accuracy": accuracy,
    "shards": shards,
    "predictions": predictions,
}

if __name__ == "__main__":
    sys.exit(console.main(VERBS, default="input", argv=sys.argv, about=__doc__ or ""))
