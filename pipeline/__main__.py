"""`python -m pipeline`: IMAGES → DATASET."""

import signal
import sys

from pipeline.options import (
    InspectOptions,
    PlanOptions,
    RetryOptions,
    ShardsOptions,
    VerifyOptions,
)
from pipeline.system import command_line, console
from pipeline.system.command_line import Verb
from pipeline.system.errors import RunError

# Stories are imported by the verbs: --help need not wait for Beam.


def shards(options: ShardsOptions) -> None:
    """Makes DATASET from IMAGES."""
    from pipeline import additions, preprocess

    if options.append:
        additions.append(options)
    else:
        preprocess.run(options)


def retry(options: RetryOptions) -> None:
    """Tries the rejected images of DATASET again, and adds those that are good now."""
    from pipeline import additions

    additions.retry(options)


def plan(options: PlanOptions) -> None:
    """Predicts what `shards` with the same flags takes and makes."""
    from pipeline import estimate

    estimate.run(options)


def verify(options: VerifyOptions) -> None:
    """Reads all of DATASET and names what is wrong with it."""
    from pipeline import verify

    verify.run(options.dataset, workers=options.workers)


def inspect(options: InspectOptions) -> None:
    """Shows what is in DATASET: a page of pictures, classes, sizes and rejects."""
    try:
        from pipeline import inspect_dataset
    except ModuleNotFoundError as error:
        raise RunError(
            f"inspect needs {error.name}: install the extra `train` (`make install` "
            "does)."
        ) from error

    inspect_dataset.run(options)


VERBS = {
    "shards": Verb(ShardsOptions, shards),
    "retry": Verb(RetryOptions, retry),
    "plan": Verb(PlanOptions, plan),
    "verify": Verb(VerifyOptions, verify),
    "inspect": Verb(InspectOptions, inspect),
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
