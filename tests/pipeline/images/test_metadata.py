"""Metadata that are broken or too large cost no photo whose pixels are whole."""

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from pipeline.images import conversion, metadata
from tests.support.photos import jpeg, photo
from tests.support.pictures import (
    FULL_SIZE,
    encode,
    exif,
    png,
    quadrant_centres,
    quadrants,
)

PIXELS = quadrants(32, 48)
RGB = Image.fromarray(PIXELS)
UPRIGHT = np.rot90(PIXELS, -1)  # by orientation 6
HUGE = 2_000_000
XMP = b'<x tiff:Orientation="6"/>'


def texts(**options: object) -> PngImagePlugin.PngInfo:
    """A text of a PNG that Pillow finds too large."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * HUGE, **options)
    return info


def chunk(kind: bytes, content: bytes, *, right: bool = True) -> bytes:
    """A chunk of a PNG, its checksum right or not."""
    crc = zlib.crc32(kind + content) ^ (not right)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def with_chunk(*chunks: bytes, before: bytes = b"IDAT", data: bytes = b"") -> bytes:
    """A PNG with more chunks before another."""
    data = data or encode(RGB, "PNG")
    at = data.index(before) - 4
    return data[:at] + b"".join(chunks) + data[at:]


def many_texts() -> bytes:
    """70 MB of texts, each of which is small enough."""
    content = b"Comment\0\0" + zlib.compress(bytes([120]) * 1_000_000)
    return chunk(b"zTXt", content) * 70


def with_segment(marker: int, content: bytes, data: bytes = b"") -> bytes:
    """A JPEG with another segment at its beginning."""
    data = data or jpeg(PIXELS)
    segment = struct.pack(">BBH", 255, marker, len(content) + 2) + content
    return data[:2] + segment + data[2:]


def broken_index(**options: object) -> bytes:
    """An MPO whose index counts three pictures and has two."""
    packed = io.BytesIO()
    RGB.save(packed, "MPO", save_all=True, append_images=[RGB], quality=95, **options)
    count = b"\x01\xb0\x04\0\x01\0\0\0"  # tag, type and number of values
    data = packed.getvalue()
    assert count + b"\x02" in data
    return data.replace(count + b"\x02", count + b"\x03")


def webp_cut_in_exif() -> bytes:
    """A WebP that ends within its EXIF, which comes after its pixels."""
    data = encode(RGB, "WEBP", lossless=True, exif=exif(1))
    return data[: data.rindex(b"EXIF") + 12]


BROKEN = {
    "PNG, profile of 2 MB": encode(RGB, "PNG", icc_profile=bytes(HUGE)),
    "PNG, text of 2 MB": encode(RGB, "PNG", pnginfo=texts(zip=True)),
    "PNG, 70 MB of texts": with_chunk(many_texts()),
    "PNG, text of 2 MB after the pixels": with_chunk(
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes([120]) * HUGE)),
        before=b"IEND",
    ),
    "PNG, checksum of a text": with_chunk(chunk(b"tEXt", b"a\0b", right=False)),
    "PNG, checksum of a profile": with_chunk(chunk(b"iCCP", b"a\0\0", right=False)),
    "PNG, checksum of EXIF": with_chunk(chunk(b"eXIf", b"MM\0*", right=False)),
    "PNG, short pHYs": with_chunk(chunk(b"pHYs", b"\0")),
    "PNG, short gAMA": with_chunk(chunk(b"gAMA", b"\0")),
    "PNG, short cHRM": with_chunk(chunk(b"cHRM", b"\0")),
    "PNG, empty sRGB": with_chunk(chunk(b"sRGB", b"")),
    "PNG, short fcTL": with_chunk(
        chunk(b"acTL", struct.pack(">II", 2, 0)), chunk(b"fcTL", b"\0")
    ),
    "PNG, ends within a text": with_chunk(
        chunk(b"tEXt", b"a\0" + bytes(99)), before=b"IEND"
    )[:-60],
    "JPEG, index of an MPO": broken_index(),
    "JPEG, short JFIF": with_segment(0xE0, b"JFIF\0"),
    "JPEG, short Adobe": with_segment(0xEE, b"Adobe"),
    "JPEG, resources of Photoshop": with_segment(
        0xED, b"Photoshop 3.0\08BIM\x03\xed\0\0\0\0\0\x10\0"
    ),
    "JPEG, profile": with_segment(0xE2, b"ICC_PROFILE\0"),
    "JPEG, EXIF": with_segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(9)),
    "WebP, cut in EXIF": webp_cut_in_exif(),
    "GIF, comment": encode(RGB.quantize(4), "GIF", comment=b"\xff\xfe" * 300),
}


def decode(data: bytes) -> np.ndarray:
    return conversion.decode(data, FULL_SIZE)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_metadata_cost_no_pixel(name: str) -> None:
    kind = name.partition(",")[0]
    plain = {
        "JPEG": jpeg(PIXELS),
        "GIF": encode(RGB.quantize(4), "GIF"),
    }.get(kind, encode(RGB, "PNG"))
    np.testing.assert_array_equal(decode(BROKEN[name]), decode(plain))


@pytest.mark.parametrize(
    "data",
    [
        encode(RGB, "PNG", exif=exif(6), icc_profile=bytes(HUGE)),
        with_chunk(
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
            chunk(b"tEXt", b"a\0b", right=False),
        ),
        broken_index(exif=exif(6)),
    ],
    ids=["PNG, EXIF", "PNG, XMP", "JPEG, EXIF"],
)
def test_the_orientation_is_kept(data: bytes) -> None:
    found, expected = quadrant_centres(decode(data)), quadrant_centres(UPRIGHT)
    np.testing.assert_allclose(found, expected, atol=3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_nothing_else_goes(kind: str) -> None:
    """Without metadata the pixels are the same, of every mode and with transparency."""
    for mode in ("RGB", "L", "CMYK" if kind == "JPEG" else "RGBA"):
        source = RGB.convert(mode)
        if mode == "RGBA":
            source.putalpha(Image.fromarray(photo(1, 1, 32, 48)[..., 0]))
        data = encode(source, kind, exif=exif(1), icc_profile=bytes(900))
        stripped = list(metadata.without(data))
        assert [len(one) < len(data) for one in stripped] == [True, True]
        for one in stripped:
            np.testing.assert_array_equal(decode(one), decode(data))
            assert not Image.open(io.BytesIO(one)).info.get("icc_profile")
        assert not list(metadata.without(stripped[-1]))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_broken_file_is_still_broken(kind: str) -> None:
    """Wherever a file with metadata is cut, it has all of its pixels or is rejected."""
    data = encode(RGB, kind, exif=exif(1), icc_profile=bytes(90))
    whole = decode(data)
    for length in itertools.chain(range(12, len(data), 7), [len(data)]):
        try:
            pixels = decode(data[:length])
        except conversion.BadImage as bad:
            assert bad.reason in ("damaged", "unsupported", "not_an_image")  # noqa: PT017
        else:
            np.testing.assert_array_equal(pixels, whole)


def test_a_length_that_hides_the_pixels() -> None:
    """A text that claims to have all that follows."""
    data = bytearray(with_chunk(chunk(b"tEXt", b"a\0b")))
    at = data.index(b"tEXt") - 4
    data[at : at + 4] = struct.pack(">I", len(data))
    with pytest.raises(conversion.BadImage, match="damaged"):
        decode(bytes(data))


def test_large_pictures_are_refused_whatever_their_metadata() -> None:
    text = b"zTXtComment\0\0" + zlib.compress(bytes(HUGE))
    data = png(20_000, 20_000, b"\x08\x02", text, b"IDAT")
    with pytest.raises(conversion.BadImage, match="too_many_pixels"):
        decode(data)
    with pytest.raises(conversion.BadImage, match="too_many_pixels"):
        decode(png(20_000, 20_000, b"\x08\x02", b"gAMA\0", b"IDAT"))
