"""Our own input pipeline for the benchmark: up to every stage, and from a cache."""

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from tqdm import tqdm

from pipeline.dataset import record
from pipeline.dataset.manifest import Dataset
from trainer.data import augmentation as augment
from trainer.data import input_pipeline as data
from trainer.doctor import throughput
from trainer.doctor.throughput import Rate
from trainer.recipe import Augmentation
from trainer.training.loop import Loop

READ, SHUFFLE, PARSE = "read", "shuffle", "parse"
DECODE, DEVICE = "decode and batch", "to the device"
FLIP, AUGMENT = "flip", "all augmentations"
STAGES = (READ, SHUFFLE, PARSE, DECODE, DEVICE, FLIP, AUGMENT)
RECORDS = (READ, SHUFFLE, PARSE)  # stages that hand out JPEGs; the others, pixels

_SEED = 1
_FLIP = Augmentation(flip=True)
_ALL = Augmentation(flip=True, crop=0.35, brightness=0.2, contrast=0.2, saturation=0.2)


def of_shards(
    dataset: Dataset, loop: Loop, strategy: tf.distribute.Strategy, *, batch_size: int
) -> dict[str, Rate]:
    """The rate up to each stage, which has those before it inside.

    JPEGs come in batches of 64, as they are decoded.

    Args:
        dataset: its train split is read.
        loop: feeds the replicas of the strategy.
        strategy: of the loop.
        batch_size: global.
    """
    shards = dataset.split("train").shards
    few = data.DECODED_TOGETHER
    read = data.in_shard_order(dataset, shards).repeat().batch(few, drop_remainder=True)
    shuffled = data.records(dataset, seed=_SEED).batch(few, drop_remainder=True)
    jpegs = {READ: read, SHUFFLE: shuffled, PARSE: shuffled.map(record.fields)}
    decoded = data.for_training(dataset, batch_size=batch_size, seed=_SEED)

    def fed() -> Iterator[Any]:
        return loop.feed(decoded)

    def of(start: Callable[[], Iterator[Any]]) -> Rate:
        return throughput.of_batches(start, batch_size)

    return {
        **{
            name: throughput.of_batches(
                chain.with_options(data.options()).__iter__, few
            )
            for name, chain in jpegs.items()
        },
        DECODE: of(decoded.__iter__),
        DEVICE: of(fed),
        FLIP: of(_augmented(fed, strategy, batch_size, _FLIP)),
        AUGMENT: of(_augmented(fed, strategy, batch_size, _ALL)),
    }


def of_store(store: data.Store, *, batch_size: int) -> Rate:
    """The rate from a cache, every epoch a full permutation."""
    stream = data.from_store(store, batch_size=batch_size, seed=_SEED)
    return throughput.of_batches(stream.__iter__, batch_size)


def of_model(loop: Loop, batch: tuple[tf.Tensor, tf.Tensor]) -> Rate:
    """The rate of training steps, on one batch again and again."""
    stream = loop.feed(tf.data.Dataset.from_tensors(batch).repeat())

    def rate(seconds: float) -> float:
        steps = 1
        with tqdm(disable=True) as bar:
            loop.train(stream, steps, bar=bar)  # makes the graph
            while (done := loop.train(stream, steps, bar=bar)).seconds < seconds:
                steps *= 2
        return steps * len(batch[0]) / done.seconds

    return rate


def _augmented(
    fed: Callable[[], Iterator[Any]],
    strategy: tf.distribute.Strategy,
    batch_size: int,
    augmentation: Augmentation,
) -> Callable[[], Iterator[Any]]:
    """As a training step does it: on the device, from the step's own draws."""
    rows = batch_size // strategy.num_replicas_in_sync

    def replica(images: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        drawn = augment.draws(_SEED, step, rows)
        return augment.apply(images, drawn, augmentation)

    @tf.function
    def all_replicas(images: Any, step: tf.Tensor) -> Any:
        return strategy.run(replica, (images, step))

    def start() -> Iterator[Any]:
        for step, (images, _) in enumerate(fed()):
            yield all_replicas(images, tf.constant(step, tf.int64))

    return start
