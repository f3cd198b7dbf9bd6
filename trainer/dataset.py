"""tf.data over the shards: one chain for training, one for inference."""

import contextlib
import functools
from collections.abc import Iterator, Sequence

import tensorflow as tf

from pipeline import manifest, record
from pipeline.console import RunError
from pipeline.manifest import Dataset, Shard

SHUFFLE_RECORDS = 16_384  # about 160 MB of serialized 200x150 JPEGs
READERS = 16  # shards read at a time
READ_BYTES = 1 << 20


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    """Full batches in the train split; what is left over opens the next epoch.

    Raises:
        RunError: there is no train split, or it is smaller than a batch.
    """
    examples = dataset.split("train").examples
    if examples < batch_size:
        raise RunError(
            f"the train split of {dataset.folder} has {examples} examples, fewer than "
            f"a batch of {batch_size}. Use a smaller --batch_size."
        )
    return examples // batch_size


def for_training(
    dataset: Dataset, *, batch_size: int, seed: int | None = None, first_batch: int = 0
) -> tf.data.Dataset:
    """An endless stream of permutations of the train split, in full batches.

    What a permutation leaves over opens the next batch, so that every image is seen
    once before any is seen again.

    Args:
        dataset: its `train` split is read.
        batch_size: global, over all replicas.
        seed: of the permutations; with it the stream is the same on every machine.
        first_batch: where to start; what comes before is read but not decoded.

    Returns:
        Elements (uint8[batch_size, height, width, 3], int64[batch_size]).

    Raises:
        RunError: the split is smaller than a batch.
        tf.errors.OpError (when iterated): a shard is damaged, or has other records
            than promised.
    """
    steps_per_epoch(dataset, batch_size)
    examples = dataset.split("train").examples
    paths = [str(path) for path in dataset.paths("train")]
    records = (
        tf.data.Dataset.from_tensor_slices(paths)
        .shuffle(len(paths), seed=seed)
        .interleave(
            _read,
            cycle_length=min(READERS, len(paths)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=seed is not None,
        )
        # Before anything that could hide a short shard.
        .apply(tf.data.experimental.assert_cardinality(examples))
        # Serialized records: decoded ones take nine times the memory.
        .shuffle(min(SHUFFLE_RECORDS, examples), seed=seed)
        # After the shuffle, so that a permutation ends before the next begins.
        .repeat()
        .batch(batch_size, drop_remainder=True)
        .skip(first_batch)
    )
    return (
        records.map(_parser(dataset), num_parallel_calls=tf.data.AUTOTUNE)
        .map(lambda batch: (batch.images, batch.labels))
        .prefetch(tf.data.AUTOTUNE)
    )


def for_inference(
    dataset: Dataset, shards: Sequence[Shard], *, batch_size: int
) -> tf.data.Dataset:
    """Every record of some shards once, in their order; the last batch may be short.

    Args:
        dataset: where the shards are.
        shards: of one split, or a part of them.
        batch_size: global, over all replicas.

    Returns:
        Elements record.Batch(ids, images, labels).

    Raises:
        tf.errors.OpError (when iterated): a shard is damaged, or has other records
            than promised.
    """
    examples = sum(shard.examples for shard in shards)
    paths = [str(dataset.folder / shard.file) for shard in shards]
    return (
        tf.data.TFRecordDataset(paths, buffer_size=READ_BYTES)
        .apply(tf.data.experimental.assert_cardinality(examples))
        .batch(batch_size)
        .map(_parser(dataset), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )


@contextlib.contextmanager
def naming_damage(dataset: Dataset) -> Iterator[None]:
    """Turns TensorFlow's error of a damaged shard into one that names the shard."""
    try:
        yield
    except tf.errors.OpError as error:
        damaged = manifest.find_damage(dataset)
        if damaged is None:
            raise
        reason = error.message.splitlines()[0]
        raise RunError(f"{damaged} (TensorFlow: {reason})") from error


def _read(path: tf.Tensor) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(path, buffer_size=READ_BYTES)


def _parser(dataset: Dataset) -> functools.partial:
    return functools.partial(
        record.parse, height=dataset.image.height, width=dataset.image.width
    )
