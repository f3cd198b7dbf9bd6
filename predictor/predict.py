"""MODEL + DATASET or photos → PREDICTIONS: one input shard makes one output shard."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from pipeline.dataset.ledger import Reject
from pipeline.storage import folder_lock
from pipeline.storage.resumable_folder import WORK
from pipeline.system import console, resources, startup_log
from predictor.inputs.inputs import Batch
from predictor.options import PredictOptions
from predictor.request import StartedRun
from predictor.writing.output_shards import OutputShards
from predictor.writing.writers import Writers
from trainer.training.interruptions import StopSignal

if TYPE_CHECKING:
    import tensorflow as tf

# 15,000 classes at 4,000 images/s are 60 million numbers/s: what two processes write.
_WRITERS_PER_GPU = 2


def run(options: PredictOptions) -> None:
    """Predicts every image once, or goes on where an earlier run stopped.

    Batches never span shards.

    Raises:
        RunError: MODEL and the images do not fit, one of them is damaged, or the
            folder holds the predictions of others; decode processes cannot live, or
            too many images were rejected.
        UsageError: the model has fewer classes than the format asks for.
        KeyboardInterrupt: SIGINT or SIGTERM.
    """
    started = time.monotonic()
    wanted, batch_size = options.request, options.batch_size
    resources.limit_arenas()
    with folder_lock.held(wanted.folder, notes=WORK):
        begun = StartedRun(wanted)
        if begun.complete:
            begun.conclude()
            return
        if missing := begun.parts.missing():
            begun.announce(missing)
            # Here: what StartedRun refuses need not wait for TensorFlow.
            with startup_log.kept():
                from predictor.forward_pass import ForwardPass, naming_shortage
                from trainer import model
                from trainer.training import distribution

            strategy = distribution.strategy(
                virtual_devices=options.virtual_devices, cpu=options.cpu
            )
            writers = min(options.writers or _default_writers(strategy), len(missing))
            begun.announce_size(missing, writers=writers)
            # TensorFlow would make errors of its own of what interrupts it.
            with StopSignal() as stop, stop.put_off():
                with strategy.scope():
                    forward = ForwardPass(model.load(wanted.model), strategy)
                batches = begun.source.batches(
                    missing, batch_size=batch_size, at_once=writers
                )
                writing = Writers(
                    begun.parts.folder,
                    begun.parts.format,
                    begun.contract.classes,
                    rows=batch_size,
                    count=writers,
                )
                with (
                    writing,
                    contextlib.closing(batches),
                    naming_shortage(batch_size),
                ):
                    _write(forward.stream(batches), writing, begun.parts, stop)
                begun.source.end()
        begun.finish()
        begun.conclude(time.monotonic() - started)


def _default_writers(strategy: "tf.distribute.Strategy") -> int:
    gpus = sum("GPU" in device for device in strategy.extended.worker_devices)
    return max(1, min(resources.cores(), _WRITERS_PER_GPU * gpus))


def _write(
    predicted: Iterator[tuple[Batch, np.ndarray]],
    writing: Writers,
    parts: OutputShards,
    stop: StopSignal,
) -> None:
    """Hands every batch to the writers, and waits until all is committed."""
    from predictor.forward_pass import refuse_infinite

    rejects: dict[int, list[Reject]] = defaultdict(list)
    with console.progress(parts.images, "predict", done=parts.done()) as bar:
        for batch, probabilities in predicted:
            if stop.requested:
                raise KeyboardInterrupt
            refuse_infinite(batch.ids, probabilities)
            name = parts.names[batch.shard]
            if batch.ids:
                writing.write(name, batch.ids, probabilities)
            rejects[batch.shard] += batch.rejects
            if batch.last:
                writing.end(name, rejects.pop(batch.shard))
            bar.update(len(batch.ids) + len(batch.rejects))
        writing.finish()
