"""Predictions made by workers of a Beam job: the same shards, the same bytes.

One element is one input shard. A worker process checks the order, and loads the model,
once. The shards of a machine come one after another: each has all of its devices.
"""

import contextlib
import functools
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline.beam_job import Job
from pipeline.dataset.ledger import Reject
from pipeline.dataset.shard_cache import cache_at
from pipeline.runners.progress import JobProgress
from pipeline.runners.remote import RemoteRunner
from pipeline.storage import atomic, folder_lock
from pipeline.storage.noted_error import raising_noted_error
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import WORK, ResumableFolder
from pipeline.storage.worker_signs import announce_worker
from pipeline.system import io_errors, resources
from predictor.device_turn import device_turn
from predictor.format.predictions_manifest import MANIFEST
from predictor.options import PredictionRequest, PredictOptions
from predictor.request import StartedRun
from predictor.writing import writers

_Cache = tuple[Path | None, int | None]  # see shard_cache.cache_at
_Devices = tuple[int | None, bool]  # virtual_devices, cpu


def run(options: PredictOptions) -> None:
    """Has every image predicted once, or goes on where an earlier run stopped.

    The workers reach all of the request under the same names. The shard cache is that
    of each worker's machine, for a dataset in a store; the devices are those of a
    worker.

    Raises:
        RunError: as `predict.run`; or the runner failed.
        UsageError: the model has fewer classes than the format asks for; or Beam does
            not know the runner, or an option, or needs another.
    """
    started = time.monotonic()
    wanted = options.request
    folders: dict[str, Sequence[AnyPath]] = {
        "model": [wanted.model],
        "predictions": [wanted.folder],
        **({"dataset": [wanted.dataset]} if wanted.dataset else {}),
        **({"images": [wanted.images]} if wanted.images else {}),
    }
    with folder_lock.held(wanted.folder, notes=WORK):
        engine = RemoteRunner(
            options.runner,
            workers=options.workers,
            folders=folders,
            beam_arguments=options.beam_arguments,
        )
        begun = StartedRun(wanted)
        if begun.complete:
            begun.conclude()
            return
        missing = begun.parts.missing()
        begun.announce(missing)
        begun.announce_size(missing, writers=options.workers)
        begun.keep_listing()
        planned = dict(zip(begun.parts.names, begun.source.sizes, strict=True))
        make = functools.partial(
            _make,
            wanted=wanted,
            batch_size=options.batch_size,
            shard_cache=(options.shard_cache, options.shard_cache_bytes),
            devices=(options.virtual_devices, options.cpu),
        )
        complete = functools.partial(_complete, wanted)
        with (
            raising_noted_error(begun.output),
            JobProgress(
                begun.output, begun.parts.work, planned, what="predict"
            ) as watch,
        ):
            job = Job(list(watch.missing), make, complete)
            if not watch.missing:
                begun.finish()
            elif not engine.run(job, watch, wanted.folder):
                return
        begun.conclude(time.monotonic() - started)


class _Worker:
    """What a worker process keeps from shard to shard."""

    def __init__(
        self,
        _run: str,
        wanted: PredictionRequest,
        shard_cache: _Cache,
        devices: _Devices,
    ) -> None:
        from predictor.forward_pass import ForwardPass
        from trainer import model
        from trainer.training import distribution

        resources.limit_arenas()
        cache_at(*shard_cache)
        self.begun = StartedRun(wanted, alone=False)
        virtual_devices, cpu = devices
        strategy = distribution.strategy(virtual_devices=virtual_devices, cpu=cpu)
        with strategy.scope():
            self.forward = ForwardPass(model.load(wanted.model), strategy)


# Of the run that goes on: a worker of Dask does the next one, too, with another model.
_worker = functools.lru_cache(maxsize=1)(_Worker)


def _make(
    name: str,
    *,
    wanted: PredictionRequest,
    batch_size: int,
    shard_cache: _Cache,
    devices: _Devices,
) -> None:
    """Predicts one input shard, and commits the output shard of this name."""
    from predictor.forward_pass import naming_shortage, refuse_infinite

    folder = wanted.folder
    with device_turn(), io_errors.explained(folder / name):
        if ResumableFolder(wanted.folder, manifest=MANIFEST).complete():
            return  # a runner tries a part again after the last step
        announce_worker(folder)
        worker = _worker(atomic.run_id(), wanted, shard_cache, devices)
        parts, source = worker.begun.parts, worker.begun.source
        position = parts.names.index(name)
        if parts.work.note(name):  # by a worker that was lost afterwards
            return
        rejects: list[Reject] = []
        batches = source.batches([position], batch_size=batch_size, at_once=1)
        file = writers.OutputFile(
            parts.work, name, parts.format, worker.begun.contract.classes
        )
        with file, contextlib.closing(batches), naming_shortage(batch_size):
            for batch, probabilities in worker.forward.stream(batches):
                refuse_infinite(batch.ids, probabilities)
                if batch.ids:
                    file.write(batch.ids, probabilities)
                rejects += batch.rejects
            file.commit(rejects)


def _complete(wanted: PredictionRequest) -> None:
    """The last step of the job; again does nothing."""
    if not ResumableFolder(wanted.folder, manifest=MANIFEST).complete():
        StartedRun(wanted, alone=False).finish()
