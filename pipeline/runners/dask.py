"""Dask: Beam's runner for it, with the two translations that this lacks.

Beam's DaskRunner crashes at an Impulse, and it leaves what comes after a Reshuffle to
the worker that came before it. Both are added to Beam's own table, `TRANSLATIONS`,
which is private: tests/pipeline/runners/test_dask.py holds it to this.
"""

from typing import Any

import apache_beam as beam
import dask.bag
import distributed
from apache_beam.pipeline import AppliedPTransform, PTransformOverride
from apache_beam.pvalue import PCollection
from apache_beam.runners.dask import dask_runner, transform_evaluator

from pipeline.runners.engine import Engine, Options
from pipeline.system.errors import RunError, UsageError

_CONNECT_SECONDS = 10
_PARTITIONS = 8  # for every thread of the workers, so that all end about together


def _check(options: Options) -> None:
    """Refuses a cluster that is not named, is not there, or has no worker.

    Args:
        options: of Beam, by name.

    Raises:
        UsageError: there is no address; Dask would start a cluster on this machine.
        RunError: no scheduler answers, or it has no worker.
    """
    if not (address := options.get("address")):
        raise UsageError(
            "--runner=dask needs the address of a scheduler, after `--`: "
            "--dask_client_address=tcp://HOST:8786. `dask scheduler` starts one, and "
            "`dask worker tcp://HOST:8786` a worker"
        )
    if not _threads(address):
        raise RunError(
            f"the scheduler at --dask_client_address={address} has no worker. Start "
            f"some, with this package installed: `dask worker {address}`."
        )


def _prepare(pipeline: beam.Pipeline) -> None:
    """Makes a pipeline one that Beam's DaskRunner can run, on all workers."""
    dask_options = pipeline.options.view_as(dask_runner.DaskOptions)
    if not dask_options.npartitions and not dask_options.partition_size:
        dask_options.npartitions = _PARTITIONS * _threads(dask_options.address)
    transform_evaluator.TRANSLATIONS.update(
        {beam.Impulse: _Impulse, _Spread: _SpreadBag}
    )
    pipeline.replace_all([_ReshuffleOverride()])


def _threads(address: str) -> int:
    """Returns how many threads the workers of a cluster have."""
    try:
        with distributed.Client(address, timeout=_CONNECT_SECONDS) as client:
            return sum(client.nthreads().values())
    except (OSError, ValueError) as error:
        raise RunError(
            f"no Dask scheduler answers at --dask_client_address={address} in "
            f"{_CONNECT_SECONDS} s: {error}. Is it running, of the same version, and "
            "can this machine reach it?"
        ) from error


class _Impulse(transform_evaluator.DaskBagOp):
    """One empty element."""

    def apply(self, input_bag: Any, side_inputs: Any = None) -> dask.bag.Bag:
        return dask.bag.from_sequence([b""], npartitions=1)


class _Spread(beam.PTransform):
    """Stands for a Reshuffle, in one step."""

    def expand(self, input_or_inputs: PCollection) -> PCollection:
        return PCollection.from_(input_or_inputs)


class _SpreadBag(transform_evaluator.DaskBagOp):
    """Cuts the elements into as many partitions as are asked for."""

    def apply(self, input_bag: dask.bag.Bag, side_inputs: Any = None) -> dask.bag.Bag:
        return input_bag.repartition(**self.bag_kwargs)


class _ReshuffleOverride(PTransformOverride):
    """Replaces every Reshuffle."""

    def matches(self, applied_ptransform: AppliedPTransform) -> bool:
        return isinstance(applied_ptransform.transform, beam.Reshuffle)

    def get_replacement_transform_for_applied_ptransform(
        self, applied_ptransform: AppliedPTransform
    ) -> beam.PTransform:
        return _Spread()


DASK = Engine(check_options=_check, prepare=_prepare)
