"""tf.data: each function is one chain, to be read from top to bottom.

They read shards, or a store: a whole split at hand (trainer.cache.stores), whose epochs
are full permutations. A comment behind a step has the type of its elements.
"""

import atexit
import gc
import warnings
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from pipeline.dataset import record
from pipeline.dataset.manifest import Dataset, Shard
from pipeline.storage.object_paths import ObjectPath
from pipeline.system import resources
from pipeline.system.errors import RunError
from trainer.data import permutation
from trainer.data.verified_shards import verified_paths

SHUFFLE_BYTES = 256 << 20  # of serialized records, whatever the machine has
READERS = 16  # shards that are mixed; part of the order, so no function of the machine
READ_BYTES = 1 << 20
AHEAD_BYTES = 64 << 20  # of serialized records: decoding goes on while a shuffle fills

# Decoded in one call. More of them no longer pay, and take longer to build: a graph
# has a node for each, and a batch of 1,024 at once would start 0.6 s later.
DECODED_TOGETHER = 64

_FETCHES = 4  # at once


class Store(Protocol):
    """All examples of a split, at hand by their position.

    Attributes:
        examples: how many.
    """

    examples: int

    def serve(
        self, positions: Callable[[int], tf.data.Dataset], batch_size: int
    ) -> tf.data.Dataset:
        """Serves the examples at given positions, in the order of these.

        Args:
            positions: from a batch size to int64[batch], endless full batches or the
                whole split with a short last one.
            batch_size: of the result.

        Returns:
            Elements (uint8[batch, height, width, 3], int64[batch]).
        """


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    """Counts full batches of the train split; the rest opens the next epoch.

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
    dataset: Dataset, *, batch_size: int, seed: int, first_batch: int = 0
) -> tf.data.Dataset:
    """Streams permutations of the train split without end, in full batches.

    What a permutation leaves over opens the next batch, so that every image is seen
    once before any is seen again.

    Args:
        dataset: its `train` split is read.
        batch_size: global, over all replicas.
        seed: of the permutations; the stream is the same on every machine.
        first_batch: where to start. The epochs before are not read; of its own epoch,
            what comes before is read but not decoded.

    Returns:
        Elements (uint8[batch_size, height, width, 3], int64[batch_size]).

    Raises:
        RunError: the split is smaller than a batch.
        tf.errors.OpError (when iterated): a shard is damaged, or has other records
            than promised; see verified_shards.naming_damage.
    """
    steps_per_epoch(dataset, batch_size)
    parse = _parser(dataset)
    together = min(batch_size, DECODED_TOGETHER)
    ahead = AHEAD_BYTES // (_record_bytes(dataset) * together)
    chain = (
        records(dataset, seed=seed, first_example=first_batch * batch_size)  # string[]
        .batch(together, drop_remainder=True)  # string[together]
        .prefetch(max(1, ahead))  # decoding goes on while a shuffle fills
        .map(
            lambda serialized: parse(serialized)[1:],
            num_parallel_calls=resources.cores() + 1,
        )  # (uint8[together, height, width, 3], int64[together])
    )
    if together < batch_size:
        # (uint8[batch_size, height, width, 3], int64[batch_size])
        chain = chain.rebatch(batch_size, drop_remainder=True)
    return chain.prefetch(2).with_options(options())


def records(dataset: Dataset, *, seed: int, first_example: int = 0) -> tf.data.Dataset:
    """Streams permutations of the train split without end, serialized.

    Every epoch has its own order of shards and its own shuffle, both functions of seed
    and epoch, so that a stream that starts late need not read the epochs before.

    Returns:
        Elements string[].
    """
    split = dataset.split("train")
    window = min(SHUFFLE_BYTES // _record_bytes(dataset), split.examples)
    path_of = verified_paths(dataset, split.shards)
    mixed = min(READERS, len(split.shards))

    def order_of_shards(epoch: np.int64) -> np.ndarray:
        return permutation.permutation(seed, int(epoch), len(split.shards))

    def of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.numpy_function(order_of_shards, [epoch], tf.int64, stateful=False)
        in_turn = (
            tf.data.Dataset.from_tensor_slices(order)  # int64[], of a shard
            .map(path_of, num_parallel_calls=_fetched_together(dataset))  # string[]
            .interleave(
                _read,
                cycle_length=mixed,
                num_parallel_calls=min(mixed, resources.cores()),
                deterministic=True,
            )  # string[], serialized: decoded ones take nine times the memory
            # Before anything that could hide a short shard.
            .apply(tf.data.experimental.assert_cardinality(split.examples))
        )
        return _shuffled(in_turn, window, seed, epoch)

    first_epoch, skipped = divmod(first_example, split.examples)
    return (
        tf.data.Dataset.counter(first_epoch)  # int64[]
        .flat_map(of_epoch)  # string[]
        .skip(skipped)
    )


def for_validation(dataset: Dataset, *, batch_size: int) -> tf.data.Dataset:
    """Reads the validation split once, in order, for `keras.Model.fit`.

    The last batch may be short. In the scope of a strategy, which hands out every batch
    in equal parts, the last images are left out that its replicas cannot share evenly,
    and a warning says how many: many layers fail on a part without an image.

    Args:
        dataset: its `validation` split is read.
        batch_size: global, over all replicas.

    Returns:
        Elements (uint8[batch, height, width, 3], int64[batch]).

    Raises:
        RunError: there is no validation split.
        ValueError: the batch does not divide by the replicas of the scope.
        tf.errors.OpError (when iterated): see `for_inference`.
    """
    split = dataset.split("validation")
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if batch_size % replicas:
        raise ValueError(
            f"batch_size is {batch_size}, which does not divide by {replicas} replicas"
        )
    if left_out := split.examples % replicas:
        warnings.warn(
            f"{left_out} of {split.examples} validation images are left out: "
            f"{replicas} replicas cannot share them evenly",
            stacklevel=2,
        )
    return (
        in_shard_order(dataset, split.shards)  # string[]
        .take(split.examples - left_out)
        .batch(batch_size)  # string[batch]
        .map(_parser(dataset), num_parallel_calls=resources.cores() + 1)
        .map(lambda batch: (batch.images, batch.labels))
        .prefetch(2)
        .with_options(options())
    )


def for_inference(
    dataset: Dataset, shards: Sequence[Shard], *, batch_size: int, first: int = 0
) -> tf.data.Dataset:
    """Reads some shards once, in their order; the last batch may be short.

    Args:
        dataset: where the shards are.
        shards: of one split, or a part of them.
        batch_size: global, over all replicas.
        first: how many records to leave out; they are read, but not decoded.

    Returns:
        Elements record.Batch(ids, images, labels).

    Raises:
        tf.errors.OpError (when iterated): a shard is damaged, or has other records
            than promised; see verified_shards.naming_damage.
    """
    return (
        in_shard_order(dataset, shards)  # string[]
        .skip(first)
        .batch(batch_size)  # string[batch]
        .map(_parser(dataset), num_parallel_calls=resources.cores() + 1)
        # (string[batch], uint8[batch, height, width, 3], int64[batch])
        .prefetch(2)
        .with_options(options())
    )


def by_shard(
    dataset: Dataset, shards: Sequence[Shard], *, batch_size: int, at_once: int
) -> tf.data.Dataset:
    """Reads some shards once, in batches that are of one shard each.

    Args:
        dataset: where the shards are.
        shards: of one split, or a part of them.
        batch_size: the last batch of a shard may be short.
        at_once: shards that are read side by side, a batch of each in turn.

    Returns:
        Elements (int64[], record.Batch): the position of the shard in `shards`.

    Raises:
        as `for_inference`.
    """
    path_of, parse = verified_paths(dataset, shards), _parser(dataset)
    examples = tf.constant([shard.examples for shard in shards], tf.int64)

    def batches(position: tf.Tensor) -> tf.data.Dataset:
        return (
            _read(path_of(position))  # string[]
            .apply(tf.data.experimental.assert_cardinality(examples[position]))
            .batch(batch_size)  # string[batch]
            .map(lambda serialized: (position, serialized))
        )

    return (
        tf.data.Dataset.range(len(shards))  # int64[]
        .interleave(batches, cycle_length=at_once)  # (int64[], string[batch])
        .map(
            lambda position, serialized: (position, parse(serialized)),
            num_parallel_calls=resources.cores() + 1,
        )  # (int64[], record.Batch)
        .prefetch(2)
        .with_options(options())
    )


def in_shard_order(dataset: Dataset, shards: Sequence[Shard]) -> tf.data.Dataset:
    """Reads some shards once, in their order, serialized.

    Returns:
        Elements string[].
    """
    examples = sum(shard.examples for shard in shards)
    paths = (
        tf.data.Dataset.range(len(shards)).map(  # int64[]
            verified_paths(dataset, shards),
            num_parallel_calls=_fetched_together(dataset),
        )  # string[]
    )
    return tf.data.TFRecordDataset(paths, buffer_size=READ_BYTES).apply(
        tf.data.experimental.assert_cardinality(examples)
    )  # string[], serialized


def from_store(
    store: Store,
    *,
    batch_size: int,
    seed: int,
    first_batch: int = 0,
) -> tf.data.Dataset:
    """Does as `for_training`, from a store: an epoch is a permutation of its examples.

    The stream is a function of seed and position; starting anywhere costs nothing.

    Args:
        store: of images, or of their features.
        batch_size, seed, first_batch: see `for_training`.
    """

    def positions(size: int) -> tf.data.Dataset:
        first = first_batch * batch_size
        return permutation.batches(store.examples, size, seed=seed, first_example=first)

    return (
        store.serve(positions, batch_size)
        # (uint8[batch_size, height, width, 3] or features, int64[batch_size])
        .prefetch(2)
        .with_options(options())
    )


def in_order(store: Store, *, batch_size: int) -> tf.data.Dataset:
    """Reads a store once, in the order of the shards; the last batch may be short.

    Returns:
        Elements (uint8[batch, height, width, 3] or features, int64[batch]).
    """

    def positions(size: int) -> tf.data.Dataset:
        return tf.data.Dataset.range(store.examples).batch(size)

    return (
        store.serve(positions, batch_size)
        # (uint8[batch, height, width, 3] or features, int64[batch])
        .prefetch(2)
        .with_options(options())
    )


def ids_of_batch(
    dataset: Dataset, *, permuted: bool, batch_size: int, seed: int, number: int
) -> list[str]:
    """Finds the ids of a batch of training again, by its number.

    Args:
        dataset: whose train split was fed.
        permuted: by `from_store`; else by `for_training`.
        batch_size, seed: of the stream.
        number: of the batch, from 0.
    """
    first, shards = number * batch_size, dataset.split("train").shards
    if permuted:
        examples = dataset.split("train").examples
        batches = permutation.batches(
            examples, batch_size, seed=seed, first_example=first
        )
        positions = next(iter(batches)).numpy().tolist()
        wanted = set(positions)
        stored = enumerate(in_shard_order(dataset, shards).as_numpy_iterator())
        by_position = {at: one for at, one in stored if at in wanted}
        batch = [by_position[at] for at in positions]
    else:
        shuffled = records(dataset, seed=seed, first_example=first)
        batch = list(shuffled.take(batch_size).as_numpy_iterator())
    return [id.decode() for id in record.fields(batch)[record.FILENAME].numpy()]


@atexit.register
def close_iterators() -> None:
    """Ends every tf.data iterator of this process that is still open.

    All chains here call Python from threads of tf.data, for permutations, for cached
    records and for the checksums of shards. Python kills a thread that wants to run it
    once the interpreter has begun to end, and the iterator, which is deleted after
    that, waits for this thread for ever: of 45 processes that left an iterator of
    encoded records open, 5 did not end. So iterators end before the interpreter does,
    when their threads can still finish. No chain can do this itself, as users add steps
    to it, and exceptions and notebooks keep iterators alive.
    """
    for one in gc.get_objects():
        if tf.data.Iterator in type(one).__mro__:
            vars(one).clear()  # the resource among them, which ends the threads


def options() -> tf.data.Options:
    """Returns the options of every chain.

    As many threads as this process has cores, which TensorFlow does not know of in a
    container; buffers and parallel calls have their sizes, so nothing is tuned, and no
    graph rewritten. Nor is it cut into parts for several machines, as a strategy would
    have it: that takes out the check that a shard has all of its records.
    """
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.OFF
    )
    options.threading.private_threadpool_size = resources.cores()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options


def _parser(dataset: Dataset) -> Callable[[tf.Tensor], record.Batch]:
    height, width = dataset.image.height, dataset.image.width
    return lambda serialized: record.parse(serialized, height=height, width=width)


def _fetched_together(dataset: Dataset) -> int | None:
    """Shards of a store that are fetched while others are read; their order stays."""
    return _FETCHES if isinstance(dataset.folder, ObjectPath) else None


def _read(path: tf.Tensor) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(path, buffer_size=READ_BYTES)


def _shuffled(
    records: tf.data.Dataset, window: int, seed: int, epoch: tf.Tensor
) -> tf.data.Dataset:
    """Shuffles as `Dataset.shuffle` does, as a function of the seeds alone.

    That method mixes in the global seed, and adds an op with a state, because of which
    a deterministic run would lose all parallelism of the chain.
    """
    variant = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(records),
        buffer_size=window,
        seed=seed + 1,  # zero for both would mean: any
        seed2=epoch,
        reshuffle_each_iteration=False,
        output_types=[tf.string],
        output_shapes=[[]],
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))


def _record_bytes(dataset: Dataset) -> int:
    """Returns the mean length of a framed record of the train split."""
    split = dataset.split("train")
    return max(1, sum(shard.bytes for shard in split.shards) // split.examples)
