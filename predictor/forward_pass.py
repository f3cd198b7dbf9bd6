"""The model on all replicas."""

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.system.errors import RunError
from predictor.inputs.inputs import Batch

_TOLD = 10  # ids in a message


class ForwardPass:
    """A model that is asked for probabilities, and nothing else.

    Args:
        network: from pixels to float32 probabilities, made under the strategy.
        strategy: whose replicas share every batch.
    """

    def __init__(self, network: keras.Model, strategy: tf.distribute.Strategy) -> None:
        self._strategy, self._classes = strategy, network.output_shape[-1]
        self._step = tf.function(
            lambda images: strategy.run(network, (images,), {"training": False}),
            reduce_retracing=True,  # batches of all sizes share a graph
        )

    def stream(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, np.ndarray]]:
        """Yields every batch with its float32[rows, classes].

        A batch is computed while the one before is fetched and used.
        """
        launched: deque[tuple[Batch, Any]] = deque()
        for batch in batches:
            # Without rows there is nothing to compute: a convolution would fail.
            begun = self._launch(batch.images) if batch.ids else None
            launched.append((batch, begun))
            if len(launched) > 1:
                yield self._fetched(*launched.popleft())
        if launched:
            yield self._fetched(*launched.popleft())

    def _launch(self, images: np.ndarray) -> Any:
        """Begins with uint8[rows, height, width, 3], cut among the replicas.

        Rows of zeros are added where a replica would have none, or fewer than another.
        """
        replicas = self._strategy.num_replicas_in_sync
        if missing := -len(images) % replicas:
            images = np.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)])
        parts = np.split(images, replicas)

        def on_device(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
            index = context.replica_id_in_sync_group
            # Or all of them would go to the first device, and from there to the others.
            with tf.device(self._strategy.extended.worker_devices[index]):
                return tf.constant(parts[index])

        return self._step(
            self._strategy.experimental_distribute_values_from_function(on_device)
        )

    def _fetched(self, batch: Batch, launched: Any) -> tuple[Batch, np.ndarray]:
        if launched is None:
            return batch, np.empty((0, self._classes), np.float32)
        results = self._strategy.experimental_local_results(launched)
        parts = [part.numpy() for part in results]
        probabilities = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return batch, probabilities[: len(batch.ids)]


@contextlib.contextmanager
def naming_shortage(batch_size: int) -> Iterator[None]:
    """Says that a batch is too large for the device's memory."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise RunError(
            f"a batch of {batch_size} images does not fit into the memory of the "
            f"device (TensorFlow: {error.message.splitlines()[0]}). What was committed "
            "is kept: run the same command again with a smaller --batch_size."
        ) from error


def refuse_infinite(ids: Sequence[str], probabilities: np.ndarray) -> None:
    """Stops at a row that is no probabilities.

    A sum is finite where all that is summed is, and takes less time than a look.

    Raises:
        RunError: with the first ids.
    """
    finite = np.isfinite(probabilities.sum(axis=1))
    if not finite.all():
        bad = [name for name, good in zip(ids, finite, strict=True) if not good]
        raise RunError(
            f"the model's output is not finite for {len(bad)} of {len(ids)} images: "
            f"{', '.join(bad[:_TOLD])}. MODEL is broken; nothing of this shard was "
            "kept. Predict with a snapshot of it, or train again with a lower "
            "--learning_rate."
        )
