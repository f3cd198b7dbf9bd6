"""`python -m pipeline`: IMAGES → DATASET."""

import signal
import sys

from pipeline.options import PlanOptions, ShardsOptions, VerifyOptions
from pipeline.system import command_line, console
from pipeline.system.command_line import Verb

# Stories are imported by the verbs: --help need not wait for Beam.


def shards(options: ShardsOptions) -> None:
    """Makes DATASET from IMAGES."""
    from pipeline import preprocess

    preprocess.run(options)


def plan(options: PlanOptions) -> None:
    """Predicts what `shards` with the same flags takes and makes."""
    from pipeline import estimate

    estimate.run(options)


def verify(options: VerifyOptions) -> None:
    """Reads all of DATASET and names what is wrong with it."""
    from pipeline import verify

    verify.run(options.dataset, workers=options.workers)


VERBS = {
    "shards": Verb(ShardsOptions, shards),
    "plan": Verb(PlanOptions, plan),
    "verify": Verb(VerifyOptions, verify),
}

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    console.leave(
        command_line.main(
            "pipeline",
            VERBS,
            argv=sys.argv,
            about=__doc__,
            moved={
                "bench": "python -m benchmarks shards",
                "samples": "python -m benchmarks.demo photos",
            },
        )
    )
