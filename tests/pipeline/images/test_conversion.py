"""pipeline.images.conversion: every format, orientation, resize rule and rejection."""

import io
import math
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, JpegImagePlugin

from pipeline.dataset.manifest import ImageContract
from pipeline.images import conversion
from tests.support.files import REPOSITORY
from tests.support.photos import jpeg, photo
from tests.support.pictures import (
    FULL_SIZE,
    encode,
    exif,
    png,
    quadrant_centres,
    quadrants,
)

CONTRACT = ImageContract(height=15, width=20)
PIXELS = photo(0, seed=1, height=48, width=64)
SMALL = photo(1, seed=2, height=12, width=16)
ORIENTATIONS = range(1, 9)


def detailed(height: int, width: int) -> np.ndarray:
    """A smooth picture under a pattern of periods from 5 to 40 pixels, and grain."""
    y, x = np.mgrid[:height, :width]
    pattern = 20 * np.sin(x / 0.8 / (1 + 7 * y / height))
    grain = np.random.default_rng(3).normal(0, 4, (height, width))
    base = photo(1, seed=3, height=height, width=width)
    return (base + (pattern + grain)[..., None]).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def detailed_photo() -> bytes:
    """A JPEG of 1600x1200, the usual size of a source image."""
    return jpeg(detailed(1200, 1600), quality=90)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB."""
    error = np.square(one.astype(float) - other).mean()
    return 10 * np.log10(255**2 / max(error, 1e-9))


def lossless_jpeg(height: int, width: int, components: bytes) -> bytes:
    """All samples 128: the first is predicted so, and no later one differs."""
    count = bytes([len(components)])
    sampling = b"".join(bytes([name]) + b"\x11\0" for name in components)
    frame = struct.pack(">BHH", 8, height, width) + count + sampling
    huffman = b"\0\1" + bytes(15) + b"\0"  # one code, a single 0: no difference
    tables = b"".join(bytes([name]) + b"\0" for name in components)
    scan = count + tables + b"\1\0\0"  # predicted by the sample to the left
    segments = b"".join(
        b"\xff" + marker + struct.pack(">H", len(content) + 2) + content
        for marker, content in ((b"\xc3", frame), (b"\xc4", huffman), (b"\xda", scan))
    )
    bits = bytes(math.ceil(height * width * len(components) / 8))
    return b"\xff\xd8" + segments + bits + b"\xff\xd9"


def insert(data: bytes, extra: bytes, before: bytes) -> bytes:
    """`data` with `extra` before the last `before`."""
    at = data.rindex(before)
    return data[:at] + extra + data[at:]


def decode(data: bytes) -> np.ndarray:
    """All pixels of an image."""
    return conversion.decode(data, FULL_SIZE)


# Formats


RGB = Image.fromarray(PIXELS)
PALETTE = RGB.quantize(64)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(encode(RGB, "PNG"), RGB, id="png"),
        pytest.param(encode(RGB.convert("L"), "PNG"), RGB.convert("L"), id="grey png"),
        pytest.param(encode(RGB.convert("1"), "PNG"), RGB.convert("1"), id="1-bit png"),
        pytest.param(encode(PALETTE, "PNG"), PALETTE, id="palette png"),
        pytest.param(encode(PALETTE, "GIF"), PALETTE, id="gif"),
        pytest.param(encode(RGB, "BMP"), RGB, id="bmp"),
        pytest.param(encode(RGB, "WEBP", lossless=True), RGB, id="webp"),
    ],
)
def test_lossless_formats_keep_every_pixel(data: bytes, expected: Image.Image) -> None:
    np.testing.assert_array_equal(decode(data), np.asarray(expected.convert("RGB")))


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("RGB", "JPEG", {}),
        ("RGB", "JPEG", {"progressive": True}),
        ("L", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("RGB", "WEBP", {}),
    ],
)
def test_lossy_formats_stay_close(mode: str, kind: str, options: dict) -> None:
    picture = RGB.convert(mode)
    pixels = decode(encode(picture, kind, quality=95, **options))
    assert pixels.dtype == np.uint8
    assert psnr(pixels, np.asarray(picture.convert("RGB"))) > 36


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_becomes_white(kind: str) -> None:
    pixels = np.full((4, 6, 4), [200, 100, 0, 255], np.uint8)
    pixels[:, 2:4, 3] = 51  # a fifth
    pixels[:, 4:, 3] = 0
    row = [[200, 100, 0]] * 2 + [[244, 224, 204]] * 2 + [[255, 255, 255]] * 2
    found = decode(encode(Image.fromarray(pixels), kind, lossless=True))
    np.testing.assert_array_equal(found, [row] * 4)


def test_transparent_colour_of_a_palette_becomes_white() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    found = decode(encode(picture, "PNG", transparency=1))
    np.testing.assert_array_equal(found, [[[10, 20, 30], [255, 255, 255]]])


def test_16_bits_of_grey_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256 * 4).astype(np.uint16).reshape(4, 256)
    found = decode(encode(Image.fromarray(ramp), "PNG"))
    np.testing.assert_allclose(found[..., 0], ramp / 257, atol=1)
    assert (found == found[..., :1]).all()


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (6, 4), name) for name in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(data), np.full((4, 6, 3), [255, 0, 0]))


@pytest.mark.parametrize("components", [b"RGB", b"\1"], ids=["RGB", "grey"])
def test_lossless_jpeg_is_not_scaled(components: bytes) -> None:
    # Scaled, libjpeg-turbo writes the whole picture into simplejpeg's small buffer.
    pixels = conversion.decode(lossless_jpeg(240, 320, components), CONTRACT)
    np.testing.assert_array_equal(pixels, np.full((240, 320, 3), 128))


# Orientation


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_orientation(orientation: int, kind: str) -> None:
    data = encode(Image.fromarray(quadrants(32, 48)), kind, exif=exif(orientation))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert psnr(decode(data), np.asarray(upright)) > 40


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_orientation_of_scaled_pictures(orientation: int, factor: int) -> None:
    data = jpeg(quadrants(30 * factor, 40 * factor), exif=exif(orientation))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    height, width = upright.shape[0] // factor, upright.shape[1] // factor
    target = ImageContract(height=height, width=width)
    pixels = conversion.decode(data, target)
    assert pixels.shape == (height, width, 3)
    np.testing.assert_allclose(
        quadrant_centres(pixels), quadrant_centres(upright), atol=3
    )


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientation_turns_nothing(orientation: int) -> None:
    plain = jpeg(quadrants(32, 48))
    odd = jpeg(quadrants(32, 48), exif=exif(orientation))
    np.testing.assert_array_equal(decode(odd), decode(plain))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("content", [b"", b"Lorem ipsum", b"II*\0\x08\0\0\0\xff\xff"])
def test_unreadable_exif_turns_nothing(content: bytes, kind: str) -> None:
    data = encode(RGB, kind, exif=b"Exif\0\0" + content)
    np.testing.assert_array_equal(decode(data), decode(encode(RGB, kind)))


def test_odd_metadata_print_nothing() -> None:
    code = (
        "import sys; from pipeline.images.conversion import *\n"
        "f = sys.stdin.buffer.read()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", f"{code}decode(f, {CONTRACT!r})"],
        input=jpeg(SMALL, exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff"),
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    )
    assert (run.stdout, run.stderr) == (b"", b"")


# Scaled decoding


@pytest.mark.parametrize(
    ("height", "width", "resize", "expected"),
    [
        (240, 320, "stretch", (30, 40)),  # 1/8 leaves exactly twice 15x20
        (120, 160, "stretch", (15, 20)),  # 1/8 leaves 15x20 itself
        (128, 160, "stretch", (32, 40)),
        (239, 320, "stretch", (60, 80)),
        (240, 319, "stretch", (60, 80)),
        (61, 83, "stretch", (31, 42)),  # rounded up, as libjpeg does
        (59, 80, "stretch", (59, 80)),
        (120, 640, "stretch", (30, 160)),
        (120, 640, "crop", (15, 80)),  # which it has to be before the cut
        (136, 640, "crop", (34, 160)),  # would be cut from 15x71
        (120, 640, "pad", (15, 80)),  # becomes 4x20
    ],
)
def test_scale(height: int, width: int, resize: str, expected: tuple[int, int]) -> None:
    contract = ImageContract(height=15, width=20, resize=resize)
    data = jpeg(photo(0, seed=4, height=height, width=width))
    assert conversion.decode(data, contract).shape == (*expected, 3)


@pytest.mark.parametrize(
    ("height", "width", "factor"),
    [(299, 398, 2), (300, 400, 4), (149, 199, 4), (150, 200, 8), (75, 100, 8)],
)
def test_scaled_decoding_looks_like_full_decoding(
    detailed_photo: bytes, height: int, width: int, factor: int
) -> None:
    contract = ImageContract(height=height, width=width)
    whole = np.asarray(Image.open(io.BytesIO(detailed_photo)))
    expected = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    scaled = conversion.decode(detailed_photo, contract)
    assert scaled.shape == (1200 // factor, 1600 // factor, 3)
    assert psnr(conversion.resize(scaled, contract), expected) >= 40


# Resize


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize(
    ("height", "width"),
    [(1, 1), (1, 2000), (2000, 1), (15, 20), (16, 19), (7, 9), (100, 3), (90, 120)],
)
def test_resize_keeps_one_colour(height: int, width: int, resize: str) -> None:
    contract = ImageContract(height=15, width=20, resize=resize)
    resized = conversion.resize(
        np.full((height, width, 3), [9, 99, 199], np.uint8), contract
    )
    assert resized.shape == (15, 20, 3)
    assert resized.dtype == np.uint8
    inside = resized.any(axis=-1)
    assert inside.any() if resize == "pad" else inside.all()
    assert (resized[inside] == [9, 99, 199]).all()


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [
        (60, 60, slice(0, 30), slice(5, 35)),
        (60, 160, slice(7, 22), slice(0, 40)),
        (10, 10, slice(0, 30), slice(5, 35)),
        (5, 10, slice(5, 25), slice(0, 40)),
        (2000, 1, slice(0, 30), slice(19, 20)),
        (1, 2000, slice(14, 15), slice(0, 40)),
        (1, 1, slice(0, 30), slice(5, 35)),
        (60, 80, slice(0, 30), slice(0, 40)),
    ],
)
def test_pad(height: int, width: int, rows: slice, columns: slice) -> None:
    contract = ImageContract(height=30, width=40, resize="pad")
    expected = np.zeros((30, 40, 3), np.uint8)
    expected[rows, columns] = 255
    white = np.full((height, width, 3), 255, np.uint8)
    np.testing.assert_array_equal(conversion.resize(white, contract), expected)


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [
        (60, 160, slice(0, 60), slice(40, 120)),
        (100, 40, slice(35, 65), slice(0, 40)),
        (9, 40, slice(0, 9), slice(14, 26)),
        (2000, 4, slice(998, 1001), slice(0, 4)),
        (3, 2000, slice(0, 3), slice(998, 1002)),
        (60, 80, slice(0, 60), slice(0, 80)),
    ],
)
def test_crop(height: int, width: int, rows: slice, columns: slice) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)
    cut = conversion.resize(pixels, ImageContract(height=30, width=40, resize="crop"))
    centre = np.ascontiguousarray(pixels[rows, columns])
    expected = conversion.resize(centre, ImageContract(height=30, width=40))
    np.testing.assert_array_equal(cut, expected)


def test_stretch_shrinks_by_area() -> None:
    pixels = np.random.default_rng(6).integers(0, 256, (45, 80, 3), np.uint8)
    means = pixels.reshape(15, 3, 20, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(conversion.resize(pixels, CONTRACT), means, atol=0.51)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        ([[0, 100]], [[0, 25, 75, 100]]),  # grows
        ([[0, 100], [40, 140]], [[20, 45, 95, 120]]),  # shrinks and grows
    ],
)
def test_stretch_grows_bilinearly(pixels: list, expected: list) -> None:
    grey = np.array(pixels, np.uint8)[..., None].repeat(3, axis=2)
    resized = conversion.resize(grey, ImageContract(height=1, width=4))
    np.testing.assert_array_equal(resized[..., 0], expected)


# The stored image


@pytest.mark.parametrize(("chroma", "sampling"), [("420", 2), ("444", 0)])
@pytest.mark.parametrize("quality", [60, 90, 100])
def test_stored_image(chroma: str, sampling: int, quality: int) -> None:
    contract = ImageContract(height=15, width=20, chroma=chroma, quality=quality)
    stored = Image.open(io.BytesIO(conversion.convert(jpeg(PIXELS), contract)))
    assert (stored.format, stored.mode, stored.size) == ("JPEG", "RGB", (20, 15))
    assert JpegImagePlugin.get_sampling(stored) == sampling
    pillow = Image.open(io.BytesIO(jpeg(SMALL, quality=quality)))
    assert stored.quantization == pillow.quantization


def test_stored_image_is_upright_and_says_nothing_of_orientation() -> None:
    data = jpeg(quadrants(30, 40), exif=exif(3))
    stored = Image.open(io.BytesIO(conversion.convert(data, CONTRACT)))
    assert not stored.getexif()
    upside_down = quadrants(30, 40)[::-1, ::-1]
    found = quadrant_centres(np.asarray(stored))
    np.testing.assert_allclose(found, quadrant_centres(upside_down), atol=12)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("width", [200, 260])
def test_stored_image_that_needs_no_resizing(width: int, kind: str) -> None:
    pixels = photo(2, seed=7, height=150, width=width)
    contract = ImageContract(
        height=150, width=200, resize="crop", quality=100, chroma="444"
    )
    data = encode(Image.fromarray(pixels), kind, quality=95)
    stored = np.asarray(Image.open(io.BytesIO(conversion.convert(data, contract))))
    left = (width - 200) // 2
    assert psnr(stored, pixels[:, left : left + 200]) > 36


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_same_bytes_every_time(resize: str) -> None:
    contract = ImageContract(height=15, width=20, resize=resize)
    data = jpeg(detailed(120, 160))
    first = conversion.convert(data, contract)
    conversion.convert(jpeg(SMALL), contract)
    assert conversion.convert(data, contract) == first


# Rejections


CUT = "truncated|Truncated|Premature end|could not create decoder"
HALF = [
    pytest.param("damaged", data[: len(data) // 2], CUT, id=f"half a {kind}")
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP")
    for data in [encode(RGB, kind)]
]
WIDE_FRAME = b"GIF89a\1\0\1\0\0\0\0,\0\0\0\0" + struct.pack("<HH", 65535, 65535)
BAD = [
    pytest.param("empty", b"", "0 bytes", id="nothing"),
    pytest.param("not_an_image", b"\xff", "begins with ff", id="one byte"),
    pytest.param("not_an_image", b"<html>not found", "3c 68 74 6d 6c 3e", id="html"),
    pytest.param("not_an_image", bytes(64), "00 00", id="zeros"),
    *HALF,
    pytest.param("damaged", jpeg(PIXELS)[:-2], "Premature end", id="no end of image"),
    pytest.param("damaged", jpeg(PIXELS)[:12], CUT, id="start of a JPEG"),
    pytest.param("damaged", encode(RGB, "PNG")[:20], CUT, id="start of a PNG"),
    pytest.param("damaged", b"GIF89a\1\0", "header", id="start of a GIF"),
    pytest.param(
        "damaged",
        insert(jpeg(PIXELS), b"\0\0", b"\xff\xdb")[:-20],
        "truncated",
        id="extraneous bytes, and truncated",
    ),
    pytest.param(
        "damaged",
        insert(jpeg(PIXELS, progressive=True), b"\xff\x8a", b"\xff\xc4"),
        "Unsupported marker",
        id="unknown marker",
    ),
    pytest.param(
        "damaged",
        png(1, 1, b"\x08\x03", b"IDAT" + zlib.compress(b"\0\0"), b"IEND"),
        "palette",
        id="palette PNG without a palette",
    ),
    pytest.param(
        "too_many_pixels",
        png(9000, 10_000, b"\x08\x02", b"IDAT"),
        "10000x9000",
        id="90 M PNG",
    ),
    pytest.param(
        "too_many_pixels",
        png(20_000, 20_000, b"\x08\x02", b"IDAT"),
        "400,000,000 pixels",
        id="400 M PNG",
    ),
    pytest.param("too_many_pixels", WIDE_FRAME + bytes(4), "4,294,836,225", id="GIF"),
    pytest.param("unsupported", encode(RGB, "TIFF"), "TIFF", id="tiff"),
    pytest.param("unsupported", b"\0\0\0\x18ftypheic\0\0\0\0", "HEIF", id="heif"),
    pytest.param(
        "unsupported",
        jpeg(SMALL).replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"),
        "12 or 16 bits",
        id="12-bit jpeg",
    ),
]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("reason", "data", "detail"), BAD)
def test_rejection(reason: str, data: bytes, detail: str) -> None:
    with pytest.raises(conversion.BadImage, match=detail) as caught:
        conversion.convert(data, CONTRACT)
    assert caught.value.reason == reason
    assert caught.value.detail
    assert "\n" not in caught.value.detail


def test_every_reason_is_tested() -> None:
    assert {parameters.values[0] for parameters in BAD} == set(conversion.REASONS)


PREFIXES = {
    "jpeg": jpeg(SMALL),
    "progressive jpeg": jpeg(SMALL, progressive=True),
    "cmyk jpeg": encode(Image.fromarray(SMALL).convert("CMYK"), "JPEG"),
    "extraneous bytes": insert(jpeg(SMALL), b"\0\0", b"\xff\xdb"),
    "png": encode(Image.fromarray(SMALL), "PNG"),
    "gif": encode(Image.fromarray(SMALL), "GIF"),
    "bmp": encode(Image.fromarray(SMALL), "BMP"),
    "webp": encode(Image.fromarray(SMALL), "WEBP"),
}


@pytest.mark.parametrize("name", PREFIXES)
def test_a_truncated_file_is_rejected_or_has_every_pixel(name: str) -> None:
    data = PREFIXES[name]
    whole = decode(data)
    rejected = 0
    for length in range(len(data)):
        try:
            pixels = decode(data[:length])
        except conversion.BadImage:
            rejected += 1
        else:
            np.testing.assert_array_equal(pixels, whole)
    assert rejected >= len(data) - 22  # a PNG's last checksum and its end


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(insert(jpeg(PIXELS), bytes(5), b"\xff\xdb"), id="before DQT"),
        pytest.param(insert(jpeg(PIXELS), bytes(5), b"\xff\xda"), id="before SOS"),
        pytest.param(insert(jpeg(PIXELS), bytes(5), b"\xff\xd9"), id="before EOI"),
        pytest.param(jpeg(PIXELS) + bytes(5), id="after EOI"),
        pytest.param(
            insert(jpeg(PIXELS), b"\xff\xe2\0\x11ICC_PROFILE\0\2\1?", b"\xff\xdb"),
            id="ICC chunk 2 of 1",
        ),
    ],
)
def test_what_costs_no_pixel_is_no_damage(data: bytes) -> None:
    whole = jpeg(PIXELS)
    np.testing.assert_allclose(decode(data), decode(whole), atol=2)
    scaled = conversion.decode(whole, ImageContract(height=24, width=32))
    assert scaled.shape == (24, 32, 3)
    found = conversion.decode(data, ImageContract(height=24, width=32))
    np.testing.assert_allclose(found, scaled, atol=2)


# ------------------------------------------------------------- how many pixels


@pytest.mark.parametrize(("progressive", "is_taken"), [(False, True), (True, False)])
def test_of_a_jpeg_the_pixels_count_that_are_decoded(
    progressive: bool, is_taken: bool
) -> None:
    """At 1/8 a photo of 108 megapixels is small; a progressive one is never."""
    with io.BytesIO() as file:
        image = Image.new("L", (12_000, 9_000), 90)
        image.save(file, "JPEG", quality=30, progressive=progressive)
        data = file.getvalue()
    contract = ImageContract(height=30, width=40)
    if is_taken:
        assert conversion.decode(data, contract).shape == (1125, 1500, 3)
        return
    with pytest.raises(conversion.BadImage, match=r"12000x9000: 108,000,000 .*--max_p"):
        conversion.decode(data, contract)


def test_max_pixels_is_a_flag() -> None:
    data = encode(Image.new("RGB", (64, 48)), "PNG")
    with pytest.raises(
        conversion.BadImage, match=r"64x48: 3,072 .* the 3,071 of --max"
    ):
        conversion.decode(data, ImageContract(height=8, width=8, max_pixels=3071))
    conversion.decode(data, ImageContract(height=8, width=8, max_pixels=3072))


def test_an_original_of_more_pixels_than_usual_is_taken_where_it_is_allowed() -> None:
    data = encode(Image.new("L", (10_000, 9_000)), "PNG")
    contract = ImageContract(height=8, width=8, max_pixels=100_000_000)
    assert conversion.decode(data, contract).shape == (9_000, 10_000, 3)
