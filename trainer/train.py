"""A training run: DATASET → MODEL, resumed where it stopped."""

import contextlib
import dataclasses
import math
import platform
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.dataset import manifest
from pipeline.dataset.manifest import Dataset
from pipeline.storage import folder_lock
from pipeline.system import console, resources
from pipeline.system.console import in_time, progress
from pipeline.system.errors import RunError
from trainer import hang_detection, model, run_key, starting_weights
from trainer.cache import inputs, policy
from trainer.cache.inputs import TrainingInputs
from trainer.cache.policy import CacheChoice
from trainer.data import input_pipeline as data
from trainer.data import verified_shards
from trainer.hang_detection import HangDetector
from trainer.options import CHECKPOINT, TrainOptions
from trainer.recipe import LAYERS, Phase
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
from trainer.training.checkpoint import RunState
from trainer.training.interruptions import StopSignal
from trainer.training.loop import DivergenceError, Loop, Metrics, Trained


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
        checkpoint = state.path_in(folder)
        earlier = state.read(checkpoint)
        now = manifest.load(options.dataset)
        dataset = state.dataset_as_begun(checkpoint, earlier, now)
        growth = run_key.growth_in_words(dataset, now)
        data.steps_per_epoch(dataset, recipe.batch_size)
        choice = policy.choose(
            dataset,
            recipe,
            options,
            folder=options.caches(folder),
            earlier=earlier.key if earlier else {},
            seeded=options.seed is not None,
        )
        key = run_key.of_run(dataset, options, choice, earlier)
        if run_key.is_finished(folder, key, recipe.epochs, now):
            if dataset is not now:
                raise RunError(
                    f"MODEL {folder} is complete, and {growth}. To train on these, "
                    f"name another MODEL folder{run_key.or_extend(folder, now)}."
                )
            console.conclude(
                f"MODEL {folder} is complete already: {recipe.epochs} epochs.",
                following=_following(dataset, folder),
            )
            _remove_cache(options)  # of a run that was killed after its result
            return
        if earlier:
            state.check(earlier, key, folder)
        elif options.extend:
            starting_weights.check_extension(options.extend, dataset, recipe)
        if dataset is not now:
            console.warn(f"{growth}; the run goes on with those of then")
        console.say("\n".join([_in_words(dataset), *recipe.in_words(), str(choice)]))
        if options.extend and not earlier:
            console.say(
                f"starts from MODEL {options.extend}, whose classes are the first "
                "of these"
            )
        if len(dataset.classes) == 1:
            console.warn(
                f"a model of one class, {dataset.classes[0]!r}, answers the same for "
                "every image; make a DATASET with a folder for each class"
            )
        if "validation" not in policy.splits(dataset):
            console.warn(
                "DATASET has no validation split: there will be no snapshots, and the "
                "val_ columns of history.csv stay empty"
            )
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
            verified_shards.naming_damage(dataset),
            distribution.naming_device_errors(recipe.batch_size),
        ):
            _Run(dataset, options, strategy, earlier, key, stop).train(choice)
        _remove_cache(options)


class _Run:
    """The model, its optimizer and its data, and what becomes of them."""

    def __init__(
        self,
        dataset: Dataset,
        options: TrainOptions,
        strategy: tf.distribute.Strategy,
        earlier: RunState | None,
        key: dict[str, Any],
        stop: StopSignal,
    ) -> None:
        folder, recipe = options.model, options.recipe
        self._dataset, self._folder, self._recipe = dataset, folder, recipe
        self._options, self._strategy = options, strategy
        self._stop, self._watchdog = stop, HangDetector(options.hang_minutes)
        self._steps = data.steps_per_epoch(dataset, recipe.batch_size)
        self._checkpoint = state.path_in(folder)
        stream = secrets.randbits(31) if options.seed is None else options.seed
        self._progress = earlier or RunState(key=key, stream=stream)
        with strategy.scope():
            self._model = model.build(
                height=dataset.image.height,
                width=dataset.image.width,
                classes=len(dataset.classes),
                weights="none" if earlier or options.extend else options.start,
                recipe=recipe,
            )
        if options.extend and not earlier:
            starting_weights.extend(self._model, options.extend)
        self._begin(recipe.phase(self._last_epoch()))
        self._inputs: TrainingInputs | None = None
        self._next_save = time.monotonic() + 60 * options.save_minutes
        if earlier:
            state.restore(self._checkpoint, self._model, self._optimizer)

    def train(self, choice: CacheChoice) -> None:
        """Runs the epochs that are missing, and saves the result.

        A kill at any line loses the steps since the last save, and nothing else. An
        epoch counts as done when `_save_state` has replaced the one file of the state.
        What is written before that is removed by the next start, which trains the
        epoch again with the same batches and the same random numbers; what is written
        after it is made by the next start out of history.csv.
        """
        self._start_or_go_on(choice)
        with self._watchdog, self._saying_where():
            while self._progress.epoch < self._recipe.epochs:
                phase = self._recipe.phase(self._progress.epoch)
                if phase != self._phase:
                    console.say(f"from here on it trains {LAYERS[phase.trainable]}")
                    self._begin(phase)
                fed = self._inputs_of(phase, choice)
                loop = self._loop_of(phase, fed)
                first = (
                    self._progress.epoch * self._steps + self._progress.trained.steps
                )
                # (uint8[batch, height, width, 3] or features, int64[batch]), endless.
                # Closed: at the end of Python its threads would wait for ever.
                stream = contextlib.closing(loop.feed(fed.training(first)))
                with stream as batches, self._naming_batch(fed.choice):
                    for epoch in range(self._progress.epoch + 1, phase.end + 1):
                        # With a save every --save_minutes.
                        trained = self._train_epoch(loop, batches)
                        validated, seconds = self._validate(loop, fed.validation)
                        row = self._row(epoch, trained, validated, seconds)
                        # If a kill comes between these and the save, the next start
                        # removes them.
                        best = self._keep_best(epoch, validated)
                        history.append(self._folder / history.FILE, row)
                        self._progress = dataclasses.replace(
                            self._progress,
                            epoch=epoch,
                            trained=Trained(),
                            best_val_loss=best,
                        )
                        self._save_state()  # from here on the epoch is done
                        # If a kill comes between the save and these, the next start
                        # makes them.
                        self._board.add(row)
                        if keep := self._options.keep_snapshots:
                            snapshots.keep_newest(self._folder, keep)
                        console.say(_line(row, self._recipe.epochs))
        self._save_result()

    def _start_or_go_on(self, choice: CacheChoice) -> None:
        """Brings MODEL to what the last save covers; without one, saves the start."""
        done, trained = self._progress.epoch, self._progress.trained
        if done or trained.steps:
            console.say(f"going on after {_where(done, trained.steps, self._steps)}")
        else:
            self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
            state.keep_dataset(self._checkpoint, self._dataset)
            self._save_state()  # from here on the folder is known to be this run's
        # Written before a kill, but not covered by a save: the epoch is trained again.
        snapshots.forget_after(self._folder, done)
        history.forget_after(self._folder / history.FILE, done)
        rows = history.read(self._folder / history.FILE)
        self._board = tensorboard_log.TensorBoardLog(self._folder / "tensorboard", rows)
        console.say(self._to_do(rows))
        starts.add(
            self._folder,
            run=self._progress.key,
            recipe=dataclasses.asdict(self._recipe),
            devices=distribution.devices_in_words(self._strategy),
            versions=_versions(),
            epoch=self._progress.epoch,
            step=self._progress.trained.steps,
            dataset=str(self._dataset.folder.absolute()),
            cache=str(choice),
        )

    def _to_do(self, rows: Sequence[history.Row]) -> str:
        """Returns what is still to be done, and how long it takes, if that is known."""
        left = self._recipe.epochs - self._progress.epoch
        every = self._model.count_params()
        learning = sum(math.prod(one.shape) for one in self._model.trainable_variables)
        time = "; the first one tells how long they take"
        if rows:
            time = f", about {in_time(left * rows[-1]['seconds'])} by the last one"
        return (
            f"MODEL {self._folder}: VGG16 with {every / 1e6:.1f} M parameters, "
            f"{learning / 1e6:.1f} M of which learn\n"
            f"{left} epoch{'s' * (left > 1)} of {self._steps:,} steps to go{time}"
        )

    def _loop_of(self, phase: Phase, fed: TrainingInputs) -> Loop:
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
            source=fed.source,
        )

    def _inputs_of(self, phase: Phase, choice: CacheChoice) -> TrainingInputs:
        """Returns what a phase trains on; fills what its cache lacks."""
        if (kept := policy.for_phase(choice, phase, self._dataset)) != choice:
            console.say(str(kept))
        if not self._inputs or self._inputs.choice.kind != kept.kind:
            self._inputs = inputs.prepare(
                kept,
                self._dataset,
                self._options.caches(self._folder),
                network=self._model,
                strategy=self._strategy,
                recipe=self._recipe,
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

    def _row(
        self,
        epoch: int,
        trained: Trained,
        validated: Metrics | None,
        seconds: float,
    ) -> history.Row:
        """Returns the row of an epoch in history.csv.

        Args:
            epoch: from 1.
            trained: all steps of the epoch.
            validated: on the validation split, if there is one.
            seconds: that validation took.
        """
        images = self._steps * self._recipe.batch_size
        return {
            "epoch": epoch,
            "seconds": trained.seconds + seconds,
            **trained.metrics._asdict(),
            **_prefixed(validated),
            "learning_rate": float(self._optimizer.learning_rate),
            "images_per_second": images / trained.seconds,
            "input_wait": trained.input_wait,
        }

    def _keep_best(self, epoch: int, validated: Metrics | None) -> float:
        """Writes a snapshot if the loss is the lowest so far; returns the lowest."""
        best = self._progress.best_val_loss
        if not validated or validated.loss >= best:
            return best
        snapshots.write(self._model, self._folder, epoch, validated.accuracy)
        hang_detection.alive()
        return validated.loss

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
            KeyboardInterrupt: after a signal, and a save.
        """
        if batches is None:
            return None, 0.0
        started = time.perf_counter()
        try:
            metrics = loop.evaluate(batches)
        except KeyboardInterrupt:
            self._save_state()  # the training of this epoch, which may have taken hours
            raise
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
            if saved := state.read(self._checkpoint):
                where = _where(saved.epoch, saved.trained.steps, self._steps)
                console.say(f"stopped; {where} is saved; the same command goes on")
            raise

    def _save_state(self) -> None:
        state.save(self._checkpoint, self._progress, self._model, self._optimizer)
        self._next_save = time.monotonic() + 60 * self._options.save_minutes
        hang_detection.alive()

    def _save_result(self) -> None:
        rows = history.read(self._folder / history.FILE)
        facts = {
            "run": self._progress.key,
            "recipe": dataclasses.asdict(self._recipe),
            "replicas": self._strategy.num_replicas_in_sync,
            "epochs": len(rows),
            "last": rows[-1],
            "best": history.best(rows),
            "versions": _versions(),
        }
        model.save(self._model, self._folder, self._dataset, facts)
        console.conclude(
            f"MODEL {self._folder} is complete: {history.in_words(rows)}\n"
            f"  {len(rows)} epochs in {in_time(sum(row['seconds'] for row in rows))}; "
            f"`{console.command('trainer', 'curves', model=self._folder)}` draws them",
            following=_following(self._dataset, self._folder),
        )


def _in_words(dataset: Dataset) -> str:
    """Returns what is trained on."""
    splits = ", ".join(
        f"{split.examples:,} images in {name}"
        for name, split in dataset.splits.items()
        if name != "test"
    )
    return (
        f"DATASET {dataset.folder}: {splits}, of "
        f"{manifest.size_in_words(dataset.image)}; "
        f"{manifest.classes_in_words(dataset.classes)}"
    )


def _following(dataset: Dataset, folder: Path) -> str:
    """Returns the command that comes after a training run."""
    given: dict[str, object] = {"model": folder, "dataset": dataset.folder}
    if "validation" in policy.splits(dataset):
        return console.command("predictor", "evaluate", **given, split="validation")
    return console.command("predictor", "predict", **given, predictions=None)


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }


def _remove_cache(options: TrainOptions) -> None:
    """Removes the cache in MODEL; a folder of one's own is kept for later runs."""
    if not options.cache_folder:
        shutil.rmtree(options.caches(options.model), ignore_errors=True)


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


def _line(row: history.Row, epochs: int) -> str:
    """Returns an epoch in words, and about how long the rest of the epochs take."""
    left = epochs - row["epoch"]
    to_go = f"; about {in_time(left * row['seconds'])} to go" if left else ""
    shown = [f"{name} {row[name]:.4f}" for name in ("loss", "accuracy")]
    if row["val_loss"] is not None:
        shown += [f"{name} {row[name]:.4f}" for name in ("val_loss", "val_accuracy")]
    return (
        f"epoch {row['epoch']}: {', '.join(shown)}; {row['seconds']:.1f} s, "
        f"{row['images_per_second']:.1f} images/s, input wait {row['input_wait']:.0%}"
        f"{to_go}"
    )
