"""`python -m trainer`: DATASET → MODEL."""

import sys

from pipeline.dataset import shard_cache
from pipeline.storage import atomic, folder_lock
from pipeline.system import command_line, startup_log
from pipeline.system.command_line import Verb
from trainer.options import (
    CHECKPOINT,
    DoctorOptions,
    ModelOptions,
    ReportOptions,
    TrainOptions,
)

# Stories are imported by the verbs: --help need not wait for TensorFlow.


def train(options: TrainOptions) -> None:
    """Trains MODEL on DATASET."""
    shard_cache.cache_at(options.shard_cache, options.shard_cache_bytes)
    # Locked before TensorFlow is imported: a second run is told so at once.
    with folder_lock.held(options.model, notes=CHECKPOINT):
        startup_log.keep_in(atomic.log_path(options.model))
        with startup_log.kept():
            from trainer import train

        train.run(options)


def doctor(options: DoctorOptions) -> None:
    """Tries out whether this node can train."""
    shard_cache.cache_at(options.shard_cache, options.shard_cache_bytes)
    startup_log.keep_in(atomic.log_path(options.model) if options.model else None)
    with startup_log.kept():
        from trainer.doctor import checks

    checks.run(options)


def curves(options: ModelOptions) -> None:
    """Draws the history of MODEL."""
    from trainer import curves

    curves.run(options.model)


def export(options: ModelOptions) -> None:
    """Writes MODEL for TensorFlow Serving and for LiteRT."""
    startup_log.keep_in(atomic.log_path(options.model))
    with startup_log.kept():
        from trainer.export import export_model

    export_model.run(options.model)


def report(options: ReportOptions) -> None:
    """Tells of a run in a page: recipe, curves, speed, snapshots, starts."""
    startup_log.keep_in(atomic.log_path(options.model))
    from trainer.report import report_model

    report_model.run(options)


VERBS = {
    "train": Verb(TrainOptions, train),
    "doctor": Verb(DoctorOptions, doctor),
    "curves": Verb(ModelOptions, curves),
    "export": Verb(ModelOptions, export),
    "report": Verb(ReportOptions, report),
}

if __name__ == "__main__":
    sys.exit(
        command_line.main(
            "trainer",
            VERBS,
            argv=sys.argv,
            about=__doc__,
            moved={"bench": "python -m benchmarks input|features"},
        )
    )
