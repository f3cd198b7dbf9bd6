"""MODEL + DATASET or photos → PREDICTIONS: one input shard makes one output shard."""

import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline import console, files, ledger, manifest, resources
from pipeline.console import RunError, in_bytes
from pipeline.listing import Reject
from pipeline.manifest import ImageContract
from pipeline.objects import AnyPath
from pipeline.workfolder import WorkFolder
from predictor import csv_shards, submission, volume
from predictor.csv_shards import Entry
from predictor.formats import Format
from predictor.forward import Forward
from predictor.inputs import Batch, FromDataset, FromImages, Input
from predictor.parts import Parts
from predictor.writers import Writers
from trainer import devices, model
from trainer.stop import Stop

# 15,000 classes at 4,000 images/s are 60 million numbers/s: what two processes write.
_WRITERS_PER_GPU = 2
_TOLD = 10  # ids in a message


def run(
    model_folder: Path,
    folder: AnyPath,
    *,
    format: Format,
    dataset: AnyPath | None = None,
    images: AnyPath | None = None,
    split: str = "test",
    sample_submission: AnyPath | None = None,
    batch_size: int = 64,
    writers: int | None = None,
    virtual_devices: int | None = None,
    cpu: bool = False,
) -> None:
    """Predicts every image once, or goes on where an earlier run stopped.

    Args:
        model_folder: MODEL.
        folder: PREDICTIONS, to make.
        format: of the files.
        dataset: DATASET, whose split is predicted; it need not be labelled.
        images: in place of that, photos; see unlabelled.list_images.
        split: of either.
        sample_submission: of format `submission`: the ids that it has to have.
        batch_size: global, over all replicas. Batches never span shards.
        writers: processes that write; None for what the devices need.
        virtual_devices, cpu: see devices.strategy.

    Raises:
        RunError: MODEL and the images do not fit, one of them is damaged, or the
            folder holds the predictions of others.
        UsageError: the model has fewer classes than the format asks for.
        KeyboardInterrupt: SIGINT or SIGTERM.
    """
    started = time.monotonic()
    resources.limit_arenas()
    contract = model.read_contract(model_folder)
    _refuse_repeated(contract.classes, format)
    format.check(contract.classes)
    sample = submission.read_sample(sample_submission) if sample_submission else None
    source = _source(contract, dataset, images, split)
    key = _key(contract, source, format, sample_submission)
    output = WorkFolder(folder, manifest=csv_shards.MANIFEST)
    _refuse_other_version(output)
    if output.start(key):
        _refuse_missing(folder)
        print(f"PREDICTIONS {folder} is complete already; nothing to do.")
        return
    parts = Parts(output, key, format, source.sizes)
    if missing := parts.missing():
        strategy = devices.strategy(virtual_devices=virtual_devices, cpu=cpu)
        writers = min(writers or _default_writers(strategy), len(missing))
        rows = sum(source.sizes[position] for position in missing)
        with _nothing_begun_if_refused(output, parts):
            volume.announce(
                folder, parts.format, contract.classes, rows=rows, writers=writers
            )
        # TensorFlow would make errors of its own of what interrupts it.
        with Stop() as stop, stop.put_off():
            with strategy.scope():
                forward = Forward(model.load(model_folder), strategy)
            batches = source.batches(missing, batch_size=batch_size, at_once=writers)
            writing = Writers(
                parts.folder,
                parts.format,
                contract.classes,
                rows=batch_size,
                count=writers,
            )
            with (
                writing,
                contextlib.closing(batches),
                _naming_shortage(batch_size),
            ):
                _write(forward.stream(batches), writing, parts, stop)
    _finish(output, key, parts, source, sample, time.monotonic() - started)


def _refuse_repeated(classes: Sequence[str], format: Format) -> None:
    """Columns of the same name could not be told apart."""
    repeated = [name for name, count in Counter(classes).items() if count > 1]
    if repeated:
        lines = [n for n, name in enumerate(classes, 1) if name == repeated[0]]
        raise RunError(
            f"MODEL has the class {repeated[0]!r} more than once, in the lines "
            f"{', '.join(map(str, lines))} of {manifest.CLASSES} ({len(repeated)} such "
            "classes in all): its columns could not be told apart. Train on a DATASET "
            "whose classes have names of their own."
        )
    if format.kind == "probabilities" and "id" in classes:
        raise RunError(
            "MODEL has a class 'id', which is the name of the first column, too: they "
            "could not be told apart. Use --format=top_k, which has no column of that "
            "name."
        )


def _refuse_other_version(output: WorkFolder) -> None:
    """The key of another release would differ in more than its version."""
    version = {"version": csv_shards.VERSION}
    if output.manifest.is_file() and (different := output.other(version)):
        raise RunError(
            f"{output.folder} was made by another release: {different}. Name another "
            "folder, or remove this one and run again."
        )


@contextlib.contextmanager
def _nothing_begun_if_refused(output: WorkFolder, parts: Parts) -> Iterator[None]:
    """Another format may take a folder in which nothing was committed yet."""
    try:
        yield
    except RunError:
        if not parts.done():
            output.clear()
        raise


@contextlib.contextmanager
def _naming_shortage(batch_size: int) -> Iterator[None]:
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise RunError(
            f"a batch of {batch_size} images does not fit into the memory of the "
            f"device (TensorFlow: {error.message.splitlines()[0]}). What was committed "
            "is kept: run the same command again with a smaller --batch_size."
        ) from error


def _source(
    contract: model.Contract,
    dataset: AnyPath | None,
    images: AnyPath | None,
    split: str,
) -> Input:
    """What is predicted, held to what the model takes."""
    if images:
        return FromImages(images, split, ImageContract(**contract.image))
    assert dataset
    loaded = manifest.load(dataset)
    contract.check(loaded)
    return FromDataset(loaded, split)


def _key(
    contract: model.Contract, source: Input, format: Format, sample: AnyPath | None
) -> dict[str, Any]:
    """Everything that decides the content; part of predictions.json."""
    return {
        "version": csv_shards.VERSION,
        "model": contract.fingerprint,
        "classes": manifest.classes_entry(contract.classes),
        **source.key,
        **format.key(),
        "sample_submission": files.sha256(sample) if sample else None,
    }


def _refuse_missing(folder: AnyPath) -> None:
    """A finished folder may have lost a file since."""
    entries = files.read_json(folder / csv_shards.MANIFEST)["files"]
    names = [entry["file"] for entry in entries]
    there = files.sizes(folder)
    if missing := [name for name in names if name not in there]:
        raise RunError(
            f"{folder / missing[0]} is missing ({len(missing)} in all), though the "
            "predictions were complete. Restore it, or remove the folder and run again."
        )


def _default_writers(strategy: tf.distribute.Strategy) -> int:
    gpus = sum("GPU" in device for device in strategy.extended.worker_devices)
    return max(1, min(resources.cores(), _WRITERS_PER_GPU * gpus))


def _write(
    predicted: Iterator[tuple[Batch, np.ndarray]],
    writing: Writers,
    parts: Parts,
    stop: Stop,
) -> None:
    """Hands every batch to the writers, and waits until all is committed."""
    rejects: dict[int, list[Reject]] = defaultdict(list)
    with console.progress(parts.images, "predict", done=parts.done()) as bar:
        for batch, probabilities in predicted:
            if stop.requested:
                raise KeyboardInterrupt
            _refuse_infinite(batch.ids, probabilities)
            name = parts.names[batch.shard]
            if batch.ids:
                writing.write(name, batch.ids, probabilities)
            rejects[batch.shard] += batch.rejects
            if batch.last:
                writing.end(name, rejects.pop(batch.shard))
            bar.update(len(batch.ids) + len(batch.rejects))
        writing.finish()


def _refuse_infinite(ids: Sequence[str], probabilities: np.ndarray) -> None:
    """A sum is finite where all that is summed is, and takes less time than a look."""
    finite = np.isfinite(probabilities.sum(axis=1))
    if not finite.all():
        bad = [name for name, good in zip(ids, finite, strict=True) if not good]
        raise RunError(
            f"the model's output is not finite for {len(bad)} of {len(ids)} images: "
            f"{', '.join(bad[:_TOLD])}. MODEL is broken; nothing of this shard was "
            "kept. Predict with a snapshot of it, or train again with a lower "
            "--learning_rate."
        )


def _finish(
    output: WorkFolder,
    key: Mapping[str, Any],
    parts: Parts,
    source: Input,
    sample: Sequence[str] | None,
    seconds: float,
) -> None:
    """Balances rows against images, and completes the folder."""
    entries, rejects = parts.balance(source.rejects)
    predicted = sum(entry.rows for entry in entries)
    if not predicted:
        first = rejects[0]
        raise RunError(
            f"none of the {len(rejects)} images could be predicted; the first is "
            f"{first.id!r}: {first.reason} ({first.detail}). Is it the right folder? "
            f"For another one remove {output.folder}, or name another."
        )
    if key["format"] == "submission":
        paths = [parts.folder / entry.file for entry in entries]
        entries = [submission.assemble(paths, sample, output, key["compression"])]
    if source.has_rejects:
        output.write_text(csv_shards.REJECTS, ledger.rejects_csv(rejects))
    account = {
        "examples": predicted + len(rejects),
        "predicted": predicted,
        "rejected": len(rejects),
    }
    rows = sum(entry.rows for entry in entries)
    described = [entry._asdict() for entry in entries]
    output.finish({**key, "files": described, "rows": rows, "ledger": account})
    print(_summary(output.folder, entries, account, rejects, seconds))


def _summary(
    folder: AnyPath,
    entries: Sequence[Entry],
    account: Mapping[str, int],
    rejects: Sequence[Reject],
    seconds: float,
) -> str:
    size = in_bytes(sum(entry.bytes for entry in entries))
    rows = sum(entry.rows for entry in entries)
    reasons = Counter(reject.reason for reject in rejects)
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    return (
        f"PREDICTIONS {folder}: {account['examples']} images = "
        f"{account['predicted']} predicted + {account['rejected']} rejected"
        f"{f' ({why})' if why else ''}; {rows} rows in {len(entries)} files, {size}, "
        f"{seconds:.1f} s"
    )
