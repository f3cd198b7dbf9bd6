"""Image files without their metadata, for a decoder that stops at broken metadata."""

import struct
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_SCAN = 0xDA  # marker of a JPEG, after which its pixels come
# JFIF's and Adobe's markers decide the colour space. libjpeg ignores shorter ones.
_COLOUR_MARKERS = {0xE0: 16, 0xEE: 14}
# Texts of a PNG in which Pillow looks for the orientation.
_PNG_TEXTS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
_WEBP_METADATA = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}  # with flags of VP8X


class _Role(Enum):
    """What a part of a file is for."""

    PIXELS = 0
    ORIENTATION = 1
    OTHER = 2


class _Part(NamedTuple):
    role: _Role
    content: bytes


def without(data: bytes) -> Iterator[bytes]:
    """Yields a JPEG, PNG or WebP with less of its metadata, then with none.

    What may hold the orientation goes last. Nothing is yielded of other kinds, which
    have no metadata apart from their pixels, of a file without metadata, and of one
    whose structure cannot be followed.
    """
    webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    if data.startswith(_PNG):
        parts = list(_png_parts(data))
    elif data.startswith(_JPEG):
        parts = list(_jpeg_parts(data))
    elif webp:
        parts = list(_webp_parts(data))
    else:
        return
    before = len(parts)
    for role in (_Role.OTHER, _Role.ORIENTATION):
        parts = [part for part in parts if part.role is not role]
        if len(parts) < before:
            before = len(parts)
            content = b"".join(part.content for part in parts)
            yield _webp(content) if webp else content


def _png_parts(data: bytes) -> Iterator[_Part]:
    """Yields the signature and the chunks of a PNG: length, type, content, CRC-32."""
    yield _Part(_Role.PIXELS, _PNG)
    at = len(_PNG)
    while at < len(data):
        length = int.from_bytes(data[at : at + 4])
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        role = _Role.PIXELS
        if kind[:1].islower() and kind != b"tRNS":  # ancillary
            has_orientation = kind == b"eXIf" or content.startswith(_PNG_TEXTS)
            role = _Role.ORIENTATION if has_orientation else _Role.OTHER
        yield _Part(role, data[at : (at := at + length + 12)])


def _jpeg_parts(data: bytes) -> Iterator[_Part]:
    """Yields the segments of a JPEG up to its pixels, and all that follows as one."""
    yield _Part(_Role.PIXELS, _JPEG)
    at = len(_JPEG)
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if marker in (0xFF, _SCAN):  # a fill byte; segments may go on after it
            break
        role = _Role.PIXELS
        if marker == 0xE1:  # EXIF or XMP
            role = _Role.ORIENTATION
        elif 0xE0 <= marker <= 0xEF or marker == 0xFE:  # of applications; a comment
            decides = length >= _COLOUR_MARKERS.get(marker, 1 << 16)
            role = _Role.PIXELS if decides else _Role.OTHER
        yield _Part(role, data[at : (at := at + length + 2)])
    yield _Part(_Role.PIXELS, data[at:])


def _webp_parts(data: bytes) -> Iterator[_Part]:
    """Yields the header and the chunks of a WebP: type, length, content, padding."""
    yield _Part(_Role.PIXELS, data[:12])
    at = 12
    while at < len(data):
        kind, length = (
            data[at : at + 4],
            int.from_bytes(data[at + 4 : at + 8], "little"),
        )
        role = _Role.PIXELS
        if kind in _WEBP_METADATA:
            role = _Role.OTHER if kind == b"ICCP" else _Role.ORIENTATION
        yield _Part(role, data[at : (at := at + 8 + length + length % 2)])


def _webp(data: bytes) -> bytes:
    """Corrects what the header of a WebP says of its length and its metadata."""
    parts = [part.content for part in _webp_parts(data)]
    kinds = {part[:4] for part in parts}
    gone = sum(flag for kind, flag in _WEBP_METADATA.items() if kind not in kinds)
    for number, part in enumerate(parts):
        if part[:4] == b"VP8X" and len(part) > 8:
            flags = bytes([part[8] & ~gone])
            parts[number] = part[:8] + flags + part[9:]
    content = b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(content) - 8) + content[8:]
