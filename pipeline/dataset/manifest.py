"""dataset.json: the splits, their shards, the classes and the image contract."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.dataset import record
from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import ResumableFolder
from pipeline.system import io_errors
from pipeline.system.command_line import option
from pipeline.system.errors import RunError

VERSION = 1
GROWN = 2  # the version of a dataset with shards of later generations
_READABLE = (VERSION, GROWN)
MANIFEST = "dataset.json"
CLASSES = "classes.txt"
REJECTS = "rejects.csv"
CONFLICTS = "conflicts.csv"
SHARD_PATTERN = "*-?????-of-?????.tfrecord"  # of any generation
SPLITS = ("train", "validation", "test")
UNLABELLED = -1
RESIZES = ("stretch", "crop", "pad")
CHROMAS = ("420", "444")
MAX_PIXELS = 89_478_485  # Pillow's own limit against decompression bombs

_FEW = 5  # classes in a line
_RESTORE = "Restore it, or make the dataset again: `make shards` with ARGS=--overwrite."


@dataclass(frozen=True, kw_only=True)
class ImageContract:
    """How every stored image was made; what a model was trained on."""

    height: int = option("Sets the rows of a stored image, in pixels.", lower_bound=1)
    width: int = option("Sets the columns of a stored image, in pixels.", lower_bound=1)
    resize: str = option(
        "Says what becomes of the aspect ratio: stretch ignores it, crop cuts the "
        "longer side around the centre, pad adds black borders.",
        "stretch",
        choices=RESIZES,
    )
    quality: int = option(
        "Sets the quality of a stored JPEG.", 90, lower_bound=1, upper_bound=100
    )
    chroma: str = option(
        "Sets the colour subsampling of a stored JPEG.", "420", choices=CHROMAS
    )
    format: str = "jpeg"  # of a stored image
    max_pixels: int = option(
        "Rejects originals of which more pixels would be decoded. A JPEG counts at the "
        "scale of 1/8 to 1 at which it is decoded, a progressive one in full.",
        MAX_PIXELS,
        lower_bound=1,
    )

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(
                f"image size is {self.height}x{self.width} (height x width); "
                "both must be at least 1"
            )
        if self.resize not in RESIZES:
            raise ValueError(f"resize is {self.resize!r}, not one of {RESIZES}")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality is {self.quality}, not from 1 to 100")
        if self.chroma not in CHROMAS:
            raise ValueError(f"chroma is {self.chroma!r}, not one of {CHROMAS}")

    def to_json(self) -> dict[str, Any]:
        """Returns the `image` entry of dataset.json, without the usual `max_pixels`."""
        value = asdict(self)
        if self.max_pixels == MAX_PIXELS:
            del value["max_pixels"]
        return value

    def pixels(self) -> dict[str, Any]:
        """Returns what must agree between a dataset and a model."""
        return {"height": self.height, "width": self.width, "resize": self.resize}


@dataclass(frozen=True)
class Shard:
    """One TFRecord file: its name, records, length in bytes and SHA-256."""

    file: str
    examples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Split:
    """One split: examples written, images rejected, shards in order."""

    examples: int
    rejected: int
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class Dataset:
    """A complete dataset folder.

    Attributes:
        folder: where it is.
        image: the image contract.
        classes: class names; the position is the label.
        splits: by name, those that exist.
        text: the content of dataset.json.
        fingerprint: SHA-256 of dataset.json, which holds that of every shard.
    """

    folder: AnyPath
    image: ImageContract
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    text: bytes = field(repr=False)
    fingerprint: str

    def split(self, name: str) -> Split:
        """The split of that name, or a RunError that lists those that exist."""
        if name not in self.splits:
            raise RunError(
                f"{self.folder} has no split {name!r}; it has "
                f"{', '.join(self.splits)}. Choose one of these (--split), or make "
                "the dataset again with images for it."
            )
        return self.splits[name]

    def paths(self, name: str) -> list[AnyPath]:
        """The shards of a split, in order."""
        return [self.folder / shard.file for shard in self.split(name).shards]

    def examples(self, name: str) -> Iterator[record.Record]:
        """Yields the examples of a split, shard by shard; needs no TensorFlow.

        Each has its id, its JPEG as it is stored (`encoded`), its label (-1 where it
        is unlabelled) and the name of its class (`text`).

        Raises:
            RunError: there is no such split.
            record.BadRecordError: a shard is damaged.
        """
        for path in self.paths(name):
            for stored in record.read(path):
                yield stored.record

    def manifest(self) -> dict[str, Any]:
        """Reads dataset.json, as docs/file-formats.md describes it."""
        return read(self.folder)


@dataclass(frozen=True)
class ShardName:
    """What the name of a shard says.

    Attributes:
        split: of its images.
        index: of the shard, from 0, among those of its split and generation.
        count: how many these are.
        generation: 0 for what the first run made; each addition is one more.
    """

    split: str
    index: int
    count: int
    generation: int = 0

    def __str__(self) -> str:
        added = f"g{self.generation:02d}-" if self.generation else ""
        return f"{self.split}-{added}{self.index:05d}-of-{self.count:05d}.tfrecord"

    @classmethod
    def parse(cls, name: str) -> "ShardName":
        """Reads what `str` made.

        >>> ShardName.parse("train-g01-00000-of-00002.tfrecord")
        ShardName(split='train', index=0, count=2, generation=1)

        Raises:
            ValueError: it is no name of a shard.
        """
        if match := _SHARD_NAME.fullmatch(name):
            generation = int(match["generation"] or 0)
            found = cls(
                match["split"], int(match["index"]), int(match["count"]), generation
            )
            if str(found) == name:  # so that no shard has two names
                return found
        raise ValueError(
            f"{name!r} is no name of a shard, such as {cls('train', 0, 1)}"
        )


_SHARD_NAME = re.compile(
    r"(?P<split>[a-z]+)-(?:g(?P<generation>\d+)-)?"
    r"(?P<index>\d+)-of-(?P<count>\d+)\.tfrecord"
)


def shard_name(split: str, index: int, count: int) -> str:
    """The file name of a shard: `train-00003-of-00064.tfrecord`."""
    return str(ShardName(split, index, count))


def classes_text(classes: tuple[str, ...]) -> str:
    """The content of classes.txt; its SHA-256 identifies the class list."""
    return "".join(f"{name}\n" for name in classes)


def classes_entry(classes: tuple[str, ...]) -> dict[str, Any]:
    """The `classes` entry of dataset.json and model.json."""
    text = classes_text(classes)
    return {"count": len(classes), "sha256": atomic.sha256_text(text)}


def classes_in_words(classes: Sequence[str]) -> str:
    """Returns how many classes there are, and the first few.

    >>> classes_in_words(("coat", "hat"))
    '2 classes: coat, hat'
    """
    if not classes:
        return "no classes"
    few = ", ".join(classes[:_FEW]) + (", …" if len(classes) > _FEW else "")
    return f"{len(classes):,} class{'es' * (len(classes) > 1)}: {few}"


def size_in_words(image: ImageContract) -> str:
    """Returns the size of stored images, such as `150x200 (height x width)`."""
    return f"{image.height}x{image.width} (height x width)"


def read_classes(path: AnyPath, entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Reads classes.txt and holds it to the manifest's `classes` entry."""
    content = io_errors.insist(path, path.read_bytes) if path.is_file() else b""
    digest = hashlib.sha256(content).hexdigest()
    found = {"count": content.count(b"\n"), "sha256": digest}
    if found != entry:
        raise RunError(
            f"{path} is not the list that its manifest describes: expected "
            f"{dict(entry)}, found {found}. Restore the file, or make the folder anew."
        )
    return tuple(content.decode().split("\n")[:-1])


def load(folder: AnyPath) -> Dataset:
    """Reads a complete dataset.

    Raises:
        RunError: there is no such folder, it is incomplete, of another version, or
            a shard is missing or has another length than when it was written.
    """
    text, value = _read(folder)
    try:
        _refuse_other_lists(folder, value)
        classes = read_classes(folder / CLASSES, value["classes"])
    except RunError:
        if _read(folder)[0] != text:
            return load(folder)  # an addition has ended meanwhile
        raise
    dataset = _described(folder, text, value, classes)
    check_lengths(folder, dataset.splits)
    return dataset


def before_growth(dataset: Dataset, text: bytes) -> Dataset | None:
    """Returns a dataset as it was before images were added to it.

    Args:
        dataset: as it is now.
        text: the content of dataset.json then.

    Returns:
        None where `dataset` is another one: it lacks a shard or a class of then, or
        has another order of the classes.
    """
    value = json.loads(text)
    classes = dataset.classes[: value["classes"]["count"]]
    now = {shard for split in dataset.splits.values() for shard in split.shards}
    before = _described(dataset.folder, text, value, classes)
    shards = {shard for split in before.splits.values() for shard in split.shards}
    if classes_entry(classes) != value["classes"] or not shards <= now:
        return None
    return before


def read(folder: AnyPath) -> dict[str, Any]:
    """Reads dataset.json and looks at nothing else.

    Raises:
        RunError: there is no such folder, it is incomplete, or of another version.
    """
    return _read(folder)[1]


def _read(folder: AnyPath) -> tuple[bytes, dict[str, Any]]:
    """Returns the content of dataset.json, and what it says; errors: see `read`."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise RunError(f"DATASET {folder} does not exist. `make shards` makes it.")
    if not path.is_file():
        raise RunError(
            f"DATASET {folder} is incomplete: it has no {MANIFEST}, which is written "
            "last. Run the same `make shards` again; it goes on where it stopped."
        )
    text = io_errors.insist(path, path.read_bytes)
    value = atomic.parse_json(path, text)
    if value.get("version") not in _READABLE:
        raise RunError(
            f"{path} has version {value.get('version')}; this program reads "
            f"{' and '.join(map(str, _READABLE))}. Make the dataset again with `make "
            "shards`."
        )
    return text, value


def _described(
    folder: AnyPath, text: bytes, value: Mapping[str, Any], classes: tuple[str, ...]
) -> Dataset:
    """Returns the dataset that dataset.json describes."""
    return Dataset(
        folder=folder,
        image=ImageContract(**value["image"]),
        classes=classes,
        splits=read_splits(value),
        text=text,
        # Of what was read: an append may replace the file at any time.
        fingerprint=hashlib.sha256(text).hexdigest(),
    )


def unfinished_addition(folder: AnyPath) -> str:
    """Says which command adds to a complete dataset, and has not finished; or ""."""
    work = ResumableFolder(folder, manifest=MANIFEST)
    if not work.manifest.is_file() or work.complete():
        return ""
    verb = work.key()["source"]["generations"][-1]["verb"]
    command = "`make shards` with ARGS=--append" if verb == "append" else "`make retry`"
    return (
        f"DATASET {folder}: {'an append' if verb == 'append' else 'a retry'} is "
        f"unfinished. Run {command} again; it goes on where it stopped."
    )


def read_splits(value: Mapping[str, Any]) -> dict[str, Split]:
    """The splits that dataset.json describes, in the usual order."""
    entries = value["splits"]
    return {name: _split(entries[name]) for name in SPLITS if name in entries}


def find_damage(dataset: Dataset) -> str | None:
    """Names the first shard whose content is not what was written; reads them all."""
    for split in dataset.splits.values():
        for shard in split.shards:
            if damage := damage_of(dataset, shard):
                return damage
    return None


def damage_of(dataset: Dataset, shard: Shard) -> str | None:
    """Says what is wrong with the content of a shard, in words; reads all of it."""
    path = dataset.folder / shard.file
    if not path.is_file():
        return f"shard {path} is missing. {_RESTORE}"
    found = atomic.sha256(path)
    if found == shard.sha256:
        return None
    return (
        f"shard {path} {_state(path)}; its sha256 is {found}, {MANIFEST} promises "
        f"{shard.sha256}. {_RESTORE}"
    )


def class_counts(dataset: Dataset, split: str) -> list[int]:
    """Examples of each class in a labelled split, by the ledger."""
    # Not of the file, which describes more once images were added.
    counts = json.loads(dataset.text)["ledger"]["splits"][split]["classes"]
    return [counts.get(name, {}).get("written", 0) for name in dataset.classes]


def _state(path: AnyPath) -> str:
    """Says what is the matter with a shard of another checksum, in words."""
    try:
        count = sum(1 for _ in record.read(path))
    except record.BadRecordError as error:
        return f"is damaged ({error})"
    return f"is not the one that was written ({count} whole records)"


def _split(entry: Mapping[str, Any]) -> Split:
    shards = tuple(Shard(**shard) for shard in entry["shards"])
    return Split(entry["examples"], entry["rejected"], shards)


def _refuse_other_lists(folder: AnyPath, value: Mapping[str, Any]) -> None:
    """Refuses the lists of an addition that has not replaced dataset.json yet."""
    for name, digest in value.get("files", {}).items():
        path = folder / name
        if path.is_file() and atomic.sha256(path) == digest:
            continue
        if unfinished := unfinished_addition(folder):
            raise RunError(f"{unfinished} {path} has changed, {MANIFEST} has not yet.")


def check_lengths(folder: AnyPath, splits: Mapping[str, Split]) -> None:
    """Stops at the first shard that is not there in full; reads no content.

    Raises:
        RunError: it names that shard.
    """
    sizes = atomic.sizes(folder)
    for split in splits.values():
        for shard in split.shards:
            path, found = folder / shard.file, sizes.get(shard.file)
            if found != shard.bytes:
                state = "is missing" if found is None else f"has {found} bytes"
                raise RunError(
                    f"shard {path} {state}; {MANIFEST} promises {shard.bytes} bytes. "
                    f"{_RESTORE}"
                )
