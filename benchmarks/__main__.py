"""`python -m benchmarks`: figures for the docs and for those who change code."""

import sys

from benchmarks.options import (
    FeaturesOptions,
    InputOptions,
    PredictionsOptions,
    ShardsOptions,
)
from pipeline.system import command_line, startup_log
from pipeline.system.command_line import Verb

# Benchmarks are imported by the verbs: --help need not wait for TensorFlow.


def input_pipeline(options: InputOptions) -> None:
    """Measures how fast this node feeds a model, and says what helps most."""
    startup_log.keep_in(None)
    with startup_log.kept():
        from benchmarks import input_pipeline

    input_pipeline.run(options)


def features(options: FeaturesOptions) -> None:
    """Measures training from features beside training from pixels."""
    startup_log.keep_in(None)
    with startup_log.kept():
        from benchmarks import features

    features.run(options)


def shards(options: ShardsOptions) -> None:
    """Measures the shard job beside other ways to make the same small images."""
    from benchmarks import shards

    shards.run(options)


def predictions(options: PredictionsOptions) -> None:
    """Measures how fast predictions are written, beside other ways."""
    from benchmarks import predictions

    predictions.run(options)


VERBS = {
    "input": Verb(InputOptions, input_pipeline),
    "features": Verb(FeaturesOptions, features),
    "shards": Verb(ShardsOptions, shards),
    "predictions": Verb(PredictionsOptions, predictions),
}

if __name__ == "__main__":
    sys.exit(
        command_line.main(
            "benchmarks",
            VERBS,
            argv=sys.argv,
            about=__doc__,
            moved={"accuracy": "docs/benchmarks.md#what-a-smaller-dtype-costs"},
        )
    )
