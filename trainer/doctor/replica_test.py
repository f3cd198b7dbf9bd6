"""All replicas tried out, each time in a process of its own: it may hang."""

import contextlib
import faulthandler
import itertools
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from pipeline.system.child_process import end_with_the_parent
from trainer.recipe import RECIPES, Recipe

_BYTES = 64 << 20  # of what is summed
_REPEATS = 5
_SIZE, _CLASSES, _STEPS = 32, 3, 2
_ROWS = 4  # of each replica


class ChildError(Exception):
    """The process hung, or failed."""


def all_reduce() -> tuple[int, float]:
    """Sums 64 MB of all replicas, and checks the sum.

    Returns:
        The number of replicas, and bytes per second and replica.

    Raises:
        ChildError: the sum is wrong.
    """
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(_devices())
    replicas = strategy.num_replicas_in_sync

    @tf.function
    def summed() -> Any:
        def replica() -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            mine = tf.cast(context.replica_id_in_sync_group + 1, tf.float32)
            values = tf.fill([_BYTES // 4], mine)
            return tf.reduce_max(context.all_reduce("SUM", values))

        return strategy.run(replica)

    expected = replicas * (replicas + 1) / 2
    started = time.perf_counter()
    for repeat in range(_REPEATS + 1):
        found = [float(one) for one in strategy.experimental_local_results(summed())]
        if found != [expected] * replicas:
            raise ChildError(f"1 + … + {replicas} was summed to {found}")
        if not repeat:
            started = time.perf_counter()  # the graph is made
    return replicas, _REPEATS * _BYTES / (time.perf_counter() - started)


def parity() -> float:
    """Trains one device and all on the same batches, in float32 without dropout.

    Returns:
        How far the weights are apart in the end, as a share of how far they moved.
    """
    import tensorflow as tf

    from pipeline.system.console import progress

    # TF32 would round to 10 bits, and differently for 8 rows and for 4.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    devices = _devices()
    size = _ROWS * len(devices)
    recipe = replace(RECIPES["demo"], dropout=0.0, batch_size=size, hidden=16)
    images, labels = _examples(size * _STEPS, _SIZE, _SIZE)
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(size)
    ends = []
    for used in (devices[:1], devices):
        loop, network = _loop(used, recipe, _SIZE, _SIZE)
        start = _flat(network)
        with progress(len(labels), "parity") as bar:
            loop.train(loop.feed(batches), _STEPS, bar=bar)
        ends.append(_flat(network))
    one, two = ends
    return float(np.linalg.norm(two - one) / np.linalg.norm(one - start))


def copies(recipe: Recipe, height: int, width: int) -> tuple[float, float]:
    """Measures how long a batch of pixels is copied to the devices, and a step on it.

    Args:
        recipe: of the training.
        height, width: of its images.

    Returns:
        Seconds of a copy, and of a step whose batch is on the devices already.
    """
    import tensorflow as tf
    from tqdm import tqdm

    size = recipe.batch_size
    loop, _ = _loop(_devices(least=1), recipe, height, width)
    batch = tf.data.Dataset.from_tensors(_examples(size, height, width))
    fed = loop.feed(batch.repeat())
    here = next(fed)

    def copy(count: int) -> None:
        for _ in range(count):
            next(fed)

    def step(count: int) -> None:
        with tqdm(disable=True) as bar:
            loop.train(itertools.repeat(here), count, bar=bar)

    def seconds(work: Callable[[int], None]) -> float:
        work(2 * recipe.steps_per_execution)  # makes the graph, empties the buffers
        started, count = time.perf_counter(), _REPEATS * recipe.steps_per_execution
        work(count)
        tf.test.experimental.sync_devices()
        return (time.perf_counter() - started) / count

    with contextlib.closing(fed):
        return seconds(copy), seconds(step)


def placement() -> list[str]:
    """Feeds a batch to the replicas, and looks where it and the weights lie.

    Returns:
        What lies elsewhere than on the device of its replica, and where.
    """
    import tensorflow as tf

    from trainer.training import device_feed

    strategy = tf.distribute.MirroredStrategy(_devices(least=1))
    with strategy.scope():
        weights = tf.Variable(tf.zeros([_SIZE, _CLASSES]))
    size = _ROWS * strategy.num_replicas_in_sync
    # All that a batch may bring: pixels, features of any dtype, labels.
    batch = {
        dtype: np.ones((size, _SIZE, _SIZE, 3), dtype)
        for dtype in ("uint8", "float16", "float32", "int64")
    }
    feed = device_feed.to_replicas(
        tf.data.Dataset.from_tensors((batch,)), strategy, batch_size=size
    )
    ((fed,),) = list(feed)
    astray = []
    for what, value in {**fed, "weights": weights}.items():
        parts = strategy.experimental_local_results(value)
        for part, device in zip(parts, strategy.extended.worker_devices, strict=True):
            found = tf.DeviceSpec.from_string(tf.convert_to_tensor(part).backing_device)
            wanted = tf.DeviceSpec.from_string(device)
            if (found.device_type, found.device_index) != (
                wanted.device_type,
                wanted.device_index,
            ):
                astray.append(f"{what} of {device} is on {found.to_string()}")
    return astray


def in_child(function: Callable[[], Any], *, timeout: float) -> Any:
    """Calls a function in a fresh process with two logical CPUs.

    Raises:
        ChildError: it takes longer than `timeout` seconds, or fails; why, and its last
            words.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(function, there, timeout))
    child.start()
    there.close()
    try:
        if not here.poll(timeout):
            raise ChildError(f"hung for {timeout:g} s")
        result, error = here.recv()
    except EOFError:
        child.join()
        raise ChildError(f"its process ended with exit code {child.exitcode}") from None
    finally:
        child.kill()
        child.join()
    if error:
        raise ChildError(error)
    return result


def _run(function: Callable[[], Any], answer: Connection, timeout: float) -> None:
    end_with_the_parent()
    # TensorFlow's notes, which nothing else stops.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    faulthandler.enable()
    import tensorflow as tf

    (processor,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        processor, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    try:
        answer.send((function(), None))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        answer.send((None, " ".join(f"{type(error).__name__}: {error}".split())[:300]))


def _devices(*, least: int = 2) -> list[str]:
    """Returns all GPUs; with fewer than `least` of them, two logical CPUs."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:  # else the first to ask takes all of its memory
        tf.config.experimental.set_memory_growth(gpu, True)
    if len(gpus) >= least:
        return [f"GPU:{number}" for number in range(len(gpus))]
    return ["CPU:0", "CPU:1"]


def _examples(count: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns random images, and their labels."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, height, width, 3), np.uint8)
    return images, rng.integers(0, _CLASSES, count)


def _loop(
    devices: Sequence[str], recipe: Recipe, height: int, width: int
) -> tuple[Any, Any]:
    """Returns a loop on some devices, and its network, always with the same weights."""
    import tensorflow as tf

    from trainer import model
    from trainer.training.loop import Loop

    strategy = tf.distribute.MirroredStrategy(devices)
    tf.keras.utils.set_random_seed(1)
    with strategy.scope():
        network = model.build(
            height=height, width=width, classes=_CLASSES, weights="none", recipe=recipe
        )
        model.train_only(network, recipe.phases()[-1].trainable)
        # RMSprop's first steps are signs: rounding would decide them.
        updates = tf.keras.optimizers.SGD(1e-3)
        updates.build(network.trainable_variables)
    return Loop(network, updates, strategy, recipe), network


def _flat(network: Any) -> np.ndarray:
    return np.concatenate([weight.ravel() for weight in network.get_weights()])
