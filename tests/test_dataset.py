"""The two tf.data chains, over real shards."""

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, HEIGHT, PER_CLASS, TEST, WIDTH

from pipeline import manifest
from pipeline.console import RunError

TRAIN = len(CLASSES) * PER_CLASS["train"]  # 24


@pytest.fixture
def data(tf):
    from trainer import dataset

    return dataset


def digests(images: np.ndarray) -> list[bytes]:
    """Each picture as a key: the photos all differ."""
    return [picture.tobytes() for picture in images]


def stream(data, folder: Path, batches: int, **options: object) -> list[bytes]:
    """The pictures of the first batches of the training stream."""
    chain = data.for_training(manifest.load(folder), **options).as_numpy_iterator()
    return [key for images, _ in islice(chain, batches) for key in digests(images)]


def test_training_batches_are_full_and_permute(data, made_dataset: Path) -> None:
    """Batches of 10 over 24 examples: permutations end inside batches."""
    keys = stream(data, made_dataset, 12, batch_size=10)
    passes = [keys[start : start + TRAIN] for start in range(0, 120, TRAIN)]
    for part in passes:
        assert set(Counter(part).values()) == {1}
        assert len(part) == TRAIN
    assert len({tuple(part) for part in passes}) == len(passes)


def test_a_seed_decides_the_stream(data, made_dataset: Path) -> None:
    options = {"batch_size": 5}
    first = stream(data, made_dataset, 9, seed=3, **options)
    assert stream(data, made_dataset, 9, seed=3, **options) == first
    assert stream(data, made_dataset, 9, seed=4, **options) != first


@pytest.mark.parametrize("start", [1, 4, 7])
def test_the_stream_starts_anywhere(data, made_dataset: Path, start: int) -> None:
    options = {"batch_size": 5, "seed": 3}
    whole = stream(data, made_dataset, 9, **options)
    rest = stream(data, made_dataset, 9 - start, first_batch=start, **options)
    assert rest == whole[start * 5 :]


def test_training_elements(tf, data, made_dataset: Path) -> None:
    dataset = manifest.load(made_dataset)
    chain = data.for_training(dataset, batch_size=4, seed=0)
    images, labels = next(iter(chain))
    assert (images.shape, images.dtype) == ((4, HEIGHT, WIDTH, 3), tf.uint8)
    assert (labels.shape, labels.dtype) == ((4,), tf.int64)
    # The label is the channel that is the brightest: blue 0, green 1, red 2.
    brightest = images.numpy().mean(axis=(1, 2)).argmax(axis=1)
    np.testing.assert_array_equal(2 - brightest, labels)


def test_a_batch_larger_than_the_split_is_refused(data, made_dataset: Path) -> None:
    with pytest.raises(RunError, match="24 examples, fewer than a batch of 25"):
        data.for_training(manifest.load(made_dataset), batch_size=25)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_inference_sees_every_record_once_in_order(
    data, made_dataset: Path, batch_size: int
) -> None:
    dataset = manifest.load(made_dataset)
    shards = dataset.split("test").shards
    batches = list(data.for_inference(dataset, shards, batch_size=batch_size))
    ids = [image_id.decode() for batch in batches for image_id in batch.ids.numpy()]
    assert sorted(ids) == [f"photo {index}.jpg" for index in range(TEST)]
    one_by_one = data.for_inference(dataset, shards, batch_size=1)
    assert ids == [batch.ids.numpy()[0].decode() for batch in one_by_one]
    assert {int(label) for batch in batches for label in batch.labels} == {-1}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap(path: Path) -> None:
    """Another shard's content, padded to the promised length."""
    other = path.with_name(path.name.replace("00001-of", "00000-of"))
    length = path.stat().st_size
    path.write_bytes(other.read_bytes()[:length].ljust(length, b"\0"))


@pytest.mark.parametrize("damage", [flip, swap])
def test_damage_stops_the_run_and_is_named(data, dataset: Path, damage) -> None:
    path = dataset / manifest.shard_name("train", 1, 2)
    damage(path)
    loaded = manifest.load(dataset)
    chain = data.for_training(loaded, batch_size=4)
    with (
        pytest.raises(RunError, match=f"{path.name} is damaged"),
        data.naming_damage(loaded),
    ):
        for _ in islice(chain, 20):
            pass


def test_fewer_records_than_promised_are_an_error(tf, data, dataset: Path) -> None:
    """A shard that is whole in itself, but holds a record less."""
    loaded = manifest.load(dataset)
    path = dataset / manifest.shard_name("test", 0, 2)
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    with tf.io.TFRecordWriter(str(path)) as writer:
        for payload in records[1:]:
            writer.write(payload)
    shards = loaded.split("test").shards
    with pytest.raises(RunError, match=path.name), data.naming_damage(loaded):
        list(data.for_inference(loaded, shards, batch_size=2))
