"""Flags of `python -m pipeline`: IMAGES → DATASET.

    shards  makes DATASET from IMAGES (the verb of a command line without one)
    plan    says what `shards` with the same flags would take and make
    verify  reads all of DATASET and names what is wrong with it

What follows the first `--` goes to Beam.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from pipeline.dataset.manifest import CHROMAS, RESIZES, ImageContract
from pipeline.storage import flag_paths
from pipeline.storage.object_paths import AnyPath
from pipeline.system import console

FLAGS = flags.FLAGS
flags.DEFINE_multi_string(
    "images",
    None,
    "Root of the photos: train/, validation/, test/, or class folders; or tars; here, "
    "or in a store (s3://BUCKET/PREFIX, gs://…, az://…). "
    "Several: with commas, or the flag repeated.",
)
flags.DEFINE_string(
    "manifest", None, "CSV `id,label[,split]` of the photos; IMAGES/id is the file."
)
flags.DEFINE_string(
    "dataset", None, "Folder to make: TFRecord shards; here or in a store."
)
flags.DEFINE_string(
    "classes", None, "classes.txt of another dataset, to have the same labels."
)
flags.DEFINE_integer("height", 150, "Rows of a stored image.", lower_bound=1)
flags.DEFINE_integer("width", 200, "Columns of a stored image.", lower_bound=1)
flags.DEFINE_enum("resize", "stretch", RESIZES, "What becomes of the aspect ratio.")
flags.DEFINE_integer(
    "quality", 90, "Of the stored JPEG.", lower_bound=1, upper_bound=100
)
flags.DEFINE_enum("chroma", "420", CHROMAS, "Colour subsampling of the stored JPEG.")
flags.DEFINE_integer(
    "shards", None, "Per split. Default: about 1,024 images a shard.", lower_bound=1
)
flags.DEFINE_float(
    "validation_fraction",
    0.1,
    "Of each class, where there are no splits.",
    lower_bound=0,
    upper_bound=0.9,
)
flags.DEFINE_bool("labelled_test", False, "test/ holds class folders, as train/ does.")
flags.DEFINE_integer(
    "seed", 0, "Of the order and of the split.", lower_bound=0, upper_bound=2**31 - 1
)
flags.DEFINE_float(
    "max_reject_fraction",
    0.01,
    "Fail at the end if more images than this cannot be used.",
    lower_bound=0,
    upper_bound=1,
)
flags.DEFINE_integer(
    "workers", len(os.sched_getaffinity(0)), "Processes.", lower_bound=1
)
flags.DEFINE_float(
    "image_timeout",
    60,
    "Seconds after which an image is given up; 0: never.",
    lower_bound=0,
)
flags.DEFINE_string(
    "runner",
    "local",
    "Where the job runs: local, dask, flink, dataflow, or any runner of Beam.",
)
flags.DEFINE_bool("overwrite", False, "Remove what another run left in DATASET.")


def shards(beam_arguments: Sequence[str]) -> None:
    """Makes DATASET from IMAGES."""
    console.required(images=FLAGS.images, dataset=FLAGS.dataset)
    from pipeline import preprocess  # here: --help need not wait for its imports

    preprocess.run(
        _images(),
        flag_paths.path(FLAGS.dataset),
        **_job(beam_arguments),
        max_reject_fraction=FLAGS.max_reject_fraction,
        image_timeout=FLAGS.image_timeout,
        runner=FLAGS.runner,
        overwrite=FLAGS.overwrite,
    )


def plan(beam_arguments: Sequence[str]) -> None:
    """Predicts what `shards` with the same flags takes and makes."""
    console.required(images=FLAGS.images)
    from pipeline import estimate

    dataset = flag_paths.path(FLAGS.dataset) if FLAGS.dataset else None
    estimate.run(_images(), dataset=dataset, **_job(beam_arguments))


def verify(passed_on: Sequence[str]) -> None:
    """Reads all of DATASET and names what is wrong with it."""
    console.nothing_passed_on(passed_on)
    console.required(dataset=FLAGS.dataset)
    from pipeline import verify

    verify.run(flag_paths.path(FLAGS.dataset), workers=FLAGS.workers)


def _job(beam_arguments: Sequence[str]) -> dict[str, Any]:
    """What decides the bytes of DATASET, beside IMAGES, and the workers."""
    return {
        "contract": _contract(),
        "csv": flag_paths.path(FLAGS.manifest) if FLAGS.manifest else None,
        "shards": FLAGS.shards,
        "validation_fraction": FLAGS.validation_fraction,
        "labelled_test": FLAGS.labelled_test,
        "classes": flag_paths.path(FLAGS.classes) if FLAGS.classes else None,
        "seed": FLAGS.seed,
        "workers": FLAGS.workers,
        "beam_arguments": beam_arguments,
    }


def _images() -> list[AnyPath]:
    return flag_paths.paths(FLAGS.images, "images")


def _contract() -> ImageContract:
    return ImageContract(
        height=FLAGS.height,
        width=FLAGS.width,
        resize=FLAGS.resize,
        quality=FLAGS.quality,
        chroma=FLAGS.chroma,
    )


VERBS = {
    "shards": shards,
    "plan": plan,
    "verify": verify,
}

if __name__ == "__main__":
    sys.exit(
        console.main(
            VERBS,
            default="shards",
            argv=sys.argv,
            about=__doc__ or "",
            moved={
                "bench": "python -m benchmarks shards",
                "samples": "python -m benchmarks.demo photos",
            },
        )
    )
