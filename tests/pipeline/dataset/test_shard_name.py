"""Names of shards, by generation."""

import pytest

from pipeline.dataset.manifest import ShardName, shard_name


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("train-00003-of-00064.tfrecord", ShardName("train", 3, 64)),
        ("train-g01-00000-of-00002.tfrecord", ShardName("train", 0, 2, 1)),
        ("test-g12-00001-of-00002.tfrecord", ShardName("test", 1, 2, 12)),
        ("validation-g100-00000-of-00001.tfrecord", ShardName("validation", 0, 1, 100)),
        ("test-99999-of-100000.tfrecord", ShardName("test", 99_999, 100_000)),
    ],
)
def test_names(name: str, parsed: ShardName) -> None:
    assert ShardName.parse(name) == parsed
    assert str(parsed) == name


def test_generation_0_keeps_its_names() -> None:
    assert shard_name("train", 3, 64) == "train-00003-of-00064.tfrecord"


@pytest.mark.parametrize(
    "name",
    [
        "train-g00-00000-of-00002.tfrecord",
        "train-g1-00000-of-00002.tfrecord",
        "train-g001-00000-of-00002.tfrecord",
        "train-0-of-2.tfrecord",
        "train-00000-of-00002.tfrecord.json",
        "train-g01.tfrecord",
        "00000-of-00002.tfrecord",
        "a/train-00000-of-00002.tfrecord",
        "",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"is no name of a shard, such as train-00000"):
        ShardName.parse(name)
