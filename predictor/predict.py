"""MODEL + DATASET → PREDICTIONS: one input shard makes one output shard."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from pipeline import manifest, resources
from pipeline.console import RunError, progress
from pipeline.manifest import Dataset, Shard
from pipeline.workfolder import WorkFolder
from predictor import csv_shards
from trainer import dataset as data
from trainer import devices, model

VERSION = 1


def run(
    model_folder: Path,
    dataset_folder: Path,
    folder: Path,
    *,
    split: str = "test",
    batch_size: int = 64,
    virtual_devices: int | None = None,
    cpu: bool = False,
) -> None:
    """Predicts every image of a split once, or goes on where an earlier run stopped.

    Args:
        model_folder: MODEL.
        dataset_folder: DATASET.
        folder: PREDICTIONS, to make.
        split: of the dataset; it need not be labelled.
        batch_size: global, over all replicas. Batches never span shards.
        virtual_devices, cpu: see devices.strategy.

    Raises:
        RunError: MODEL and DATASET do not fit, one of them is damaged, or the folder
            holds the predictions of others.
    """
    resources.limit_arenas()
    dataset = manifest.load(dataset_folder)
    contract = model.read_contract(model_folder)
    contract.check(dataset)
    key = {
        "model": contract.fingerprint,
        "dataset": dataset.fingerprint,
        "split": split,
        "format": "probabilities",
    }
    shards = _names(dataset, split)
    output = WorkFolder(folder, manifest=csv_shards.MANIFEST)
    if output.start(key):
        _refuse_missing(folder, shards)
        print(f"PREDICTIONS {folder} is complete already; nothing to do.")
        return
    missing = {name: shard for name, shard in shards.items() if not output.note(name)}
    if missing:
        strategy = devices.strategy(virtual_devices=virtual_devices, cpu=cpu)
        with strategy.scope():
            network = model.load(model_folder)
        forward = _Forward(network, strategy, batch_size)
        writer = _Writer(output, dataset, contract, forward, batch_size)
        total = sum(shard.examples for shard in shards.values())
        left = sum(shard.examples for shard in missing.values())
        with (
            progress(total, "predict", done=total - left) as bar,
            data.naming_damage(dataset),
        ):
            for name, shard in missing.items():
                writer.write(name, shard, bar)
    _finish(output, key, shards)


def _refuse_missing(folder: Path, shards: Mapping[str, Shard]) -> None:
    """A finished folder may have lost a file since."""
    if missing := [name for name in shards if not (folder / name).is_file()]:
        raise RunError(
            f"{folder / missing[0]} is missing ({len(missing)} in all), though the "
            "predictions were complete. Restore it, or remove the folder and run again."
        )


def _names(dataset: Dataset, split: str) -> dict[str, Shard]:
    """The output shard of every input shard, in order."""
    shards = dataset.split(split).shards
    return {
        csv_shards.shard_name(index, len(shards)): shard
        for index, shard in enumerate(shards)
    }


class _Forward:
    """The model on all replicas, for batches of up to `batch_size` rows.

    A short batch is filled up: one shape means one trace, and no replica may be left
    without a row.
    """

    def __init__(
        self, network: keras.Model, strategy: tf.distribute.Strategy, batch_size: int
    ) -> None:
        self._strategy = strategy
        self._rows = max(batch_size, strategy.num_replicas_in_sync)
        self._step = tf.function(
            lambda images: strategy.run(network, (images,), {"training": False}),
            reduce_retracing=True,  # the replicas' parts may differ by a row
        )

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """float32[batch, classes] of uint8[batch, height, width, 3], in their order."""
        rows = len(images)
        if rows < self._rows:
            padding = [(0, self._rows - rows), (0, 0), (0, 0), (0, 0)]
            images = np.pad(images, padding)
        parts = np.array_split(images, self._strategy.num_replicas_in_sync)
        distributed = self._strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(parts[context.replica_id_in_sync_group])
        )
        results = self._strategy.experimental_local_results(self._step(distributed))
        return np.concatenate([part.numpy() for part in results])[:rows]


class _Writer:
    """Writes output shards."""

    def __init__(
        self,
        output: WorkFolder,
        dataset: Dataset,
        contract: model.Contract,
        forward: _Forward,
        batch_size: int,
    ) -> None:
        self._output = output
        self._dataset = dataset
        self._header = csv_shards.header(contract.classes)
        self._forward = forward
        self._batch_size = batch_size

    def write(self, name: str, shard: Shard, bar: tqdm) -> None:
        """Commits the predictions of one input shard, and then their sidecar."""
        digest = hashlib.sha256(self._header)
        rows = 0
        with self._output.commit(name) as file:
            file.write(self._header)
            for line in self._lines(shard, bar):
                file.write(line)
                digest.update(line)
                rows += 1
        note = {"file": name, "rows": rows, "sha256": digest.hexdigest()}
        self._output.done(name, note)

    def _lines(self, shard: Shard, bar: tqdm) -> Iterator[bytes]:
        batches = data.for_inference(
            self._dataset, [shard], batch_size=self._batch_size
        )
        for ids, images, _ in batches.as_numpy_iterator():
            yield from csv_shards.lines(ids, self._forward(images))
            bar.update(len(ids))


def _finish(
    output: WorkFolder, key: Mapping[str, Any], shards: Mapping[str, Shard]
) -> None:
    """Balances rows against examples, and completes the folder."""
    notes = [output.note(name) for name in shards]
    rows = sum(note["rows"] for note in notes if note)
    examples = sum(shard.examples for shard in shards.values())
    if rows != examples or None in notes:
        raise RunError(
            f"{output.folder} has {rows} rows for {examples} examples. Did something "
            "else write there? Run the same command again; it makes what is missing."
        )
    ledger = {"examples": examples, "predicted": rows}
    output.finish(
        {"version": VERSION, **key, "files": notes, "rows": rows, "ledger": ledger}
    )
    print(f"PREDICTIONS {output.folder}: {rows} rows in {len(shards)} files")
