"""What a DATASET has of one image, as lines of text."""

import hashlib
from collections.abc import Iterator

from pipeline.dataset import record
from pipeline.dataset.manifest import REJECTS
from pipeline.dataset.record import BadRecordError, Stored
from pipeline.inspection.facts import Facts
from pipeline.inspection.originals import Originals
from pipeline.sources.names import shown
from pipeline.system import console
from pipeline.system.errors import RunError


def lines(facts: Facts, originals: Originals, image_id: str) -> Iterator[str]:
    """Yields what is known of an image: `key  value`, a paragraph for each split.

    Reads the shards until it has it: tens of thousands of images a second.

    Raises:
        RunError: no split has written or rejected it, or a shard is damaged.
    """
    found = False
    for split, shard, stored in _records(facts, image_id):
        found = True
        yield from _of_record(facts, split, shard, stored)
        yield f"original  {originals.find(split, image_id) or 'not at hand'}"
        yield from _same_bytes(facts, f"{split}/{image_id}")
    for reject in facts.rejects:
        if reject.id == image_id:
            found = True
            yield f"id        {shown(image_id)}"
            yield f"split     {reject.split}"
            yield f"class     {shown(reject.label) if reject.label else 'none'}"
            yield f"rejected  {reject.reason}: {shown(reject.detail)}"
            yield (
                f"original  {originals.find(reject.split, image_id) or 'not at hand'}"
            )
    if not found:
        raise RunError(
            f"DATASET {facts.dataset.folder} has no image {shown(image_id)}, neither "
            f"written nor in {REJECTS}. An id is the path of a photo below its split's "
            "folder, or below IMAGES, with its class: 'hat/0001.jpg'."
        )


def _records(facts: Facts, image_id: str) -> Iterator[tuple[str, str, Stored]]:
    """Yields (split, shard, record) of the image, at most one of each split."""
    dataset = facts.dataset
    images = sum(split.examples for split in dataset.splits.values())
    with console.progress(images, "search", delay=2) as bar:
        for name, split in dataset.splits.items():
            for shard in split.shards:
                stored = _in_shard(facts, shard.file, image_id)
                bar.update(shard.examples)
                if stored:
                    yield name, shard.file, stored
                    break  # an id is unique in its split


def _in_shard(facts: Facts, file: str, image_id: str) -> Stored | None:
    path = facts.dataset.folder / file
    try:
        for stored in record.read(path):
            if stored.record.id == image_id:
                return stored
    except BadRecordError as error:
        raise RunError(
            f"shard {path} is damaged: {error}. `make verify` says all that is wrong."
        ) from error
    return None


def _of_record(facts: Facts, split: str, shard: str, stored: Stored) -> Iterator[str]:
    number, offset, found = stored
    label = f"{shown(found.text)} (label {found.label})" if found.text else "none"
    digest = hashlib.sha256(found.encoded).hexdigest()
    yield f"id        {shown(found.id)}"
    yield f"split     {split}"
    yield f"class     {label}"
    yield f"shard     {facts.dataset.folder / shard}, record {number} at byte {offset}"
    yield (
        f"image     {found.height}x{found.width} (height x width), {found.format}, "
        f"{len(found.encoded):,} bytes, sha256 {digest}"
    )


def _same_bytes(facts: Facts, name: str) -> Iterator[str]:
    """Yields the other images that were made of the same bytes."""
    for group in facts.copies["groups"]:
        if name in group:
            others = ", ".join(shown(other) for other in group if other != name)
            yield f"copy of   {others}"
