"""What the benchmark feeds on: a part of DATASET, and the same pictures as files."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

from pipeline.dataset import record
from pipeline.dataset.manifest import Dataset, Split


def part(dataset: Dataset, examples: int) -> Dataset:
    """The first shards of the train split, until they have so many examples."""
    split = dataset.split("train")
    totals = itertools.accumulate(shard.examples for shard in split.shards)
    count = next(
        (number for number, total in enumerate(totals, 1) if total >= examples),
        len(split.shards),
    )
    shards = split.shards[:count]
    train = Split(sum(shard.examples for shard in shards), 0, shards)
    return dataclasses.replace(dataset, splits={"train": train})


def records(dataset: Dataset) -> list[record.Record]:
    """All of the train split, JPEGs encoded."""
    return [
        stored.record for path in dataset.paths("train") for stored in record.read(path)
    ]


def as_files(records: Sequence[record.Record], folder: Path) -> None:
    """Class folders of JPEGs, as they are stored."""
    for number, one in enumerate(records):
        path = _path(folder, one.label, number)
        path.write_bytes(one.encoded)


def as_links(photos: Sequence[Path], folder: Path, count: int) -> None:
    """Class folders of links to photos, repeated up to a count."""
    for number, photo in zip(range(count), itertools.cycle(photos), strict=False):
        _path(folder, number % 2, number).symlink_to(photo.resolve())


def _path(folder: Path, label: int, number: int) -> Path:
    path = folder / f"{label:05d}" / f"{number:06d}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
