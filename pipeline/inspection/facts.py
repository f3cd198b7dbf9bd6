"""What dataset.json and the lists beside it say of a DATASET; no shard is read."""

import csv
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np

from pipeline.dataset import class_frequency, ledger, manifest
from pipeline.dataset.class_frequency import LIMITS
from pipeline.dataset.ledger import Reject
from pipeline.dataset.manifest import CONFLICTS, REJECTS, Dataset
from pipeline.shards import duplicates
from pipeline.shards.duplicates import Conflict
from pipeline.sources import names
from pipeline.storage.object_paths import AnyPath
from pipeline.system import io_errors
from pipeline.system.errors import RunError


class SplitFacts(NamedTuple):
    """One split.

    Attributes:
        name: of the split.
        listed, written, rejected: images.
        labelled: its images have classes.
        shards: how many.
        bytes: of all shards.
        smallest, median, largest: bytes of a shard.
        fewest, most: images of a shard.
    """

    name: str
    listed: int
    written: int
    rejected: int
    labelled: bool
    shards: int
    bytes: int
    smallest: int
    median: int
    largest: int
    fewest: int
    most: int


class ClassBucket(NamedTuple):
    """Classes of about as many images: the limits in words, classes, images."""

    in_words: str
    classes: int
    images: int


@dataclass(frozen=True)
class Facts:
    """What is known of a DATASET without its shards.

    Attributes:
        dataset: the folder, the classes, the splits.
        value: dataset.json.
        rejects: rejects.csv.
        conflicts: conflicts.csv.
    """

    dataset: Dataset
    value: Mapping[str, Any]
    rejects: Sequence[Reject]
    conflicts: Sequence[Conflict]

    @classmethod
    def read(cls, folder: AnyPath) -> Self:
        """Reads a complete dataset.

        Raises:
            RunError: it is not complete, or a file of it is missing or damaged.
        """
        dataset = manifest.load(folder)
        path = folder / CONFLICTS
        conflicts = []
        if path.is_file():
            try:
                text = io_errors.insist(path, path.read_bytes).decode()
                conflicts = duplicates.parse_conflicts(text)
            except (ValueError, TypeError, csv.Error) as error:  # also: not UTF-8
                raise RunError(f"{path} is damaged: {error}. Restore it.") from error
        return cls(
            dataset=dataset,
            value=manifest.read(folder),
            rejects=ledger.read_rejects(folder / REJECTS),
            conflicts=conflicts,
        )

    @cached_property
    def splits(self) -> list[SplitFacts]:
        """Those that there are, in the usual order."""
        return [self._split(name) for name in self.dataset.splits]

    @property
    def totals(self) -> dict[str, int]:
        """Images listed, written and rejected, and files ignored."""
        found = {
            what: sum(getattr(split, what) for split in self.splits)
            for what in ("listed", "written", "rejected")
        }
        return {**found, "ignored": self.value["ledger"]["ignored"]}

    @property
    def ignored(self) -> Mapping[str, int]:
        """Files that are no part of the collection, by kind; {} of release 0.1."""
        kinds: Mapping[str, int] = self.value["ledger"].get("ignored_by_kind", {})
        return kinds

    @property
    def labelled(self) -> list[str]:
        """Names of the splits whose images have classes."""
        return [split.name for split in self.splits if split.labelled]

    @cached_property
    def per_class(self) -> np.ndarray:
        """Images written, int[labelled splits, classes]."""
        ledgers = self.value["ledger"]["splits"]
        return np.array(
            [
                [
                    ledgers[split]["classes"].get(name, {}).get("written", 0)
                    for name in self.dataset.classes
                ]
                for split in self.labelled
            ],
            int,
        ).reshape(len(self.labelled), len(self.dataset.classes))

    @property
    def counted(self) -> str:
        """The split by which classes are large or small: train, or what there is."""
        return self.labelled[0] if self.labelled else ""

    @property
    def frequency(self) -> np.ndarray:
        """Images of each class in the split `counted`, int[classes]."""
        if not self.labelled:
            return np.zeros(0, int)
        found: np.ndarray = self.per_class[0]
        return found

    @property
    def largest_first(self) -> np.ndarray:
        """Labels, int[classes], by falling frequency; of equal ones as they come."""
        return np.argsort(-self.frequency, kind="stable")

    @property
    def buckets(self) -> list[ClassBucket]:
        """The classes by their frequency, those buckets that have any."""
        counts = self.frequency
        of_class = class_frequency.bucket_of(counts)
        return [
            ClassBucket(
                limits.in_words,
                int((of_class == bucket).sum()),
                int(counts[of_class == bucket].sum()),
            )
            for bucket, limits in enumerate(LIMITS)
            if (of_class == bucket).any()
        ]

    @property
    def half(self) -> int:
        """How many of the largest classes have half of the images."""
        counts = self.frequency[self.largest_first]
        return int(np.searchsorted(np.cumsum(counts), counts.sum() / 2)) + 1

    @property
    def alike(self) -> list[list[str]]:
        """Classes whose names a person may take for one.

        They differ in case, blanks, accents or punctuation; numbers only in how they
        are written.
        """
        by_key: dict[str, list[str]] = defaultdict(list)
        for name in self.dataset.classes:
            by_key[names.letters(name)].append(name)
        return sorted(group for group in by_key.values() if len(group) > 1)

    @property
    def in_one_split(self) -> dict[str, list[str]]:
        """Classes with images in one labelled split alone, by that split.

        Those with the most images come first. Of one labelled split alone all would
        be, so that there are none.
        """
        if len(self.labelled) < 2:
            return {}
        alone = (self.per_class > 0).sum(axis=0) == 1
        found = {}
        for split, counts in zip(self.labelled, self.per_class, strict=True):
            order = np.argsort(-counts, kind="stable")
            labels = [label for label in order if alone[label] and counts[label]]
            if labels:
                found[split] = [self.dataset.classes[label] for label in labels]
        return found

    @property
    def empty(self) -> list[str]:
        """Classes without an image anywhere."""
        if not self.labelled:
            return []
        none = self.per_class.sum(axis=0) == 0
        return [self.dataset.classes[label] for label in np.flatnonzero(none)]

    @property
    def reasons(self) -> Counter[str]:
        """Rejected images by reason."""
        return Counter(reject.reason for reject in self.rejects)

    @property
    def copies(self) -> Mapping[str, Any]:
        """Images that are byte for byte the same; see duplicates.Duplicates."""
        found: Mapping[str, Any] = self.value["ledger"]["duplicates"]
        return found

    @property
    def two_labels(self) -> list[list[Conflict]]:
        """Images that share their bytes and not their label, together."""
        groups: dict[str, list[Conflict]] = defaultdict(list)
        for row in self.conflicts:
            groups[row.sha256].append(row)
        return list(groups.values())

    def images_of(self, split: str, class_name: str) -> int:
        """Returns the images of a class in a split; 0 where it has none."""
        counts = self.value["ledger"]["splits"][split]["classes"]
        written: int = counts.get(class_name, {}).get("written", 0)
        return written

    def histogram(self, kind: str) -> dict[str, dict[str, int]]:
        """Returns {split: {bucket: images}} of the originals; see originals.count."""
        found = self.value.get("originals", {})
        return {
            split: found[split][kind]
            for split in self.dataset.splits
            if kind in found.get(split, {})
        }

    def _split(self, name: str) -> SplitFacts:
        counts = self.value["ledger"]["splits"][name]
        shards = self.dataset.splits[name].shards
        sizes = sorted(shard.bytes for shard in shards) or [0]
        examples = [shard.examples for shard in shards] or [0]
        return SplitFacts(
            name=name,
            listed=counts["listed"],
            written=counts["written"],
            rejected=counts["rejected"],
            labelled=any(counts["classes"]),  # "" is the class of what has none
            shards=len(shards),
            bytes=sum(sizes),
            smallest=sizes[0],
            median=sizes[len(sizes) // 2],
            largest=sizes[-1],
            fewest=min(examples),
            most=max(examples),
        )
