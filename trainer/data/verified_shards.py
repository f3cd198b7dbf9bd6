"""Shards, compared with their checksums when they are opened; what is wrong with them.

Chains of tf.data open shards by their position, in threads of its own. An error there
becomes one of TensorFlow's; `naming_damage` turns it back into ours.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from pipeline.dataset import manifest, shard_cache
from pipeline.dataset.manifest import Dataset, Shard
from pipeline.storage.object_paths import ObjectPath
from pipeline.system import io_errors
from pipeline.system.errors import RunError
from trainer import hang_detection

# Why a shard could not be used, by the fingerprint of its dataset: out of a graph comes
# an error of TensorFlow's.
_PROBLEMS: dict[str, RunError] = {}


def verified_paths(dataset: Dataset, shards: Sequence[Shard]) -> Callable:
    """Makes a graph from the position of a shard, int64[], to its path, string[].

    A shard is compared with its checksum when it is opened for the first time: 9 µs
    per record, once in a run. Nothing less tells a shard of another dataset, with
    other labels, from the one that was written. One of a store is fetched first.
    """
    whole: set[str] = set()

    def verify(position: np.int64) -> bytes:
        shard = shards[int(position)]
        # A training that begins late in an epoch opens all shards before it.
        hang_detection.alive()
        with _keeping_problem(dataset), io_errors.explained(dataset.folder):
            if isinstance(dataset.folder, ObjectPath):
                return str(shard_cache.shard_file(dataset, shard)).encode()
            if shard.file not in whole:
                if damage := manifest.damage_of(dataset, shard):
                    raise RunError(damage)
                whole.add(shard.file)
            return str(dataset.folder / shard.file).encode()

    def graph(position: tf.Tensor) -> tf.Tensor:
        path = tf.numpy_function(verify, [position], tf.string, stateful=False)
        return tf.ensure_shape(path, [])

    return graph


@contextlib.contextmanager
def naming_damage(dataset: Dataset) -> Iterator[None]:
    """Turns TensorFlow's error of a shard into one that names the shard.

    Raises:
        UnavailableError: a shard could not be read, which says nothing about it.
        RunError: a shard is damaged.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if problem := _PROBLEMS.pop(dataset.fingerprint, None):
            raise problem from error
        damaged = manifest.find_damage(dataset)
        reason = error.message.splitlines()[0]
        if damaged:
            raise RunError(f"{damaged} (TensorFlow: {reason})") from error
        if found := _system_error(error.message, dataset):
            raise io_errors.failure(found) from error
        raise


def _system_error(message: str, dataset: Dataset) -> OSError | None:
    """Finds what the system said of a shard: `PATH.tfrecord; Input/output error`."""
    for number in errno.errorcode:
        if f".tfrecord; {os.strerror(number)}" in message:
            paths = (path for name in dataset.splits for path in dataset.paths(name))
            # Where none is named, it is a copy that was fetched from a store.
            path = next((p for p in paths if f"{p}; " in message), dataset.folder)
            return OSError(number, os.strerror(number), str(path))
    return None


@contextlib.contextmanager
def _keeping_problem(dataset: Dataset) -> Iterator[None]:
    """Keeps why a shard cannot be used, for `naming_damage`."""
    try:
        yield
    except RunError as error:
        _PROBLEMS[dataset.fingerprint] = error
        raise
