"""Pictures of some images, out of the records of DATASET."""

import io
from collections.abc import Collection

from PIL import Image

from pipeline.dataset.manifest import Dataset
from predictor.evaluation import labels

_SIDE = 320  # pixels; a larger picture is made smaller
_QUALITY = 80


def of(dataset: Dataset, split: str, ids: Collection[str]) -> dict[str, bytes]:
    """JPEGs by id, of those that are there; reads no further than the last of them.

    Raises:
        RunError: there is no such split, or a shard is damaged.
    """
    wanted, found = set(ids), dict[str, bytes]()
    for stored in labels.records(dataset, split):
        if len(found) == len(wanted):
            break
        if stored.id in wanted:
            found[stored.id] = _small(stored.encoded)
    return found


def _small(encoded: bytes) -> bytes:
    image = Image.open(io.BytesIO(encoded))
    if max(image.size) <= _SIDE:
        return encoded
    image.thumbnail((_SIDE, _SIDE))
    smaller = io.BytesIO()
    image.save(smaller, "JPEG", quality=_QUALITY)
    return smaller.getvalue()
