"""From tf.data to the replicas."""

import threading

import numpy as np
import pytest


@pytest.fixture
def feed(tf):
    """`to_replicas` on so many logical CPUs, with the strategy."""
    from trainer.training.device_feed import to_replicas

    def start(batches, replicas: int, batch_size: int):
        devices = [f"CPU:{index}" for index in range(replicas)]
        strategy = tf.distribute.MirroredStrategy(devices)
        return to_replicas(batches, strategy, batch_size=batch_size), strategy

    return start


@pytest.mark.parametrize("replicas", [1, 2])
def test_every_row_reaches_one_replica_in_order(tf, feed, replicas: int) -> None:
    rows = np.arange(24)
    batches = tf.data.Dataset.from_tensor_slices((rows, 2 * rows)).batch(4)
    stream, strategy = feed(batches, replicas, 4)
    found, devices = [], set()
    for pair in stream:
        first, second = map(strategy.experimental_local_results, pair)
        assert len(first) == replicas
        for a, b in zip(first, second, strict=True):
            assert len(a) == 4 // replicas
            np.testing.assert_array_equal(2 * a, b)
            devices |= {a.device, b.device}
        found.extend(np.concatenate(first))
    assert found == list(rows)
    assert len(devices) == replicas


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("count", [3, 5, 7])
def test_a_short_end_is_filled_up_with_zeros(
    tf, feed, replicas: int, count: int
) -> None:
    rows = np.arange(1, 4 + count + 1)
    batches = tf.data.Dataset.from_tensor_slices((rows, {"twice": 2 * rows})).batch(4)
    stream, strategy = feed(batches, replicas, 4)
    found = []
    for first, second in stream:
        parts = strategy.experimental_local_results(first)
        assert [len(part) for part in parts] == [4 // replicas] * replicas
        found.extend(np.concatenate(parts))
        twice = strategy.experimental_local_results(second["twice"])
        np.testing.assert_array_equal(np.concatenate(twice), 2 * np.concatenate(parts))
    np.testing.assert_array_equal(found, np.pad(rows, (0, -len(rows) % 4)))


def test_the_parts_of_a_batch_share_its_memory(tf, feed) -> None:
    """A row here is no multiple of 64 bytes, as a picture of 200x150 is not."""
    pictures = np.zeros((64, 150, 200, 3), np.uint8)
    batches = tf.data.Dataset.from_tensors((pictures,))
    stream, strategy = feed(batches, 2, 64)
    (pair,) = list(stream)
    first, second = (
        np.from_dlpack(part) for part in strategy.experimental_local_results(pair[0])
    )
    assert second.ctypes.data - first.ctypes.data == first.nbytes


def test_a_step_is_traced_once(tf, feed) -> None:
    batches = tf.data.Dataset.from_tensor_slices((np.arange(24), np.arange(24)))
    stream, strategy = feed(batches.batch(4), 2, 4)
    step = tf.function(lambda a, b: strategy.run(lambda x, y: x + y, (a, b)))
    for pair in stream:
        step(*pair)
    assert step.experimental_get_tracing_count() == 1


def test_an_error_of_the_input_comes_through(tf, feed) -> None:
    before = _feeding()
    numbers = tf.data.Dataset.range(4).map(
        lambda x: (
            tf.debugging.check_numerics(
                1 / tf.cast(2 - x, tf.float32), "beyond the second"
            ),
        )
    )
    stream, _ = feed(numbers.batch(2).repeat(), 1, 2)
    next(stream)
    with pytest.raises(tf.errors.InvalidArgumentError, match="beyond the second"):
        next(stream)
    assert not _feeding() - before


def test_a_stream_may_be_dropped_while_it_reads_ahead(tf, feed) -> None:
    before = _feeding()
    images = np.zeros((64, 200, 150, 3), np.uint8)
    endless = tf.data.Dataset.from_tensors((images, np.zeros(64))).repeat().prefetch(2)
    for taken in range(20):
        stream, _ = feed(endless, 2, 64)
        for _ in range(taken % 3 + 1):
            next(stream)
        del stream
    assert not _feeding() - before


def _feeding() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name.startswith("feed")}
