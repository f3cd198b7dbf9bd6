"""Dask: what is refused at once, and what Beam's runner for it lacks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.job_service import free_port

distributed = pytest.importorskip("distributed", reason="needs the extra dask")

import apache_beam as beam  # noqa: E402
import dask.bag  # noqa: E402
from apache_beam.runners.dask import transform_evaluator  # noqa: E402

from pipeline.beam_job import Job  # noqa: E402
from pipeline.runners import dask as our_dask  # noqa: E402
from pipeline.runners import execution  # noqa: E402
from pipeline.system.errors import RunError, UsageError  # noqa: E402

_HERE = {"host": "127.0.0.1", "dashboard_address": ":0"}
PARTS = [f"part-{number}" for number in range(40)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of two workers of one thread, in this process."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", **_HERE
    ) as cluster:
        yield cluster.scheduler_address


def options(*arguments: str) -> object:
    return execution.engine_options("dask", arguments, 2, {})


def test_no_address_is_refused_and_starts_no_cluster() -> None:
    with pytest.raises(
        UsageError, match=r"needs the address .* --dask_client_address="
    ):
        options()


def test_no_scheduler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(our_dask, "_CONNECT_SECONDS", 1)
    address = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(RunError, match=f"no Dask scheduler answers at .*={address}"):
        options(f"--dask_client_address={address}")


def test_no_worker_is_refused() -> None:
    with (
        distributed.LocalCluster(n_workers=0, protocol="tcp", **_HERE) as empty,
        pytest.raises(RunError, match=r"has no worker\. Start some"),
    ):
        options(f"--dask_client_address={empty.scheduler_address}")


def test_beam_still_lacks_them(cluster: str) -> None:
    """The day that it has them, ours go."""
    beams = {
        kind
        for kind, operation in transform_evaluator.TRANSLATIONS.items()
        if not operation.__module__.startswith("pipeline.")
    }
    assert beam.ParDo in beams
    assert not {beam.Impulse, beam.Reshuffle} & beams
    assert issubclass(our_dask._SpreadBag, transform_evaluator.DaskBagOp)


def test_elements_are_spread_once_each() -> None:
    bag = our_dask._SpreadBag(None, {"npartitions": 16}).apply(
        dask.bag.from_sequence(PARTS, npartitions=1)
    )
    assert bag.npartitions == 16
    assert bag.compute(scheduler="synchronous") == PARTS


def test_a_job_makes_every_part_once_and_uses_both_workers(
    cluster: str, tmp_path: Path
) -> None:
    def make(part: str) -> None:
        with (tmp_path / part).open("x") as file:
            file.write(distributed.get_worker().address)

    def complete() -> None:
        assert len(list(tmp_path.iterdir())) == len(PARTS)
        (tmp_path / "complete").touch(exist_ok=True)

    chosen = options(f"--dask_client_address={cluster}")
    with execution.runner_there(chosen) as runner:
        result = execution.run_there(Job(PARTS, make, complete), chosen, runner)
        result.wait_until_finish()
        result.client.close()
    assert (tmp_path / "complete").exists()
    assert len({(tmp_path / part).read_text() for part in PARTS}) == 2
