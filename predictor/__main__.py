"""Flags of `python -m predictor`: MODEL + DATASET or photos → PREDICTIONS.

    predict   writes PREDICTIONS (the verb of a command line without one)
    evaluate  says how good MODEL, or PREDICTIONS, are
    verify    reads all of PREDICTIONS and names what is wrong with them

What follows the first `--` goes to Beam, where `--runner` names one of its runners.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from pipeline.dataset import shard_cache
from pipeline.dataset.manifest import SPLITS
from pipeline.storage import flag_paths, folder_lock
from pipeline.storage.object_paths import AnyPath
from pipeline.system import console
from pipeline.system.errors import UsageError

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "MODEL, as `make train` makes it.")
flags.DEFINE_string("dataset", None, "DATASET, as `make shards` makes it.")
flags.DEFINE_enum("split", "test", SPLITS, "Of DATASET; it need not be labelled.")
flags.DEFINE_string(
    "images", None, "In place of DATASET: a folder of photos, a CSV of ids, or a .tar."
)
flags.DEFINE_string(
    "predictions", None, "Folder to make: CSV shards; here or in a store."
)
flags.DEFINE_enum(
    "format",
    "probabilities",
    ["probabilities", "top_k", "submission"],
    "Of every class; the best classes; or Kaggle's `id,landmarks`.",
)
flags.DEFINE_integer("top_k", 5, "Classes in a row of that format.", lower_bound=1)
flags.DEFINE_string(
    "sample_submission", None, "CSV whose ids a submission has to have, in its order."
)
flags.DEFINE_float(
    "max_reject_fraction",
    0.01,
    "Of --images: fail at the end if more of them than this cannot be used.",
    lower_bound=0,
    upper_bound=1,
)
flags.DEFINE_enum("compression", "none", ["none", "gzip", "zstd"], "Of the CSVs.")
flags.DEFINE_bool("parquet", False, "Write Parquet in place of CSV.")
flags.DEFINE_integer("batch_size", 64, "Over all replicas.", lower_bound=1)
flags.DEFINE_integer(
    "writers", None, "Processes that write. Default: 2 a GPU, else 1.", lower_bound=1
)
flags.DEFINE_integer(
    "virtual_devices", None, "Split the CPU into as many devices.", lower_bound=1
)
flags.DEFINE_bool("cpu", False, "Predict on the CPU, even where there are GPUs.")
flags.DEFINE_integer(
    "workers",
    len(os.sched_getaffinity(0)),
    "Of verify: processes. Of another --runner: workers.",
    lower_bound=1,
)
flags.DEFINE_string(
    "runner",
    "local",
    "Where predict runs: local, dask, flink, dataflow, or any runner of Beam; what "
    "follows `--` goes to Beam.",
)
flags.DEFINE_string("labels", None, "Of evaluate: CSV `id,label` of PREDICTIONS.")
flags.DEFINE_string("evaluation", "evaluation", "Of evaluate: folder to make.")
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


def predict(passed_on: Sequence[str]) -> None:
    """Writes PREDICTIONS of MODEL on a split of DATASET, or on photos."""
    if FLAGS.runner == "local":
        console.nothing_passed_on(passed_on)
    console.required(model=FLAGS.model, predictions=FLAGS.predictions)
    if bool(FLAGS.dataset) == bool(FLAGS.images):
        raise UsageError("give one of --dataset and --images: what is to be predicted")
    if FLAGS.sample_submission and FLAGS.format != "submission":
        raise UsageError("--sample_submission goes with --format=submission")
    from predictor import predict  # here: --help need not wait for its imports
    from predictor.format.file_format import Format
    from predictor.request import PredictionRequest

    order = PredictionRequest(
        model=flag_paths.path(FLAGS.model),
        folder=flag_paths.path(FLAGS.predictions),
        format=Format(
            kind=FLAGS.format,
            top_k=FLAGS.top_k,
            compression=FLAGS.compression,
            parquet=FLAGS.parquet,
        ),
        dataset=_dataset(),
        images=_path(FLAGS.images),
        split=FLAGS.split,
        sample_submission=_path(FLAGS.sample_submission),
        max_reject_fraction=FLAGS.max_reject_fraction,
    )
    if FLAGS.runner != "local":
        from predictor import predict_on_beam

        predict_on_beam.run(
            order,
            runner=FLAGS.runner,
            workers=FLAGS.workers,
            batch_size=FLAGS.batch_size,
            shard_cache=(_local("shard_cache"), FLAGS.shard_cache_bytes),
            beam_arguments=passed_on,
        )
        return
    predict.run(
        order,
        batch_size=FLAGS.batch_size,
        writers=FLAGS.writers,
        virtual_devices=FLAGS.virtual_devices,
        cpu=FLAGS.cpu,
    )


def evaluate(passed_on: Sequence[str]) -> None:
    """Says how good MODEL is on a labelled split, or PREDICTIONS that were made."""
    console.nothing_passed_on(passed_on)
    folder = flag_paths.local_path(FLAGS.evaluation, "evaluation")
    with folder_lock.held(folder):
        from predictor import evaluate

        evaluate.run(
            folder,
            dataset=_dataset(),
            model=_path(FLAGS.model),
            split=FLAGS.split,
            predictions=_path(FLAGS.predictions),
            labels=_path(FLAGS.labels),
            batch_size=FLAGS.batch_size,
            virtual_devices=FLAGS.virtual_devices,
            cpu=FLAGS.cpu,
        )


def verify(passed_on: Sequence[str]) -> None:
    """Reads all of PREDICTIONS and names what is wrong with them."""
    console.nothing_passed_on(passed_on)
    console.required(predictions=FLAGS.predictions)
    from predictor import verify

    verify.run(
        flag_paths.path(FLAGS.predictions),
        dataset=_dataset(),
        model=_path(FLAGS.model),
        workers=FLAGS.workers,
    )


def _path(text: str | None) -> AnyPath | None:
    return flag_paths.path(text) if text else None


def _local(flag: str) -> Path | None:
    text = FLAGS[flag].value
    return flag_paths.local_path(text, flag) if text else None


def _dataset() -> AnyPath | None:
    """DATASET; where its shards are fetched to, if they are, is now known."""
    shard_cache.cache_at(_local("shard_cache"), FLAGS.shard_cache_bytes)
    return _path(FLAGS.dataset)


VERBS = {
    "predict": predict,
    "evaluate": evaluate,
    "verify": verify,
}

if __name__ == "__main__":
    sys.exit(
        console.main(
            VERBS,
            default="predict",
            argv=sys.argv,
            about=__doc__ or "",
            moved={
                "bench": "python -m benchmarks predictions",
                "summary": "python -m benchmarks.demo summary",
            },
        )
    )
