"""A training run: DATASET → MODEL, resumed where it stopped."""

import contextlib
import dataclasses
import platform
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.dataset import manifest
from pipeline.dataset.manifest import Dataset
from pipeline.storage import atomic, folder_lock
from pipeline.storage.resumable_folder import difference
from pipeline.system import resources
from pipeline.system.console import progress
from pipeline.system.errors import RunError
from trainer import hang_detection, model
from trainer.cache import policy, training_inputs
from trainer.cache.policy import CacheChoice
from trainer.cache.training_inputs import TrainingInputs
from trainer.data import input_pipeline as data
from trainer.hang_detection import HangDetector
from trainer.options import CHECKPOINT, TrainOptions
from trainer.recipe import Phase, Recipe
from trainer.training import checkpoint as state
from trainer.training import (
    distribution,
    divergence,
    history,
    optimizer,
    snapshots,
    starts,
    tensorboard_log,
)
from trainer.training.interruptions import StopSignal
from trainer.training.loop import DivergenceError, Loop, Metrics, Trained
from trainer.training.step import DROPOUT_MASKS


def run(options: TrainOptions) -> None:
    """Trains, and saves MODEL.

    Raises:
        RunError: the data, the weights or MODEL are at fault, or training diverged.
        UsageError: the batch does not divide by the replicas.
        KeyboardInterrupt: SIGINT or SIGTERM; the state is saved.
    """
    folder, recipe = options.model, options.recipe
    resources.limit_arenas()
    with folder_lock.held(folder, notes=CHECKPOINT):
        dataset = manifest.load(options.dataset)
        data.steps_per_epoch(dataset, recipe.batch_size)
        checkpoint = _checkpoint(folder)
        earlier = state.read(checkpoint)[0]
        choice = training_inputs.choose(
            dataset,
            recipe,
            options,
            earlier=earlier,
            folder=_cache_folder(folder, options),
            seeded=options.seed is not None,
        )
        key = _key(dataset, recipe, options.weights, options.seed, choice)
        if _is_finished(folder, key, recipe.epochs):
            print(f"MODEL {folder} is complete already: {recipe.epochs} epochs.")
            _remove_cache(options)  # of a run that was killed after its result
            return
        state.check(checkpoint, key)
        print(manifest.classes_in_words(dataset.classes))
        if len(dataset.classes) == 1:
            print(
                f"warning: a model of one class, {dataset.classes[0]!r}, answers the "
                "same for every image; make a DATASET with a folder for each class",
                file=sys.stderr,
            )
        print("\n".join([f"recipe {recipe.name}", *recipe.in_words(), str(choice)]))
        if options.seed is not None:
            keras.utils.set_random_seed(options.seed)
            tf.config.experimental.enable_op_determinism()
        if not options.cpu and not options.virtual_devices:
            distribution.check_precision(recipe.precision, distribution.gpus())
        tf.config.experimental.enable_tensor_float_32_execution(recipe.tf32)
        strategy = distribution.strategy(
            virtual_devices=options.virtual_devices,
            cpu=options.cpu,
            all_reduce=options.all_reduce,
        )
        distribution.check_batch_size(
            recipe.batch_size, strategy.num_replicas_in_sync, recipe.accumulate
        )
        for part in (folder, folder / CHECKPOINT, folder / snapshots.FOLDER):
            folder_lock.remove_scratch(part)
        with (
            StopSignal() as stop,
            data.naming_damage(dataset),
            distribution.naming_device_errors(recipe.batch_size),
        ):
            _Run(dataset, options, strategy, key, stop).train(choice)
        _remove_cache(options)


class _Run:
    """The model, its optimizer and its data, and what becomes of them."""

    def __init__(
        self,
        dataset: Dataset,
        options: TrainOptions,
        strategy: tf.distribute.Strategy,
        key: dict[str, Any],
        stop: StopSignal,
    ) -> None:
        folder, recipe = options.model, options.recipe
        self._dataset, self._folder, self._recipe = dataset, folder, recipe
        self._options, self._strategy, self._key = options, strategy, key
        self._stop, self._watchdog = stop, HangDetector(options.hang_minutes)
        self._steps = data.steps_per_epoch(dataset, recipe.batch_size)
        self._checkpoint = _checkpoint(folder)
        _, earlier = state.read(self._checkpoint)
        stream = secrets.randbits(31) if options.seed is None else options.seed
        self._progress = earlier or state.Progress(stream)
        with strategy.scope():
            self._model = model.build(
                height=dataset.image.height,
                width=dataset.image.width,
                classes=len(dataset.classes),
                weights="none" if earlier else options.weights,
                recipe=recipe,
            )
        self._begin(recipe.phase(self._last_epoch()))
        self._inputs: TrainingInputs | None = None
        self._next_save = time.monotonic() + 60 * options.save_minutes
        if earlier:
            state.restore(self._checkpoint, self._model, self._optimizer)

    def train(self, choice: CacheChoice) -> None:
        """Runs the epochs that are missing, and saves the result.

        A kill at any line loses the steps since the last save and nothing else: see
        `_commit_epoch` for the order of what is written.
        """
        self._start_or_go_on()
        starts.add(
            self._folder,
            run=self._key,
            recipe=dataclasses.asdict(self._recipe),
            devices=distribution.devices_in_words(self._strategy),
            versions=_versions(),
            epoch=self._progress.epoch,
            step=self._progress.trained.steps,
            dataset=str(self._dataset.folder.absolute()),
            cache=str(choice),
        )
        with self._watchdog, self._saying_where():
            while self._progress.epoch < self._recipe.epochs:
                phase = self._recipe.phase(self._progress.epoch)
                if phase != self._phase:
                    print(f"from here on, trained are: {phase.trainable}")
                    self._begin(phase)
                inputs = self._inputs_of(phase, choice)
                loop = self._loop_of(phase, inputs)
                first = (
                    self._progress.epoch * self._steps + self._progress.trained.steps
                )
                # (uint8[batch, height, width, 3] or features, int64[batch]), endless.
                # Closed: at the end of Python its threads would wait for ever.
                stream = contextlib.closing(loop.feed(inputs.training(first)))
                with stream as batches, self._naming_batch(inputs.choice):
                    while self._progress.epoch < phase.first_epoch + phase.epochs:
                        trained = self._train_epoch(loop, batches)
                        validated, seconds = self._validate(loop, inputs.validation)
                        self._commit_epoch(trained, validated, seconds)
        self._save_result()

    def _start_or_go_on(self) -> None:
        """Brings MODEL to what the last save covers; without one, saves the start."""
        done, trained = self._progress.epoch, self._progress.trained
        if done or trained.steps:
            print(f"going on after {_where(done, trained.steps, self._steps)}")
        else:
            self._model.summary()
            self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
            self._save_state()  # from here on the folder is known to be this run's
        # Written before a kill, but not covered by a save: the epoch is trained again.
        snapshots.forget_after(self._folder, done)
        history.forget_after(self._folder / history.FILE, done)
        self._board = tensorboard_log.TensorBoardLog(
            self._folder / "tensorboard", history.read(self._folder / history.FILE)
        )
        if not training_inputs.has_validation(self._dataset):
            print("no validation split: no snapshots, and empty val_ columns")

    def _loop_of(self, phase: Phase, inputs: TrainingInputs) -> Loop:
        """Builds the compiled steps of a phase."""
        return Loop(
            self._model,
            self._optimizer,
            self._strategy,
            self._recipe,
            class_weights=_class_weights(self._dataset, self._recipe.class_weights),
            seed=self._progress.stream,
            first_step=phase.first_epoch * self._steps,
            alive=hang_detection.alive,
            source=inputs.source,
        )

    def _inputs_of(self, phase: Phase, choice: CacheChoice) -> TrainingInputs:
        """Returns what a phase trains on: no features where all layers are trained."""
        if choice.features and phase.trainable == "all":
            choice = policy.after_features(choice, self._dataset)
            print(choice)
        if self._inputs and self._inputs.choice.kind == choice.kind:
            return self._inputs
        self._inputs = None  # its memory is free before more is taken
        folder = _cache_folder(self._folder, self._options)
        if choice.features:
            self._inputs = training_inputs.of_features(
                choice,
                self._dataset,
                folder,
                network=self._model,
                strategy=self._strategy,
                recipe=self._recipe,
                seed=self._progress.stream,
            )
        else:
            self._inputs = training_inputs.of_pixels(
                choice,
                self._dataset,
                folder,
                batch_size=self._recipe.batch_size,
                seed=self._progress.stream,
            )
        return self._inputs

    def _last_epoch(self) -> int:
        """Returns the epoch, from 0, that the state was saved in."""
        within = self._progress.trained.steps > 0
        return self._progress.epoch if within else max(0, self._progress.epoch - 1)

    def _begin(self, phase: Phase) -> None:
        """Sets the trainable layers of a phase and builds its optimizer."""
        self._phase = phase
        with self._strategy.scope():
            model.train_only(self._model, phase.trainable)
            self._optimizer = optimizer.build(self._recipe, phase, self._steps)
            self._optimizer.build(self._model.trainable_variables)

    def _commit_epoch(
        self, trained: Trained, validated: Metrics | None, seconds: float
    ) -> None:
        """Writes what an epoch leaves, in an order that survives a kill anywhere.

        Args:
            trained: all steps of the epoch.
            validated: on the validation split, if there is one.
            seconds: that validation took.
        """
        number, best = self._progress.epoch + 1, self._progress.best_val_loss
        row = {
            "epoch": number,
            "seconds": trained.seconds + seconds,
            **trained.metrics._asdict(),
            **_prefixed(validated),
            "learning_rate": float(self._optimizer.learning_rate),
            "images_per_second": self._steps
            * self._recipe.batch_size
            / trained.seconds,
            "input_wait": trained.input_wait,
        }
        # Before the save: what a kill leaves of it, the next start removes.
        if validated and validated.loss < best:
            best = validated.loss
            snapshots.write(self._model, self._folder, number, validated.accuracy)
            hang_detection.alive()
        history.append(self._folder / history.FILE, row)
        # The save: from here on the epoch is done.
        self._progress = dataclasses.replace(
            self._progress, epoch=number, trained=Trained(), best_val_loss=best
        )
        self._save_state()
        # After the save: what a kill prevents, the next start makes of history.csv.
        self._board.add(row)
        if keep := self._options.keep_snapshots:
            snapshots.keep_newest(self._folder, keep)
        print(_line(row))

    def _train_epoch(self, loop: Loop, batches: Iterator[Any]) -> Trained:
        """Takes the rest of an epoch's steps, and saves the state every --save_minutes.

        Raises:
            KeyboardInterrupt: after a signal, and a save.
        """
        images = self._steps * self._recipe.batch_size
        trained = self._progress.trained
        done = trained.steps * self._recipe.batch_size
        title = f"epoch {self._progress.epoch + 1}/{self._recipe.epochs}"
        with progress(images, title, done=done) as bar, self._stop.put_off():
            while not self._stop.requested:
                trained = loop.train(
                    batches, self._steps, bar=bar, since=trained, pause=self._due
                )
                self._progress = dataclasses.replace(self._progress, trained=trained)
                if self._due():
                    self._save_state()
                if trained.steps == self._steps and not self._stop.requested:
                    return trained
        raise KeyboardInterrupt

    def _due(self) -> bool:
        """Returns whether the state should be saved now."""
        return self._stop.requested or time.monotonic() >= self._next_save

    def _validate(
        self, loop: Loop, batches: tf.data.Dataset | None
    ) -> tuple[Metrics | None, float]:
        """Returns the metrics on the validation split, and the seconds that took.

        Raises:
            RunError: they are no finite numbers.
        """
        if batches is None:
            return None, 0.0
        started = time.perf_counter()
        metrics = loop.evaluate(batches)
        divergence.refuse_validation(metrics.loss)
        return metrics, time.perf_counter() - started

    @contextlib.contextmanager
    def _naming_batch(self, choice: CacheChoice) -> Iterator[None]:
        """Has a divergence name the images of the batch that it began with."""
        try:
            yield
        except DivergenceError as error:
            number = self._progress.epoch * self._steps + error.step
            ids = data.ids_of_batch(
                self._dataset,
                permuted=choice.order == policy.PERMUTATION,
                batch_size=self._recipe.batch_size,
                seed=self._progress.stream,
                number=number,
            )
            raise divergence.of_batch(error, self._progress.epoch + 1, ids) from error

    @contextlib.contextmanager
    def _saying_where(self) -> Iterator[None]:
        """Says after a signal, in a line, what is saved and how to go on."""
        try:
            yield
        except KeyboardInterrupt:
            _, saved = state.read(self._checkpoint)
            if saved:
                where = _where(saved.epoch, saved.trained.steps, self._steps)
                print(f"stopped; {where} is saved; the same command goes on")
            raise

    def _save_state(self) -> None:
        state.save(
            self._checkpoint, self._model, self._optimizer, self._progress, self._key
        )
        self._next_save = time.monotonic() + 60 * self._options.save_minutes
        hang_detection.alive()

    def _save_result(self) -> None:
        rows = history.read(self._folder / history.FILE)
        validated = [row for row in rows if row["val_loss"] is not None]
        best = min(validated, key=lambda row: row["val_loss"], default=None)
        facts = {
            "run": self._key,
            "recipe": dataclasses.asdict(self._recipe),
            "replicas": self._strategy.num_replicas_in_sync,
            "epochs": len(rows),
            "last": rows[-1],
            "best": best,
            "versions": _versions(),
        }
        model.save(self._model, self._folder, self._dataset, facts)
        print(f"MODEL {self._folder} is complete; the last epoch was")
        print(_line(rows[-1]))


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }


def _checkpoint(folder: Path) -> Path:
    return folder / CHECKPOINT / "state.npz"


def _remove_cache(options: TrainOptions) -> None:
    """Removes the cache in MODEL; a folder of one's own is kept for later runs."""
    if not options.cache_folder:
        shutil.rmtree(options.model / "cache", ignore_errors=True)


def _cache_folder(folder: Path, options: TrainOptions) -> Path:
    return options.cache_folder or folder / "cache"


def _key(
    dataset: Dataset,
    recipe: Recipe,
    weights: str,
    seed: int | None,
    choice: CacheChoice,
) -> dict[str, Any]:
    """Returns what a run must have in common with the run that it resumes."""
    choices = dataclasses.asdict(recipe)
    if recipe.schedule != "cosine":
        del choices["epochs"]  # may be raised
    return {
        "image": dataset.image.pixels(),
        "classes": manifest.classes_entry(dataset.classes),
        "dataset": dataset.fingerprint,
        "recipe": choices,
        "weights": _weights_key(weights),
        "seed": seed,
        "dropout_masks": DROPOUT_MASKS if recipe.dropout else None,
        **choice.key(),
    }


def _weights_key(weights: str) -> str:
    """Names the weights by what they are: a file by its content, wherever it lies."""
    path = Path(weights)
    if weights in ("imagenet", "none") or not path.is_file():
        return weights
    return f"sha256:{atomic.sha256(path)}"


def _is_finished(folder: Path, key: dict[str, Any], epochs: int) -> bool:
    """Returns whether MODEL holds this run with as many epochs; refuses another's."""
    path = folder / model.MANIFEST
    if path.is_file():
        earlier = atomic.read_json(path)
        if different := difference(earlier["run"], key):
            raise RunError(
                f"MODEL {folder} belongs to another run: {different}. Use the values "
                "of that run, or another MODEL folder."
            )
        return earlier["epochs"] >= epochs
    if _checkpoint(folder).is_file():  # of which run, its content tells
        return False
    # Of a run that was killed before it saved, and of this one, which holds the lock.
    if any(path.name != CHECKPOINT for path in folder.iterdir()):
        raise RunError(
            f"MODEL {folder} is there already and no training run made it. Name a new "
            "or an empty folder."
        )
    return False


def _class_weights(dataset: Dataset, power: float) -> list[float] | None:
    """Returns weights of the loss by class; their mean over the examples is 1."""
    if not power:
        return None
    counts = np.array(manifest.class_counts(dataset, "train"))
    weights = np.maximum(counts, 1.0) ** -power
    mean = (weights * counts).sum() / counts.sum()
    found: list[float] = (weights / mean).tolist()
    return found


def _where(epochs: int, steps: int, of: int) -> str:
    """Returns how far a run is, in words."""
    within = f"step {steps} of {of} of epoch {epochs + 1}"
    return within if steps else f"epoch {epochs}"


def _prefixed(validated: Metrics | None) -> history.Row:
    values = validated._asdict() if validated else dict.fromkeys(Metrics._fields)
    return {f"val_{name}": value for name, value in values.items()}


def _line(row: history.Row) -> str:
    """Returns an epoch in words."""
    shown = [f"{name} {row[name]:.4f}" for name in ("loss", "accuracy")]
    if row["val_loss"] is not None:
        shown += [f"{name} {row[name]:.4f}" for name in ("val_loss", "val_accuracy")]
    return (
        f"epoch {row['epoch']}: {', '.join(shown)}; {row['seconds']:.1f} s, "
        f"{row['images_per_second']:.1f} images/s, input wait {row['input_wait']:.0%}"
    )
