"""Which images validate, and in which order images are stored: keyed hashes of ids.

A hash does not depend on the order of a listing, and adding images moves no other:
save one that trains only because its class had none that would.
"""

import hashlib
from collections.abc import Iterable


def split_key(seed: int, image_id: str) -> float:
    """A uniform number in [0, 1) that decides whether an image validates."""
    return _hash(seed, image_id, b"split") / 2**64


def order_key(seed: int, image_id: str) -> int:
    """A uniform 64-bit number; images are stored in its order."""
    return _hash(seed, image_id, b"order")


def validation_ids(ids: Iterable[str], *, fraction: float, seed: int) -> set[str]:
    """The ids of one class that validate.

    These are the ids with a key below `fraction`, less the one with the largest key:
    it always trains, so that no class is lost.
    """
    keys = {image_id: split_key(seed, image_id) for image_id in ids}
    chosen = {image_id for image_id, key in keys.items() if key < fraction}
    chosen.discard(max(keys, key=lambda image_id: (keys[image_id], image_id)))
    return chosen


def _hash(seed: int, image_id: str, purpose: bytes) -> int:
    digest = hashlib.blake2b(
        image_id.encode(),
        digest_size=8,
        key=seed.to_bytes(8, "little", signed=True),
        person=purpose,
    )
    return int.from_bytes(digest.digest(), "little")
