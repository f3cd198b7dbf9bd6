"""Pictures of a DATASET as training sees them: each changed at random, a few times."""

from itertools import islice
from typing import NamedTuple

import tensorflow as tf

from pipeline.dataset import record
from pipeline.dataset.manifest import Dataset
from pipeline.page import pictures
from trainer.data import augmentation
from trainer.recipe import Recipe

_IMAGES = 6
_TIMES = 3
_SIDE = 240  # pixels; a larger picture is made smaller


class Augmented(NamedTuple):
    """An image as it is stored, and as a few steps of training would see it: JPEGs."""

    id: str
    stored: bytes
    seen: list[bytes]


def read(dataset: Dataset, recipe: Recipe, *, seed: int) -> list[Augmented]:
    """Changes the first images of the train split by the code that training uses.

    Raises:
        BadRecordError: the shard is damaged.
    """
    stored = record.read(dataset.paths("train")[0])
    records = [one.record for one in islice(stored, _IMAGES)]
    # uint8[images, height, width, 3]
    images = tf.stack([tf.io.decode_jpeg(one.encoded, channels=3) for one in records])
    steps = []
    for step in range(_TIMES):
        draws = augmentation.draws(seed, step, len(records))
        seen = augmentation.apply(images, draws, recipe.augmentation)
        steps.append(tf.cast(tf.round(seen), tf.uint8).numpy())
    return [
        Augmented(
            one.id,
            pictures.small_jpeg(one.encoded, side=_SIDE),
            [pictures.small_jpeg(step[number], side=_SIDE) for step in steps],
        )
        for number, one in enumerate(records)
    ]
