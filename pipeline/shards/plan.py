"""The plan: which images each shard holds, in which order."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pipeline.dataset.manifest import UNLABELLED, ShardName
from pipeline.sources.hashing import order_key
from pipeline.sources.listing import ImageRef, Listing
from pipeline.storage import atomic, object_paths
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import WORK

Slices = list[list[ImageRef]]  # the images of every shard of a split


class PlannedImage(NamedTuple):
    """One line of a plan file: an image with its label and class name."""

    id: str
    uri: str
    label: int
    text: str


def default_count(images: int) -> int:
    """Shards of a split: about 1,024 images each, up to 16 for small splits."""
    return max(-(-images // 1024), min(16, -(-images // 64)))


def cut_slices(listing: Listing, *, count: int | None, seed: int) -> dict[str, Slices]:
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


def by_shard(
    slices: Mapping[str, Slices], generation: int = 0
) -> dict[str, list[ImageRef]]:
    """Returns the images of every shard, by its name, in order."""
    return {
        str(ShardName(split, index, len(parts), generation)): refs
        for split, parts in slices.items()
        for index, refs in enumerate(parts)
    }


def write_plan(
    folder: AnyPath,
    slices: Mapping[str, Slices],
    classes: Sequence[str],
    *,
    generation: int = 0,
) -> dict[str, int]:
    """Writes one plan file per shard, a JSON array per image.

    What an earlier run has written stays where it says the same: to bring a file and
    its name to disk costs more than to read it.

    Returns:
        The number of planned images of every shard, by shard name, in order.
    """
    planned = by_shard(slices, generation)
    labels = {name: label for label, name in enumerate(classes)}
    plan_folder = folder / WORK / "plan"
    plan_folder.mkdir(parents=True, exist_ok=True)
    there = atomic.sizes(plan_folder)

    def write(name: str) -> None:
        images = (_planned(ref, labels) for ref in planned[name])
        text = "".join(f"{json.dumps(entry)}\n" for entry in images)  # ASCII
        path = _plan_path(folder, name)
        if there.get(path.name) == len(text) and path.read_bytes() == text.encode():
            return
        atomic.write_text(path, text, scratch=folder / WORK)

    object_paths.at_once(folder, write, list(planned))
    return {name: len(refs) for name, refs in planned.items()}


def _planned(ref: ImageRef, labels: Mapping[str, int]) -> PlannedImage:
    if ref.label is None:
        return PlannedImage(ref.id, ref.uri, UNLABELLED, "")
    return PlannedImage(ref.id, ref.uri, labels[ref.label], ref.label)


def planned_image(folder: AnyPath, name: str, index: int) -> PlannedImage:
    """The image at a position of a shard's plan."""
    return next(itertools.islice(read_plan(folder, name), index, None))


def read_plan(folder: AnyPath, name: str) -> Iterator[PlannedImage]:
    """Yields the images of a planned shard, in order."""
    with _plan_path(folder, name).open(encoding="utf-8") as lines:
        for line in lines:
            yield PlannedImage(*json.loads(line))


def _plan_path(folder: AnyPath, name: str) -> AnyPath:
    return folder / WORK / "plan" / f"{name}.jsonl"
