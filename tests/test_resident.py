"""Features in the memory of the devices: the rows that the host would have sent."""

import math
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from test_loop import strategy_of

from pipeline.dataset import manifest
from trainer.recipe import RECIPES

EXAMPLES = 23  # a prime: parts of two sizes
SHAPE = (2, 1, 512)


@pytest.fixture(params=["float32", "float16", "uint8"])
def kept(request: pytest.FixtureRequest, tf):
    """Rows, whose numbers say which row and which view they are."""
    from trainer.cache import features
    from trainer.cache.in_memory import Rows, allocate

    def make(views: int, parts: int):
        count = EXAMPLES * views
        plan = features.Features(
            layer="block4_pool",
            shape=SHAPE,
            dtype=request.param,
            views=views,
            epochs=5,
            parts=parts,
        )
        columns = {}
        for number, (name, (dtype, shape)) in enumerate(plan.columns.items()):
            size = np.dtype(dtype).itemsize * math.prod(shape)
            column = allocate((count, size)).view(dtype).reshape(count, *shape)
            column.T[:] = np.arange(count) + number
            columns[name] = column
        return Rows(columns, np.tile(np.arange(EXAMPLES), views)), plan

    return make


@pytest.fixture
def network(tf):
    from trainer import model

    return model.build(
        height=32, width=40, classes=3, weights="none", recipe=RECIPES["article"]
    )


def steps(tf, dataset, source, strategy, count: int) -> list[tuple]:
    """What a step sees of each batch: features and labels, of all replicas."""
    from trainer.training import device_feed

    see = tf.function(lambda rows: strategy.run(source.train, (rows,)))
    local = strategy.experimental_local_results
    return [
        tuple(np.concatenate(local(each)) for each in (see(rows), labels))
        for rows, labels in islice(device_feed.to_replicas(dataset, strategy), count)
    ]


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("first", [0, 9])
def test_the_same_as_from_the_host(
    tf, kept, network, replicas: int, views: int, first: int
) -> None:
    from trainer import resident
    from trainer.cache import features
    from trainer.data import input_pipeline as data

    strategy = strategy_of(replicas)
    rows, plan = kept(views, replicas)
    how = {"batch_size": 4, "seed": 3, "first_batch": first}
    tables = resident.OnDevices(rows, plan, strategy)
    found = steps(tf, tables.batches(**how), tables.source(network), strategy, 20)
    host = data.from_store(rows, views=views, parts=replicas, **how)
    expected = steps(tf, host, features.source(network, plan), strategy, 20)
    for ours, theirs in zip(found, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    labels = np.concatenate([labels for _, labels in found])
    assert len(set(labels)) == EXAMPLES


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_every_part_is_permuted_for_itself(tf, parts: int) -> None:
    from trainer.data import permutation

    bounds = permutation.cut(EXAMPLES, parts)
    assert bounds[0] == 0
    assert bounds[-1] == EXAMPLES
    batches = permutation.batches(EXAMPLES, 2 * parts, seed=3, parts=parts)
    found = np.array(list(islice(batches.as_numpy_iterator(), 2 * EXAMPLES)))
    for part in range(parts):
        first, end = bounds[part : part + 2]
        mine = found[:, 2 * part : 2 * part + 2].ravel()
        for epoch in range(3):
            once = mine[epoch * (end - first) : (epoch + 1) * (end - first)]
            assert sorted(once) == list(range(first, end))
    orders = [tuple(mine) for mine in (found[:5] - np.repeat(bounds[:-1], 2)).T[::2]]
    assert len(set(orders)) == parts


def test_views_are_uniform_and_start_anywhere(tf) -> None:
    from trainer.data import permutation

    drawn = permutation.views(1000, 4, seed=3)
    whole = list(islice(drawn.as_numpy_iterator(), 6))
    counts = np.bincount(np.concatenate(whole), minlength=4)
    assert (np.abs(counts - 1500) < 150).all()
    later = list(islice(permutation.views(1000, 4, seed=3, first_batch=4), 2))
    np.testing.assert_array_equal(later, whole[4:])
    assert (whole[0] != whole[1]).any()


def test_ids_of_a_batch_in_parts(tf, made_dataset: Path) -> None:
    from trainer.data import input_pipeline as data
    from trainer.data import permutation

    dataset = manifest.load(made_dataset)
    how = {"batch_size": 4, "seed": 3, "parts": 2}
    found = data.ids_of_batch(dataset, permuted=True, number=3, **how)
    batches = permutation.batches(24, 4, seed=3, parts=2)
    positions = list(islice(batches.as_numpy_iterator(), 4))[3]
    shards = dataset.split("train").shards
    (batch,) = data.for_inference(dataset, shards, batch_size=24)
    assert found == [batch.ids.numpy()[at].decode() for at in positions]
