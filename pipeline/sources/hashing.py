"""Which images validate, and in which order images are stored: keyed hashes of ids.

A hash does not depend on the order of a listing, and adding images moves no other
image, save the two of a class that `validation_ids` names.
"""

import hashlib
from collections.abc import Iterable

_FEW = 5  # images of a class, from which on one of them validates


def split_key(seed: int, image_id: str) -> float:
    """A uniform number in [0, 1) that decides whether an image validates."""
    return _hash(seed, image_id, b"split") / 2**64


def order_key(seed: int, image_id: str) -> int:
    """A uniform 64-bit number; images are stored in its order."""
    return _hash(seed, image_id, b"order")


def validation_ids(ids: Iterable[str], *, fraction: float, seed: int) -> set[str]:
    """Returns the ids of one class that validate: those with a key below `fraction`.

    Two images are excepted, so that no class is lost to training, and none of five
    images or more to validation: the one with the largest key always trains, and the
    one with the smallest key validates where no other does. Adding an image may
    move these two.

    Args:
        ids: of all images of the class.
        fraction: in [0, 1]; 0 for none.
        seed: of the keys.
    """
    keys = {image_id: split_key(seed, image_id) for image_id in ids}
    chosen = {image_id for image_id, key in keys.items() if key < fraction}
    if fraction and not chosen and len(keys) >= _FEW:
        chosen.add(min(keys, key=lambda image_id: (keys[image_id], image_id)))
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
