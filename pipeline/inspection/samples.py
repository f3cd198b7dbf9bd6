"""A few of the stored images of a split, in the order of its shards.

The images of a shard are in the order of a hash, so that those which come first are a
random sample. A class of few images may have none among them.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.dataset import record
from pipeline.dataset.manifest import Dataset
from pipeline.dataset.record import BadRecordError, Record

_SHARDS = 8  # that are looked into, from the first to the last
_RECORDS = 4096  # that are read: 44 MB at the usual size
_CLASSES = 12  # that are shown: half of them the largest, half the smallest
_OF_A_CLASS = 3  # images
_WITHOUT_CLASS = 24  # images of a split that has no classes


class ClassSample(NamedTuple):
    """Images of a class, or of a split without classes.

    Attributes:
        name: of the class; "" where there is none.
        records: its first images.
    """

    name: str
    records: list[Record]


class Sample(NamedTuple):
    """What was read of a split.

    Attributes:
        read: records.
        classes: what is shown of them.
        found: classes that have images among those that were read.
        damaged: shards that could not be read to the end, and why.
    """

    read: int
    classes: list[ClassSample]
    found: int
    damaged: list[str]


def read(dataset: Dataset, split: str, frequency: Sequence[int]) -> Sample:
    """Reads the first records of a few shards.

    Args:
        dataset: complete.
        split: one that it has.
        frequency: by which classes are large or small, by label.
    """
    paths = dataset.paths(split)
    # The first and the last among them: classes that came later are in later shards.
    places = np.linspace(0, len(paths) - 1, min(len(paths), _SHARDS)).round()
    chosen = [paths[int(place)] for place in places]
    by_label: dict[int, list[Record]] = defaultdict(list)
    count, damaged = 0, []
    for path in chosen:
        try:
            for stored in record.read(path):
                if stored.number * len(chosen) >= _RECORDS:
                    break
                count += 1
                records = by_label[stored.record.label]
                most = _WITHOUT_CLASS if stored.record.label < 0 else _OF_A_CLASS
                if len(records) < most:
                    records.append(stored.record)
        except BadRecordError as error:
            damaged.append(f"{path.name}: {error}")
    labels = sorted(by_label, key=lambda label: (-_of(frequency, label), label))
    if len(labels) > _CLASSES:
        labels = labels[: _CLASSES // 2] + labels[-_CLASSES // 2 :]
    shown = [ClassSample(by_label[label][0].text, by_label[label]) for label in labels]
    return Sample(count, shown, len(by_label), damaged)


def _of(frequency: Sequence[int], label: int) -> int:
    """Returns the images of a class; 0 for a label that is none of the dataset's."""
    return frequency[label] if 0 <= label < len(frequency) else 0
