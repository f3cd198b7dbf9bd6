"""A training run: DATASET → MODEL, epoch by epoch, resumed where it stopped."""

import dataclasses
import platform
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from pipeline import files, manifest, resources
from pipeline.console import RunError, progress
from pipeline.manifest import Dataset
from pipeline.workfolder import difference
from trainer import cache, devices, history, model, optimizer, state
from trainer import dataset as data
from trainer.loop import Loop, Metrics
from trainer.recipe import Recipe


def run(
    dataset_folder: Path,
    folder: Path,
    *,
    recipe: Recipe,
    weights: str = "imagenet",
    seed: int | None = None,
    cache_kind: str = "auto",
    cache_folder: Path | None = None,
    virtual_devices: int | None = None,
    cpu: bool = False,
) -> None:
    """Trains, and saves MODEL.

    Args:
        dataset_folder: DATASET.
        folder: MODEL.
        recipe: what to do.
        weights: `imagenet`, `none` or a path; see model.build.
        seed: of everything random; makes the run deterministic.
        cache_kind: see cache.choose.
        cache_folder: on a local disk, for a cache that is larger than the memory; it
            is kept. Without it MODEL/cache, which goes when the run is complete.
        virtual_devices, cpu: see devices.strategy.

    Raises:
        RunError: the data, the weights or MODEL are at fault, or training diverged.
        UsageError: the batch does not divide by the replicas.
    """
    resources.limit_arenas()
    dataset = manifest.load(dataset_folder)
    data.steps_per_epoch(dataset, recipe.batch_size)
    choice = cache.choose(
        cache_kind, dataset, order=state.read_key(_checkpoint(folder)).get("order")
    )
    key = _key(dataset, recipe, weights, seed, choice.order)
    if _is_finished(folder, key, recipe.epochs):
        print(f"MODEL {folder} is complete already: {recipe.epochs} epochs.")
        return
    print(choice)
    if seed is not None:
        keras.utils.set_random_seed(seed)
        tf.config.experimental.enable_op_determinism()
    strategy = devices.strategy(virtual_devices=virtual_devices, cpu=cpu)
    devices.check_batch_size(recipe.batch_size, strategy.num_replicas_in_sync)
    for part in (folder, folder / "checkpoint", folder / "snapshot"):
        files.remove_scratch(part)
    run = _Run(dataset, folder, recipe, weights, seed, strategy, key)
    with data.naming_damage(dataset):
        run.train(choice, cache_folder or folder / "cache")
    if not cache_folder:
        shutil.rmtree(folder / "cache", ignore_errors=True)


class _Run:
    """The model, its optimizer and its data, and what becomes of them."""

    def __init__(
        self,
        dataset: Dataset,
        folder: Path,
        recipe: Recipe,
        weights: str,
        seed: int | None,
        strategy: tf.distribute.Strategy,
        key: dict[str, Any],
    ) -> None:
        self._dataset, self._folder, self._recipe = dataset, folder, recipe
        self._seed, self._key = seed, key
        self._steps = data.steps_per_epoch(dataset, recipe.batch_size)
        self._checkpoint = _checkpoint(folder)
        resumes = self._checkpoint.is_file()
        with strategy.scope():
            self._model = model.build(
                height=dataset.image.height,
                width=dataset.image.width,
                classes=len(dataset.classes),
                weights="none" if resumes else weights,
                recipe=recipe,
            )
            self._optimizer = optimizer.build(recipe)
            self._optimizer.build(self._model.trainable_variables)
        self._progress = state.restore(
            self._checkpoint, self._model, self._optimizer, key
        )
        self._loop = Loop(
            self._model,
            self._optimizer,
            strategy,
            batch_size=recipe.batch_size,
            augmentation=recipe.augmentation,
            seed=seed,
        )
        self._writers = {
            split: tf.summary.create_file_writer(str(folder / "tensorboard" / split))
            for split in ("train", "validation")
        }

    def train(self, choice: cache.Choice, cache_folder: Path) -> None:
        """Runs the epochs that are missing, and saves the result."""
        self._remove_later_snapshots()
        if self._progress.epoch:
            print(f"going on after epoch {self._progress.epoch}")
        else:
            self._model.summary()
            self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
            self._save_state()  # from here on the folder is known to be this run's
        stores = cache.stores(choice, self._dataset, cache_folder)
        self._batches = self._training_batches(stores.get("train"))
        self._validation = self._validation_batches(stores.get("validation"))
        for number in range(self._progress.epoch + 1, self._recipe.epochs + 1):
            self._epoch(number)
        self._save_result()

    def _epoch(self, number: int) -> None:
        images = self._steps * self._recipe.batch_size
        with progress(images, f"epoch {number}/{self._recipe.epochs}") as bar:
            trained = self._loop.train(self._batches, self._steps, bar=bar)
        validated, seconds = self._validate()
        row = {
            "epoch": number,
            "seconds": trained.seconds + seconds,
            **trained.metrics._asdict(),
            **_prefixed(validated),
            "learning_rate": float(self._optimizer.learning_rate),
            "images_per_second": images / trained.seconds,
            "input_wait": trained.input_wait,
        }
        best = self._progress.best_val_loss
        if validated and validated.loss < best:
            best = validated.loss
            self._save_snapshot(number, validated)
        history.append(self._folder / "history.csv", row)
        self._log_to_tensorboard(row)
        self._progress = state.Progress(number, best)
        self._save_state()
        print(_line(row))

    def _training_batches(self, store: data.Store | None) -> Iterator[Any]:
        """Distributed (images, labels), from where the run stands on."""
        size = self._recipe.batch_size
        # Without a seed there is no stream to go on with, but a new one.
        first = 0 if self._seed is None else self._progress.epoch * self._steps
        if store:
            stream = data.from_store(
                store, batch_size=size, seed=self._seed, first_batch=first
            )
        else:
            stream = data.for_training(
                self._dataset, batch_size=size, seed=self._seed, first_batch=first
            )
        return self._loop.feed(stream)

    def _validation_batches(self, store: data.Store | None) -> tf.data.Dataset | None:
        split = self._dataset.splits.get("validation")
        if split is None or not split.examples:
            print("no validation split: no snapshots, and empty val_ columns")
            return None
        batch_size = self._recipe.batch_size
        if store:
            return data.in_order(store, batch_size=batch_size)
        batches = data.for_inference(self._dataset, split.shards, batch_size=batch_size)
        return batches.map(lambda batch: (batch.images, batch.labels))

    def _validate(self) -> tuple[Metrics | None, float]:
        """The metrics on the validation split, and the seconds that took."""
        if self._validation is None:
            return None, 0.0
        started = time.perf_counter()
        metrics = self._loop.evaluate(self._validation)
        return metrics, time.perf_counter() - started

    def _remove_later_snapshots(self) -> None:
        """Of an epoch whose state was not saved before a kill: it comes again."""
        for path in (self._folder / "snapshot").glob("*.keras"):
            if int(path.name.partition("-")[0]) > self._progress.epoch:
                path.unlink()

    def _save_snapshot(self, number: int, validated: Metrics) -> None:
        folder = self._folder / "snapshot"
        folder.mkdir(exist_ok=True)
        path = folder / f"{number:03d}-{validated.accuracy:.5f}.keras"
        model.write_keras(self._model, path)

    def _log_to_tensorboard(self, row: history.Row) -> None:
        for split, prefix in (("train", ""), ("validation", "val_")):
            with self._writers[split].as_default(step=row["epoch"]):
                for name in Metrics._fields:
                    if (value := row[prefix + name]) is not None:
                        tf.summary.scalar(name, value)
            self._writers[split].flush()

    def _save_state(self) -> None:
        state.save(
            self._checkpoint, self._model, self._optimizer, self._progress, self._key
        )

    def _save_result(self) -> None:
        rows = history.read(self._folder / "history.csv")
        validated = [row for row in rows if row["val_loss"] is not None]
        best = min(validated, key=lambda row: row["val_loss"], default=None)
        facts = {
            "run": self._key,
            "recipe": dataclasses.asdict(self._recipe),
            "epochs": len(rows),
            "last": rows[-1],
            "best": best,
            "versions": {
                "python": platform.python_version(),
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
            },
        }
        model.save(self._model, self._folder, self._dataset, facts)
        print(f"MODEL {self._folder} is complete; the last epoch was")
        print(_line(rows[-1]))


def _checkpoint(folder: Path) -> Path:
    return folder / "checkpoint" / "state.npz"


def _key(
    dataset: Dataset, recipe: Recipe, weights: str, seed: int | None, order: str
) -> dict[str, Any]:
    """What a run of MODEL must have in common with the run that it goes on."""
    choices = dataclasses.asdict(recipe)
    del choices["epochs"]  # may be raised
    return {
        "image": dataset.image.pixels(),
        "classes": manifest.classes_entry(dataset.classes),
        "dataset": dataset.fingerprint,
        "recipe": choices,
        "weights": weights,
        "seed": seed,
        # Without a seed there is no stream to go on with, and any order will do.
        "order": None if seed is None else order,
    }


def _is_finished(folder: Path, key: dict[str, Any], epochs: int) -> bool:
    """Whether MODEL holds this run with as many epochs; refuses another run's."""
    path = folder / model.MANIFEST
    if path.is_file():
        earlier = files.read_json(path)
        if different := difference(earlier["run"], key):
            raise RunError(
                f"MODEL {folder} belongs to another run: {different}. Use the values "
                "of that run, or another MODEL folder."
            )
        return earlier["epochs"] >= epochs
    if (folder / "checkpoint").is_dir():  # of which run, its content tells
        return False
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(
            f"MODEL {folder} is there already and no training run made it. Name a new "
            "or an empty folder."
        )
    return False


def _prefixed(validated: Metrics | None) -> history.Row:
    values = validated._asdict() if validated else dict.fromkeys(Metrics._fields)
    return {f"val_{name}": value for name, value in values.items()}


def _line(row: history.Row) -> str:
    """An epoch in words."""
    shown = [f"{name} {row[name]:.4f}" for name in ("loss", "accuracy")]
    if row["val_loss"] is not None:
        shown += [f"{name} {row[name]:.4f}" for name in ("val_loss", "val_accuracy")]
    return (
        f"epoch {row['epoch']}: {', '.join(shown)}; {row['seconds']:.1f} s, "
        f"{row['images_per_second']:.1f} images/s, input wait {row['input_wait']:.0%}"
    )
