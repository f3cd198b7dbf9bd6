"""Encoded pictures with known pixels."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from pipeline.dataset.manifest import ImageContract

FULL_SIZE = ImageContract(height=1000, width=1000)  # leaves no room for scaling
ORIENTATION = 0x0112  # EXIF tag


def encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of a file of that kind."""
    encoded = io.BytesIO()
    picture.save(encoded, kind, **options)
    return encoded.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def quadrants(height: int, width: int) -> np.ndarray:
    """Red, green over blue, white: no turn and no flip of it is the same."""
    corners = np.array(
        [[[220, 30, 30], [30, 220, 30]], [[30, 30, 220], [240, 240, 240]]], np.uint8
    )
    return corners.repeat(height // 2, axis=0).repeat(width // 2, axis=1)


def quadrant_centres(pixels: np.ndarray) -> np.ndarray:
    """The colours in the middle of the four quadrants."""
    height, width = pixels.shape[:2]
    rows, columns = [height // 4, -height // 4], [width // 4, -width // 4]
    return pixels[np.ix_(rows, columns)].astype(int)


def png(height: int, width: int, depth_and_colour: bytes, *chunks: bytes) -> bytes:
    """A PNG of a header and some chunks (type and content), checksums right."""
    header = b"IHDR" + struct.pack(">II", width, height) + depth_and_colour + bytes(3)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, *chunks)
    )
