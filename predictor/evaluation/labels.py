"""Labels: of a CSV, or of the records of a split."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.dataset import manifest, record
from pipeline.dataset.manifest import Dataset
from pipeline.sources import class_names
from pipeline.sources.names import stem
from pipeline.sources.user_text import Table
from pipeline.storage.object_paths import AnyPath
from pipeline.system.errors import RunError
from predictor.evaluation.per_image import NONE

COLUMNS = ("id", "label")


class ClassIndex:
    """Class names and their numbers; a name that was not there gets the next one."""

    def __init__(self, known: tuple[str, ...]) -> None:
        self._numbers = {name: number for number, name in enumerate(known)}

    def of(self, name: str) -> int:
        """The number of a class."""
        return self._numbers.setdefault(name, len(self._numbers))

    @property
    def names(self) -> tuple[str, ...]:
        """All names, by number."""
        return tuple(self._numbers)


@dataclass(frozen=True)
class Labels:
    """What the images show.

    Attributes:
        labels: number of the class by id; NONE for a distractor.
        stems: whether ids may lack the folders and the extension of an image's id.
    """

    labels: Mapping[str, int]
    stems: bool

    def key(self, image_id: str) -> str | None:
        """Returns the id that an image has in `labels`; None where it is not there."""
        if image_id in self.labels:
            return image_id
        short = stem(image_id)
        return short if self.stems and short in self.labels else None


def of_csv(path: AnyPath, numbers: ClassIndex) -> Labels:
    """Reads a CSV with columns `id` and `label`, others beside them or not.

    A label is the name of a class; an empty one makes a distractor. An id is that of
    the image, or its stem, as Kaggle's lists have it.

    Raises:
        RunError: there is no such file, it is no such CSV, an id comes twice, or none
            has a label.
    """
    flag = f"--labels={path}"
    labels: dict[str, int] = {}
    lines: dict[str, int] = {}
    for line, (image_id, name) in Table(path, flag, required=COLUMNS).rows():
        if not image_id:
            raise RunError(f"{flag}: line {line} has no id. Complete or remove it.")
        if (first := lines.setdefault(image_id, line)) != line:
            raise RunError(
                f"{flag} has the id {image_id!r} in the lines {first} and {line}. Each "
                "may be there once: remove one of them."
            )
        labels[image_id] = numbers.of(name) if name else NONE
    if not any(label != NONE for label in labels.values()):
        raise RunError(
            f"--labels={path} has {len(labels)} ids and no label. Name the class of "
            "each image that shows one."
        )
    class_names.compare(numbers.names, flag)
    return Labels(labels, stems=True)


def of_split(dataset: Dataset, split: str, numbers: ClassIndex) -> Labels:
    """Reads the labels of the records; no image is decoded.

    Raises:
        RunError: there is no such split, none of its images is labelled, or a shard
            is damaged.
    """
    found = dataset.split(split)
    if not any(manifest.class_counts(dataset, split)):
        raise RunError(
            f"split {split} of {dataset.folder} is unlabelled: none of its "
            f"{found.examples} images has a class. Evaluate a labelled split "
            "(--split=validation), make the dataset with --labelled_test, or predict "
            "it and give the labels of PREDICTIONS as a CSV (--predictions --labels)."
        )
    known = [numbers.of(name) for name in dataset.classes]
    labels = {
        stored.id: NONE if stored.label == manifest.UNLABELLED else known[stored.label]
        for stored in records(dataset, split)
    }
    return Labels(labels, stems=False)


def records(dataset: Dataset, split: str) -> Iterator[record.Record]:
    """Every record of a split, shard by shard, each held to its checksum first.

    Raises:
        RunError: a shard is missing or damaged.
    """
    for shard in dataset.split(split).shards:
        if damage := manifest.damage_of(dataset, shard):
            raise RunError(damage)
        for stored in record.read(dataset.folder / shard.file):
            yield stored.record
