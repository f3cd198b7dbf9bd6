"""Plan the shards, and write one of them: everything that a worker does."""

import contextlib
import hashlib
import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self

from pipeline.dataset import record
from pipeline.dataset.manifest import (
    MANIFEST,
    UNLABELLED,
    ImageContract,
    Shard,
    shard_name,
)
from pipeline.images import conversion, image_bytes
from pipeline.runners.job import noting_verdict
from pipeline.shards import duplicates
from pipeline.shards.image_in_progress import Flight
from pipeline.sources.hashing import order_key
from pipeline.sources.listing import ImageRef, Listing
from pipeline.storage import atomic, object_paths
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import WORK, WorkFolder
from pipeline.system import io_errors
from pipeline.system.console import UnavailableError

Slices = list[list[ImageRef]]  # the images of every shard of a split


class PlannedImage(NamedTuple):
    """One line of a plan file: an image with its label and class name."""

    id: str
    uri: str
    label: int
    text: str


@dataclass
class Tally:
    """What became of the images of one shard.

    Attributes:
        written: records by class name ("" where unlabelled).
        rejects: [id, class name, reason, detail] of every other image.
        bytes_read: of the source files.
    """

    written: dict[str, int] = field(default_factory=dict)
    rejects: list[list[str]] = field(default_factory=list)
    bytes_read: int = 0


class Note(NamedTuple):
    """The sidecar of a committed shard."""

    shard: Shard
    tally: Tally

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What `to_json` made a value of."""
        return cls(Shard(**value["shard"]), Tally(**value["tally"]))

    def to_json(self) -> dict[str, Any]:
        """For WorkFolder.done."""
        return {"shard": asdict(self.shard), "tally": asdict(self.tally)}


def default_count(images: int) -> int:
    """Shards of a split: about 1,024 images each, up to 16 for small splits."""
    return max(-(-images // 1024), min(16, -(-images // 64)))


def plan(listing: Listing, *, count: int | None, seed: int) -> dict[str, Slices]:
    """Cuts each split into equal slices, in the order of a keyed hash of the id.

    Args:
        listing: what there is.
        count: shards per split, at most one per image; None for `default_count`.
        seed: of the hash.

    Returns:
        The slice of every shard, by split.
    """
    slices = {}
    for split in listing.splits():
        refs = [ref for ref in listing.refs if ref.split == split]
        refs.sort(key=lambda ref: (order_key(seed, ref.id), ref.id))
        shards = max(1, min(count or default_count(len(refs)), len(refs)))
        cuts = [len(refs) * index // shards for index in range(shards + 1)]
        slices[split] = [refs[a:b] for a, b in itertools.pairwise(cuts)]
    return slices


def write_plan(
    folder: AnyPath, slices: Mapping[str, Slices], classes: Sequence[str]
) -> dict[str, int]:
    """Writes one plan file per shard, a JSON array per image.

    Returns:
        The number of planned images of every shard, by shard name, in order.
    """
    labels = {name: label for label, name in enumerate(classes)}
    (folder / WORK / "plan").mkdir(parents=True, exist_ok=True)
    planned = {
        shard_name(split, index, len(parts)): refs
        for split, parts in slices.items()
        for index, refs in enumerate(parts)
    }

    def write(name: str) -> None:
        images = (_planned(ref, labels) for ref in planned[name])
        text = "".join(f"{json.dumps(entry)}\n" for entry in images)
        atomic.write_text(_plan_path(folder, name), text, scratch=folder / WORK)

    object_paths.at_once(folder, write, list(planned))
    return {name: len(refs) for name, refs in planned.items()}


def _planned(ref: ImageRef, labels: Mapping[str, int]) -> PlannedImage:
    if ref.label is None:
        return PlannedImage(ref.id, ref.uri, UNLABELLED, "")
    return PlannedImage(ref.id, ref.uri, labels[ref.label], ref.label)


def read_note(folder: AnyPath, name: str) -> Note | None:
    """What is known of a committed shard; None where it is missing or cut short."""
    value = WorkFolder(folder, manifest=MANIFEST).note(name)
    return Note.from_json(value) if value else None


def read_notes(folder: AnyPath, names: Collection[str]) -> dict[str, Note | None]:
    """As `read_note`, of many shards: a store is asked for two listings beforehand."""
    notes = WorkFolder(folder, manifest=MANIFEST).notes(names)
    return {
        name: Note.from_json(value) if value else None for name, value in notes.items()
    }


def write(name: str, folder: str, contract: ImageContract) -> None:
    """Writes the shard `name` of a dataset folder, then its sidecars.

    One image is in memory at a time, whatever the size of the shard; of a store a few
    encoded ones more.

    Raises:
        UnavailableError: something cannot be read or written now. The launcher finds
            the message in the work folder, wherever this runs.
    """
    output = WorkFolder(object_paths.at(folder), manifest=MANIFEST)
    with noting_verdict(output.folder), io_errors.explained(output.folder / name):
        _write(name, output, contract)


def _write(name: str, output: WorkFolder, contract: ImageContract) -> None:
    images = list(read_plan(output.folder, name))
    tally, sources = Tally(), [duplicates.UNREAD] * len(images)
    digest, length = hashlib.sha256(), 0
    # Innermost, so that no image is in flight while the shard is committed: bringing it
    # to disk, or uploading it, may take longer than --image_timeout.
    with output.commit(name) as file, Flight(output.folder, name) as flight:
        condemned = flight.condemned()
        contents = image_bytes.read_ahead(
            ref.uri for index, ref in enumerate(images) if index not in condemned
        )
        for index, ref in enumerate(images):
            flight.at(index)
            try:
                if index in condemned:
                    raise conversion.BadImage(*condemned[index])
                source = next(contents)()
                tally.bytes_read += len(source)
                with io_errors.explained(image_bytes.path(ref.uri)):
                    framed = _frame(ref, conversion.convert(source, contract), contract)
                sources[index] = hashlib.sha256(source).digest()
            except conversion.BadImage as bad:
                tally.rejects.append([ref.id, ref.text, bad.reason, bad.detail])
                continue
            file.write(framed)
            digest.update(framed)
            length += len(framed)
            tally.written[ref.text] = tally.written.get(ref.text, 0) + 1
    duplicates.note_sources(output.folder, name, sources)
    entry = Shard(name, sum(tally.written.values()), length, digest.hexdigest())
    output.done(name, Note(entry, tally).to_json())


def try_alone(uri: str, contract: ImageContract) -> None:
    """What `write` does to one image, for a process that may crash or hang.

    An image that cannot be read now is not to blame; `write` meets the error again.
    """
    with contextlib.suppress(conversion.BadImage, UnavailableError):
        conversion.convert(image_bytes.read(uri), contract)


def planned_image(folder: AnyPath, name: str, index: int) -> PlannedImage:
    """The image at a position of a shard's plan."""
    return next(itertools.islice(read_plan(folder, name), index, None))


def read_plan(folder: AnyPath, name: str) -> Iterator[PlannedImage]:
    """Yields the images of a planned shard, in order."""
    with _plan_path(folder, name).open(encoding="utf-8") as lines:
        for line in lines:
            yield PlannedImage(*json.loads(line))


def _frame(ref: PlannedImage, encoded: bytes, contract: ImageContract) -> bytes:
    payload = record.encode(
        ref.id,
        encoded,
        height=contract.height,
        width=contract.width,
        label=ref.label,
        text=ref.text,
    )
    return record.frame(payload)


def _plan_path(folder: AnyPath, name: str) -> AnyPath:
    return folder / WORK / "plan" / f"{name}.jsonl"
