"""Flags of `python -m benchmarks.demo`: what `make demo` begins and ends with.

photos   paints sample photos into IMAGES
summary  says in plain words, and with one picture, what a finished job did
"""

import sys
from collections.abc import Sequence

from absl import flags

from pipeline.dataset.manifest import SPLITS
from pipeline.storage import flag_paths
from pipeline.system import console

FLAGS = flags.FLAGS
flags.DEFINE_string("images", None, "Folder for the sample photos.")
flags.DEFINE_integer("seed", 0, "Seed of the sample photos.")
flags.DEFINE_integer(
    "times", 1, "Multiple of the number of photos that the demo needs.", lower_bound=1
)
flags.DEFINE_string("dataset", None, "DATASET of the finished job.")
flags.DEFINE_string("model", None, "MODEL of the finished job.")
flags.DEFINE_string("predictions", None, "PREDICTIONS of the finished job.")
flags.DEFINE_enum("split", "test", SPLITS, "Split that was predicted.")


def photos(passed_on: Sequence[str]) -> None:
    """Paints sample photos into IMAGES."""
    console.nothing_passed_on(passed_on)
    console.required(images=FLAGS.images)
    from benchmarks.demo import sample_photos

    sample_photos.write(
        flag_paths.local_path(FLAGS.images, "images"),
        seed=FLAGS.seed,
        times=FLAGS.times,
    )


def summary(passed_on: Sequence[str]) -> None:
    """Says in plain words what a finished job did."""
    console.nothing_passed_on(passed_on)
    console.required(
        dataset=FLAGS.dataset, model=FLAGS.model, predictions=FLAGS.predictions
    )
    from benchmarks.demo import contact_sheet

    contact_sheet.show(
        flag_paths.path(FLAGS.dataset),
        flag_paths.local_path(FLAGS.model, "model"),
        flag_paths.path(FLAGS.predictions),
        split=FLAGS.split,
    )


VERBS = {"photos": photos, "summary": summary}

if __name__ == "__main__":
    sys.exit(console.main(VERBS, default="photos", argv=sys.argv, about=__doc__ or ""))
