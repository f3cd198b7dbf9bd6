"""`python -m predictor`: MODEL + DATASET or photos → PREDICTIONS."""

import sys

from pipeline.dataset import shard_cache
from pipeline.storage import atomic, folder_lock
from pipeline.system import command_line, startup_log
from pipeline.system.command_line import Verb
from predictor.options import EvaluateOptions, PredictOptions, VerifyOptions

# Stories are imported by the verbs: --help need not wait for them.


def predict(options: PredictOptions) -> None:
    """Writes PREDICTIONS of MODEL on a split of DATASET, or on photos."""
    shard_cache.cache_at(options.shard_cache, options.shard_cache_bytes)
    startup_log.keep_in(atomic.log_path(options.request.folder))
    if options.runner == "local":
        from predictor import predict

        predict.run(options)
    else:
        from predictor import predict_on_beam

        predict_on_beam.run(options)


def evaluate(options: EvaluateOptions) -> None:
    """Says how good MODEL is on a labelled split, or PREDICTIONS that were made."""
    shard_cache.cache_at(options.shard_cache, options.shard_cache_bytes)
    startup_log.keep_in(atomic.log_path(options.evaluation))
    with folder_lock.held(options.evaluation):
        from predictor import evaluate

        evaluate.run(
            options.evaluation,
            dataset=options.dataset,
            model=options.model,
            split=options.split,
            predictions=options.predictions,
            labels=options.labels,
            batch_size=options.batch_size,
            virtual_devices=options.virtual_devices,
            cpu=options.cpu,
        )


def verify(options: VerifyOptions) -> None:
    """Reads all of PREDICTIONS and names what is wrong with them."""
    shard_cache.cache_at(options.shard_cache, options.shard_cache_bytes)
    from predictor import verify

    verify.run(
        options.predictions,
        dataset=options.dataset,
        model=options.model,
        workers=options.workers,
    )


VERBS = {
    "predict": Verb(PredictOptions, predict),
    "evaluate": Verb(EvaluateOptions, evaluate),
    "verify": Verb(VerifyOptions, verify),
}

if __name__ == "__main__":
    sys.exit(
        command_line.main(
            "predictor",
            VERBS,
            argv=sys.argv,
            about=__doc__,
            moved={
                "bench": "python -m benchmarks predictions",
                "summary": "python -m benchmarks.demo summary",
            },
        )
    )
