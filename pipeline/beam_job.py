"""The Beam job: one element is one shard, of DATASET or of PREDICTIONS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import apache_beam


class Job(NamedTuple):
    """Shards to write; the functions can be pickled, by reference to our modules.

    Attributes:
        missing: names of the shards.
        write: writes and commits one of them; again, where a worker was lost.
        complete: the last step, once all are written; perhaps again, too.
    """

    missing: Sequence[str]
    write: Callable[[str], None]
    complete: Callable[[], None]


def build(pipeline: apache_beam.Pipeline, job: Job) -> None:
    """Adds the job to a pipeline."""
    import apache_beam as beam  # here: the launcher need not wait for it

    missing, write, complete = job  # each pickled alone
    _ = (
        pipeline
        | "ListMissingShards" >> beam.Create(missing)  # str: the names of shards
        | "Spread" >> beam.Reshuffle()  # str: else one worker would get them all
        | "WriteShard" >> beam.Map(write)  # None: no image goes through Beam
        # int: one, after the last. A default would be a side input, for which Dask runs
        # the whole job inside of a worker, where it cannot be cancelled.
        | "CountShards" >> beam.combiners.Count.Globally().without_defaults()
        | "WriteManifest" >> beam.Map(lambda _: complete())  # None
    )
