"""Flags of `python -m predictor`."""

import sys
from collections.abc import Sequence

from absl import flags

from pipeline import console
from pipeline.manifest import SPLITS

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "MODEL, as `make train` makes it.")
flags.DEFINE_string("dataset", None, "DATASET, as `make shards` makes it.")
flags.DEFINE_enum("split", "test", SPLITS, "Of DATASET; it need not be labelled.")
flags.DEFINE_string("predictions", None, "Folder to make: CSV shards.")
flags.DEFINE_integer("batch_size", 64, "Over all replicas.", lower_bound=1)
flags.DEFINE_integer(
    "virtual_devices", None, "Split the CPU into as many devices.", lower_bound=1
)
flags.DEFINE_bool("cpu", False, "Predict on the CPU, even where there are GPUs.")


def predict(passed_on: Sequence[str]) -> None:
    """Writes PREDICTIONS of MODEL on a split of DATASET."""
    console.nothing_passed_on(passed_on)
    console.required(
        model=FLAGS.model, dataset=FLAGS.dataset, predictions=FLAGS.predictions
    )
    from predictor import predict  # here: TensorFlow takes seconds that --help need not

    predict.run(
        console.path(FLAGS.model),
        console.path(FLAGS.dataset),
        console.path(FLAGS.predictions),
        split=FLAGS.split,
        batch_size=FLAGS.batch_size,
        virtual_devices=FLAGS.virtual_devices,
        cpu=FLAGS.cpu,
    )


def summary(passed_on: Sequence[str]) -> None:
    """Says in plain words what a finished job did."""
    console.nothing_passed_on(passed_on)
    console.required(
        model=FLAGS.model, dataset=FLAGS.dataset, predictions=FLAGS.predictions
    )
    from predictor import summary

    summary.show(
        console.path(FLAGS.dataset),
        console.path(FLAGS.model),
        console.path(FLAGS.predictions),
        split=FLAGS.split,
    )


VERBS = {"predict": predict, "summary": summary}

if __name__ == "__main__":
    sys.exit(console.main(VERBS, default="predict", argv=sys.argv, about=__doc__ or ""))
