"""The Beam job: one element is one shard, of DATASET or of PREDICTIONS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pipeline.storage import atomic

if TYPE_CHECKING:
    import apache_beam


class Job(NamedTuple):
    """Parts to make; all of it can be pickled, by reference to our modules.

    Attributes:
        parts: says which, by name, when the job begins; each is one element.
        make: makes and commits one of them; again, where a worker was lost.
        complete: the last step, once all are made; perhaps again, too.
    """

    parts: Callable[[], Sequence[str]]
    make: Callable[[str], None]
    complete: Callable[[], None]


def build(pipeline: apache_beam.Pipeline, work: Job) -> None:
    """Adds the job to a pipeline."""
    import apache_beam as beam  # here: the launcher need not wait 3 s for it

    parts, make, complete = work  # each pickled alone
    run = atomic.run_id()  # workers on other machines do not inherit it
    _ = (
        pipeline
        | "Start" >> beam.Impulse()
        | "Parts" >> beam.FlatMap(lambda _: parts())  # str: the graph does not grow
        | "Spread" >> beam.Reshuffle()  # else one worker gets them all
        | "Make" >> beam.Map(lambda part: _for_run(run, make, part))
        | "All made" >> beam.combiners.Count.Globally()  # int, one
        | "Complete" >> beam.Map(lambda _: _for_run(run, complete))
    )


def _for_run(run: str, action: Callable[..., None], *arguments: str) -> None:
    """Runs an action of a worker, whose scratch files are those of its run."""
    atomic.write_for(run)
    action(*arguments)
