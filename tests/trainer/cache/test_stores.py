"""Whole splits at hand: the same pictures as from the shards, in any order."""

import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset import manifest
from pipeline.system.errors import RunError
from tests.support.files import REPOSITORY
from tests.support.photos import CLASSES, HEIGHT, PER_CLASS, WIDTH

TRAIN = len(CLASSES) * PER_CLASS["train"]  # 24


@pytest.fixture
def stores(tf):
    from trainer.cache import stores

    return stores


@pytest.fixture
def data(tf):
    from trainer.data import input_pipeline

    return input_pipeline


def encoded(dataset: manifest.Dataset):
    from trainer.cache import stores

    return stores.Encoded(dataset, "train")


def decoded(dataset: manifest.Dataset):
    from trainer.cache import content, in_memory, stores

    return stores.Rows(in_memory.fill(content.pixels(dataset, "train")))


@pytest.fixture(params=[encoded, decoded])
def store(tf, request: pytest.FixtureRequest, made_dataset: Path):
    return request.param(manifest.load(made_dataset))


def from_shards(data, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    dataset = manifest.load(folder)
    shards = dataset.split("train").shards
    (batch,) = data.for_inference(dataset, shards, batch_size=TRAIN)
    return batch.images.numpy(), batch.labels.numpy()


def test_a_store_holds_the_split(tf, data, store, made_dataset: Path) -> None:
    images, labels = from_shards(data, made_dataset)
    assert store.examples == TRAIN
    wanted = np.array([5, 0, 23, 5])

    def positions(size: int):
        return tf.data.Dataset.from_tensor_slices(wanted).batch(size)

    for batch_size, counts in ((4, [4]), (3, [3, 1])):
        served = list(store.serve(positions, batch_size).as_numpy_iterator())
        assert [len(batch[1]) for batch in served] == counts
        assert served[0][0].dtype == np.uint8
        for column, expected in enumerate((images, labels)):
            found = np.concatenate([batch[column] for batch in served])
            np.testing.assert_array_equal(found, expected[wanted])


@pytest.mark.parametrize("batch_size", [1, 7, 24, 100])
def test_in_order(data, store, made_dataset: Path, batch_size: int) -> None:
    images, labels = from_shards(data, made_dataset)
    batches = list(data.in_order(store, batch_size=batch_size).as_numpy_iterator())
    np.testing.assert_array_equal(np.concatenate([b[0] for b in batches]), images)
    np.testing.assert_array_equal(np.concatenate([b[1] for b in batches]), labels)


def keys(data, store, batches: int, **options: object) -> list[bytes]:
    chain = data.from_store(store, **options).as_numpy_iterator()
    return [
        picture.tobytes() + bytes([label])
        for images, labels in islice(chain, batches)
        for picture, label in zip(images, labels, strict=True)
    ]


@pytest.mark.parametrize("batch_size", [1, 10, 24, 48])
def test_every_epoch_is_a_full_permutation(data, store, batch_size: int) -> None:
    found = keys(data, store, 240 // batch_size, batch_size=batch_size, seed=3)
    epochs = [found[start : start + TRAIN] for start in range(0, 240, TRAIN)]
    for epoch in epochs:
        assert Counter(epoch) == Counter(epochs[0])
        assert len(set(epoch)) == TRAIN
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_both_stores_serve_the_same_stream(data, made_dataset: Path) -> None:
    """A run may go on with the other one; and they are those of permutation."""
    dataset = manifest.load(made_dataset)
    options = {"batch_size": 7, "seed": 3}
    first = keys(data, encoded(dataset), 11, **options)
    assert first == keys(data, decoded(dataset), 11, **options)


def test_the_order_is_that_of_the_permutation(data, store, made_dataset: Path) -> None:
    from trainer.data import permutation

    images, labels = from_shards(data, made_dataset)
    whole = [i.tobytes() + bytes([k]) for i, k in zip(images, labels, strict=True)]
    found = keys(data, store, TRAIN, batch_size=1, seed=3)
    assert found == [whole[i] for i in permutation.permutation(3, 0, TRAIN)]


@pytest.mark.parametrize("start", [1, 4, 7, 1000])
def test_a_stream_starts_anywhere(data, store, start: int) -> None:
    options = {"batch_size": 5, "seed": 3}
    whole = keys(data, store, start + 4, **options)
    assert keys(data, store, 4, first_batch=start, **options) == whole[start * 5 :]


def test_another_seed_is_another_stream(data, store) -> None:
    first, second = (keys(data, store, 24, batch_size=1, seed=seed) for seed in (1, 2))
    assert sorted(first) == sorted(second)
    assert first != second


def test_pictures_are_not_copied(tf, data, stores) -> None:
    """What the array becomes, the batches of a stream made before become."""
    from trainer.cache import in_memory

    memory = in_memory.allocate((3, HEIGHT, WIDTH, 3), np.uint8)
    store = stores.Rows({"pixels": memory, "labels": np.arange(3)})
    stream = data.in_order(store, batch_size=3)
    ((before, _),) = stream
    memory[:] = 77
    ((after, _),) = stream
    assert (before.numpy() == 0).all()
    assert (after.numpy() == 77).all()


SCRIPT = """
import resource
import numpy as np, tensorflow as tf
from trainer.data import input_pipeline
from trainer.cache import in_memory, stores
if {deterministic}:
    tf.config.experimental.enable_op_determinism()
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def store_of(pixels):
    return stores.Rows({{"pixels": pixels, "labels": np.zeros(len(pixels), np.int64)}})
small = store_of(in_memory.allocate((100, 100, 100, 3), np.uint8))
next(iter(input_pipeline.from_store(small, batch_size=8, seed=1)))
images = in_memory.allocate((20_000, 100, 100, 3), np.uint8)
images[:] = 1
store = store_of(images)
before = peak()
batches = iter(input_pipeline.from_store(store, batch_size=8, seed=1))
for _ in range(20):
    next(batches)
print(peak() - before)
"""


@pytest.mark.integration
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_stream_takes_no_memory_of_the_size_of_its_store(deterministic: bool) -> None:
    """600 MB of pictures; a copy of them, however short its life, would be seen."""
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(deterministic=deterministic)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
    )
    assert float(result.stdout) < 300  # MB


def test_pictures_must_be_aligned(stores) -> None:
    from trainer.cache import in_memory

    memory = in_memory.allocate((HEIGHT * WIDTH * 3 + 1,), np.uint8)[1:]
    pixels = memory.reshape(1, HEIGHT, WIDTH, 3)
    with pytest.raises(ValueError, match="multiple of 64 bytes"):
        stores.Rows({"pixels": pixels, "labels": np.arange(1)})


@pytest.mark.parametrize("filled", [encoded, decoded])
def test_damage_stops_the_filling(tf, dataset: Path, filled) -> None:
    from trainer.data.verified_shards import naming_damage

    loaded = manifest.load(dataset)
    path = dataset / manifest.shard_name("train", 1, 2)
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match=path.name), naming_damage(loaded):
        filled(loaded)
