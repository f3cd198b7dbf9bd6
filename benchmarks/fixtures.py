"""What the benchmarks feed on: photos as files and links, and a part of a split."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from pipeline.dataset.manifest import Dataset, ImageContract, Shard
from pipeline.estimate import sample
from pipeline.images import conversion, image_bytes
from pipeline.sources import layout
from pipeline.system.errors import RunError

_JPEG = b"\xff\xd8\xff"
_PHOTOS = 256  # different ones at most: all that a baseline keeps in memory


def jpegs(images: Path, contract: ImageContract, *, seed: int) -> list[Path]:
    """Returns JPEGs that can be decoded; reading them warms the page cache.

    Raises:
        RunError: there is none.
    """
    listed = layout.list_images(images, seed=seed).refs
    # They will be linked, so what lies in an archive does not count.
    files = [ref for ref in listed if image_bytes.is_file(ref.uri)]
    chosen = [Path(ref.uri) for ref in sample(files, _PHOTOS, seed=seed)]
    good = [path for path in chosen if _is_good(path, contract)]
    if not good:
        raise RunError(
            f"none of {len(chosen)} files of {images} is a JPEG that can be decoded; "
            "the benchmark needs one at least, outside archives. Name another folder."
        )
    return good


def _is_good(path: Path, contract: ImageContract) -> bool:
    try:
        data = image_bytes.read(str(path))
        conversion.convert(data, contract)
    except conversion.BadImage:
        return False
    return data.startswith(_JPEG)


def links(
    photos: Sequence[Path], folder: Path, count: int, *, classes: int = 1
) -> None:
    """Makes class folders of links to photos, repeated up to a count."""
    for number, photo in zip(range(count), itertools.cycle(photos), strict=False):
        _path(folder, number % classes, number).symlink_to(photo.resolve())


def files(stored: Sequence[tuple[int, bytes]], folder: Path) -> None:
    """Writes class folders of JPEGs from their labels and bytes."""
    for number, (label, encoded) in enumerate(stored):
        _path(folder, label, number).write_bytes(encoded)


def _path(folder: Path, label: int, number: int) -> Path:
    path = folder / f"{label:05d}" / f"{number:07d}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def first_shards(dataset: Dataset, split: str, examples: int) -> tuple[Shard, ...]:
    """Returns the first shards of a split, until they have so many examples."""
    shards = dataset.split(split).shards
    before = itertools.accumulate((shard.examples for shard in shards), initial=0)
    return tuple(
        shard
        for shard, earlier in zip(shards, before, strict=False)
        if earlier < examples
    )
