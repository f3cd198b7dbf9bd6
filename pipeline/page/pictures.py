"""Photos of a page: small JPEGs."""

import io

import numpy as np
from PIL import Image

SIDE = 320  # pixels; a larger picture is made smaller
_QUALITY = 90


def small_jpeg(
    picture: bytes | np.ndarray, *, side: int = SIDE, quality: int = _QUALITY
) -> bytes:
    """Returns a small JPEG of a JPEG, or of uint8[height, width, 3].

    Args:
        picture: a JPEG that is small enough comes back as it is.
        side: the most pixels of the longer side.
        quality: of a JPEG that is made.
    """
    if isinstance(picture, bytes):
        image: Image.Image = Image.open(io.BytesIO(picture))
        if max(image.size) <= side:
            return picture
    else:
        image = Image.fromarray(picture)
    image.thumbnail((side, side))
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=quality)
    return encoded.getvalue()
