"""One epoch of training, and one evaluation, over all replicas.

Every number is a sum over examples, divided once at the end: it does not depend on
how many replicas there are, nor on the size of the last batch.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from trainer.recipe import Recipe
from trainer.training import device_feed
from trainer.training.interruptions import uninterrupted
from trainer.training.step import InputSource, Step

_LOOK_EVERY = 10  # steps between two looks at the sums


class Metrics(NamedTuple):
    """Means over examples."""

    loss: float
    accuracy: float
    top5_accuracy: float


class Trained(NamedTuple):
    """An epoch of training, or as much of it as is done.

    Attributes:
        steps: taken.
        sums: of loss, top-1 hits, top-5 hits and examples.
        seconds: from the first batch asked for to the last step done.
        waited: of these, for the next batch.
    """

    steps: int = 0
    sums: tuple[float, ...] = (0.0,) * 4
    seconds: float = 0.0
    waited: float = 0.0

    @property
    def metrics(self) -> Metrics:
        """Returns the means over the batches as they were trained on."""
        return _means(self.sums)

    @property
    def input_wait(self) -> float:
        """Returns the share of the seconds spent waiting for the next batch."""
        return self.waited / self.seconds


class DivergenceError(Exception):
    """The loss is no finite number any more.

    Attributes:
        step: of the epoch, from 0: the first whose loss is not.
        loss: of that step.
    """

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(step, loss)
        self.step, self.loss = step, loss


class Loop:
    """The compiled steps of a model under a strategy.

    Args:
        model: from pixels to probabilities.
        optimizer: of its trainable variables.
        strategy: that both were made under.
        recipe: of the steps.
        class_weights: float32[classes] of the loss; without them, 1.
        seed: of the augmentations.
        first_step: of the optimizer, in the run; augmentations go by it.
        alive: is called after every step, of training and of evaluation.
        source: of what batches bring instead of images.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.Optimizer,
        strategy: tf.distribute.Strategy,
        recipe: Recipe,
        *,
        class_weights: Sequence[float] | None = None,
        seed: int = 0,
        first_step: int = 0,
        alive: Callable[[], None] = lambda: None,
        source: InputSource | None = None,
    ) -> None:
        self._strategy = strategy
        self._batch_size = recipe.batch_size
        self._together = recipe.steps_per_execution
        self._alive = alive
        self._step = Step(
            model,
            optimizer,
            recipe,
            class_weights=class_weights,
            seed=seed,
            first_step=first_step,
            source=source,
        )
        self._train_steps = tf.function(self._train_group)
        self._test_step = tf.function(self._test_batch)

    def feed(self, batches: tf.data.Dataset) -> Generator[Any, None, None]:
        """Brings global batches to their devices, to be taken by `train`."""
        return device_feed.to_replicas(
            batches, self._strategy, batch_size=self._batch_size
        )

    def train(
        self,
        batches: Iterator[Any],
        steps: int,
        *,
        bar: tqdm,
        since: Trained | None = None,
        pause: Callable[[], bool] = lambda: False,
    ) -> Trained:
        """Takes the rest of `steps` optimizer steps on fed (rows, labels) batches.

        Args:
            batches: from `feed`; its first is the first that is taken.
            steps: of the epoch.
            bar: counts images.
            since: what is done of the epoch.
            pause: asked after every call of TensorFlow; when it says so, `train`
                returns with fewer than `steps`.

        Raises:
            DivergenceError: the loss is no finite number any more.
        """
        done = since or Trained()
        recent: list[tf.Tensor] = []  # sums of each step since the last look
        fetched: deque[Future] = deque()  # sums of looks that are not counted yet
        step, waited, started = done.steps, 0.0, time.perf_counter()
        with ThreadPoolExecutor(1, thread_name_prefix="sums") as thread:
            while step < steps:
                asked = time.perf_counter()
                together = min(self._together, steps - step)
                group = tuple(itertools.islice(batches, together))
                waited += time.perf_counter() - asked
                recent.append(self._train_steps(group))
                step += together
                self._alive()
                paused = pause()
                ends = paused or step == steps
                if len(recent) * self._together >= _LOOK_EVERY or ends:
                    # A copy from a device waits for all that it was given before. So a
                    # thread begins it now, and it is needed at the next look only: the
                    # device has work all the time.
                    fetched.append(thread.submit(_fetch, tuple(recent)))
                    recent.clear()
                    while len(fetched) > (0 if ends else 1):
                        taken = fetched.popleft().result()
                        _refuse_divergence(taken, first_step=done.steps)
                        seconds = done.seconds + time.perf_counter() - started
                        done = Trained(
                            done.steps + len(taken),
                            tuple(map(float, done.sums + taken.sum(axis=0))),
                            seconds,
                            done.waited + waited,
                        )
                        waited, started = 0.0, time.perf_counter()
                        bar.set_postfix_str(_in_words(done), refresh=False)
                bar.update(self._batch_size * together)
                if paused:
                    break
        return done

    def evaluate(self, batches: tf.data.Dataset) -> Metrics:
        """Computes the metrics over (rows, labels); each row counts once.

        Dropout and the moving statistics are those of inference.
        """
        # Every row weighs 1; those of zeros, which the feed adds to the last, weigh 0.
        weighted = batches.map(
            lambda rows, labels: (rows, labels, tf.ones_like(labels))
        )
        sums = tf.zeros([4], tf.float64)
        for batch in self.feed(weighted):
            with uninterrupted():
                sums += self._test_step(*batch)
            self._alive()
        return _means(sums.numpy())

    def _train_group(self, group: Sequence[Any]) -> tf.Tensor:
        """Takes the steps of some batches, one after the other.

        Returns:
            float64[len(group), 4]: the sums of each step.
        """
        return tf.stack(
            [self._summed(self._strategy.run(self._step.train, one)) for one in group]
        )

    def _test_batch(self, rows: Any, labels: Any, weights: Any) -> tf.Tensor:
        return self._summed(
            self._strategy.run(self._step.test, (rows, labels, weights))
        )

    def _summed(self, of_replicas: Any) -> tf.Tensor:
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, of_replicas, axis=None)


def _fetch(sums: Sequence[tf.Tensor]) -> np.ndarray:
    """Waits for the sums of some steps: float64[steps, 4]."""
    return np.concatenate([one.numpy() for one in sums])


def _means(sums: Sequence[float]) -> Metrics:
    loss, top1, top5, examples = (float(value) for value in sums)
    return Metrics(loss / examples, top1 / examples, top5 / examples)


def _refuse_divergence(taken: Any, *, first_step: int) -> None:
    """Looks at float64[steps, 4]."""
    for number, sums in enumerate(taken):
        if not -float("inf") < sums[0] < float("inf"):
            raise DivergenceError(first_step + number, sums[0] / sums[3])


def _in_words(done: Trained) -> str:
    metrics = done.metrics
    return (
        f"loss {metrics.loss:.4f}, accuracy {metrics.accuracy:.4f}, "
        f"input wait {done.input_wait:.0%}"
    )
