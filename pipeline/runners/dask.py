"""Dask: Beam's runner for it, with the two translations that this lacks.

Beam's DaskRunner crashes at an Impulse, and it leaves what comes after a Reshuffle to
the worker that came before it. Both are added to Beam's own table, `TRANSLATIONS`,
which is private: tests/pipeline/runners/test_dask.py holds it to this.
"""

import contextlib
from collections.abc import Iterator
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
    """Refuses a cluster that is not named, not there, of other versions, or empty.

    Args:
        options: of Beam, by name.

    Raises:
        UsageError: there is no address; Dask would start a cluster on this machine.
        RunError: no scheduler answers, it has no worker, or versions differ.
    """
    if not (address := options.get("address")):
        raise UsageError(
            "--runner=dask needs the address of a scheduler, after `--`: "
            "--dask_client_address=tcp://HOST:8786. `dask scheduler` starts one, and "
            "`dask worker tcp://HOST:8786` a worker"
        )
    with _connected(address) as client:
        _check_versions(client, address)
        threads = client.nthreads()
    if not threads:
        raise RunError(
            f"the scheduler at --dask_client_address={address} has no worker. Start "
            f"some, with this package installed: `dask worker {address}`."
        )


def _prepare(pipeline: beam.Pipeline) -> None:
    """Makes a pipeline one that Beam's DaskRunner can run, on all workers."""
    dask_options = pipeline.options.view_as(dask_runner.DaskOptions)
    if not dask_options.npartitions and not dask_options.partition_size:
        with _connected(dask_options.address) as client:
            dask_options.npartitions = _PARTITIONS * sum(client.nthreads().values())
    transform_evaluator.TRANSLATIONS.update(
        {beam.Impulse: _Impulse, _Spread: _SpreadBag}
    )
    pipeline.replace_all([_ReshuffleOverride()])


@contextlib.contextmanager
def _connected(address: str) -> Iterator[distributed.Client]:
    """Yields a client of a cluster."""
    try:
        with distributed.Client(address, timeout=_CONNECT_SECONDS) as client:
            yield client
    except (OSError, ValueError) as error:
        raise RunError(
            f"no Dask scheduler answers at --dask_client_address={address} in "
            f"{_CONNECT_SECONDS} s: {error}. Is it running, of the same version, and "
            "can this machine reach it?"
        ) from error


def _check_versions(client: distributed.Client, address: str) -> None:
    """Refuses a scheduler or a worker that may not read what is sent to it."""
    found: Any = client.get_versions()
    ours = _versions(found["client"])
    others = {f"the scheduler at {address}": found["scheduler"]} | {
        f"the worker {name} of {address}": worker
        for name, worker in found["workers"].items()
    }
    for name, other in others.items():
        if (theirs := _versions(other)) != ours:
            raise RunError(
                f"{name} has {theirs}, and this machine {ours}; they must agree. "
                "Start all of them from one environment: `make install EXTRAS=,dask`."
            )


def _versions(found: dict[str, Any]) -> str:
    packages = found["packages"]
    python = ".".join(packages["python"].split(".")[:2])
    libraries = (f"{name} {packages[name]}" for name in ("dask", "distributed"))
    return ", ".join([*libraries, f"Python {python}"])


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
