"""One image: encoded bytes of any kind in, a small RGB JPEG out.

The only resize rule of the project. JPEGs are decoded by libjpeg-turbo at the
largest of the scales 1/8, 1/4, 1/2, 1 that leaves the target, or at least twice of it
in both directions; area averaging does the rest. Entropy decoding is then most of the
cost.
"""

import importlib.metadata
import io
import math
import re
import struct
import warnings

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from pipeline.dataset.manifest import ImageContract
from pipeline.dataset.originals import Original
from pipeline.images import metadata

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
REASONS = {
    "empty": "the file has no bytes",
    "not_an_image": f"the content is none of {', '.join(FORMATS)}",
    "too_many_pixels": "more pixels would be decoded than --max_pixels allows",
    "damaged": "truncated, or the stream is broken",
    "unsupported": "HEIF, AVIF, TIFF, or a kind of JPEG that no decoder here reads",
}

_SIGNATURES = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a")
_OTHER_SIGNATURES = re.compile(rb".{4}ftyp|II\*\0|MM\0\*", re.DOTALL)
_JPEG_SCALES = (8, 4, 2)  # other scales of libjpeg-turbo have no SIMD code
# In a lossless JPEG, or in metadata. libjpeg-turbo cannot scale lossless JPEGs, and
# simplejpeg 1.9 then has it write past the end of its buffer. The search takes 2 %
# of the time of an image.
_LOSSLESS = re.compile(rb"\xff\xc3")
# What libjpeg-turbo complains of although no pixel is lost, and what it cannot
# convert. Pillow can, and it still finds the truncated ones.
_TOO_STRICT = re.compile(
    "extraneous bytes before marker|bad ICC marker|unknown JFIF revision"
    "|Adobe color transform|Invalid SOS parameters|color conversion|subsampling level"
)
_ORIENTATION = 0x0112  # EXIF tag
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)

Image.MAX_IMAGE_PIXELS = None  # _refuse_pixels knows what is decoded
warnings.filterwarnings("ignore", module=r"PIL\.")  # odd metadata, on stderr
cv2.setNumThreads(0)  # one worker process per core already


class BadImage(Exception):  # noqa: N818 (data, not an error)
    """An image that cannot be used; data, not a fault of the run.

    Attributes:
        reason: a key of REASONS.
        detail: what exactly, for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def convert(data: bytes, contract: ImageContract) -> bytes:
    """Makes the stored image of a source image.

    Args:
        data: an encoded image of any of FORMATS, known by content.
        contract: the size, resize rule and encoding.

    Returns:
        An RGB JPEG of contract.height x contract.width, upright.

    Raises:
        BadImage: `data` is no image, damaged, too large, or of an unsupported kind.
    """
    return convert_described(data, contract)[0]


def convert_described(data: bytes, contract: ImageContract) -> tuple[bytes, Original]:
    """Does what `convert` does, and also returns what the header of `data` says."""
    pixels, original = decode_described(data, contract)
    encoded = simplejpeg.encode_jpeg(
        resize(pixels, contract), contract.quality, colorsubsampling=contract.chroma
    )
    return encoded, original


def decode(data: bytes, contract: ImageContract) -> np.ndarray:
    """Decodes to uint8[height, width, 3], RGB, upright.

    JPEGs come scaled down: to what `contract` asks for, or not below twice of that.

    Raises:
        BadImage: as `convert`.
    """
    return decode_described(data, contract)[0]


def decode_described(
    data: bytes, contract: ImageContract
) -> tuple[np.ndarray, Original]:
    """Does what `decode` does, and also returns what the header of `data` says.

    Where metadata are damaged, an image is decoded without them.
    """
    try:
        return _decode(data, contract)
    except BadImage as bad:
        if bad.reason not in ("damaged", "unsupported"):
            raise
        # Where metadata is at fault, the pixels are whole without it.
        for less in metadata.without(data):
            try:
                return _decode(less, contract)
            except BadImage as again:
                if again.reason == "too_many_pixels":  # true of the file as it is
                    raise
        raise


def resize(pixels: np.ndarray, contract: ImageContract) -> np.ndarray:
    """Resizes uint8[h, w, 3] to uint8[contract.height, contract.width, 3].

    Area averaging where the image shrinks, bilinear where it grows.
    """
    height, width = contract.height, contract.width
    if contract.resize == "crop":
        pixels = _centre(pixels, height, width)
    if contract.resize != "pad":
        return _scale(pixels, height, width)
    inner_height, inner_width = _inner_size(pixels.shape[0], pixels.shape[1], contract)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    padded = np.zeros((height, width, 3), np.uint8)
    padded[top : top + inner_height, left : left + inner_width] = _scale(
        pixels, inner_height, inner_width
    )
    return padded


def versions() -> dict[str, str]:
    """The decoders and encoders that decide the bytes, and their versions."""
    names = ("numpy", "opencv-python-headless", "pillow", "simplejpeg")
    return {name: importlib.metadata.version(name) for name in names}


def _decode(data: bytes, contract: ImageContract) -> tuple[np.ndarray, Original]:
    image = _open(data)
    format, (width, height) = str(image.format).lower(), image.size  # before `draft`
    if format in ("jpeg", "mpo"):
        orientation = _orientation(image)
        pixels = _decode_jpeg(data, image, orientation, contract)
    else:
        _refuse_pixels(image, height * width, contract)
        pixels = _decode_any(image)  # first: the EXIF of a PNG may follow its pixels
        orientation = _orientation(image)
    if orientation in _SIDEWAYS:
        height, width = width, height
    return _turn(pixels, orientation), Original(format, height, width)


def _open(data: bytes) -> Image.Image:
    """Reads the header and checks it; decodes nothing."""
    if not data:
        raise BadImage("empty", "0 bytes")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        raise _unidentified(data) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise BadImage("damaged", _text(error)) from error
    return image


def _refuse_pixels(image: Image.Image, count: int, contract: ImageContract) -> None:
    if count > contract.max_pixels:
        raise BadImage(
            "too_many_pixels",
            f"{image.width}x{image.height}: {count:,} pixels would be decoded, more "
            f"than the {contract.max_pixels:,} of --max_pixels (make shards)",
        )


def _unidentified(data: bytes) -> BadImage:
    """Says why Pillow reads no header."""
    begin = f"begins with {data[:12].hex(' ')}"
    if _OTHER_SIGNATURES.match(data):
        return BadImage("unsupported", f"{begin}: HEIF, AVIF or TIFF")
    if not _SIGNATURES.match(data):
        return BadImage("not_an_image", begin)
    try:
        simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return BadImage("damaged", f"{begin}, but the header is not readable")
    detail = "JPEG of 12 or 16 bits a sample, or of metadata that Pillow cannot read"
    return BadImage("unsupported", detail)


def _decode_jpeg(
    data: bytes, image: Image.Image, orientation: int, contract: ImageContract
) -> np.ndarray:
    """Decodes a JPEG, scaled down, as it is stored."""
    upright = image.size if orientation in _SIDEWAYS else image.size[::-1]
    factor = _jpeg_factor(*upright, contract)
    if _LOSSLESS.search(data):
        factor = 1
    height, width = math.ceil(image.height / factor), math.ceil(image.width / factor)
    # A progressive JPEG has all of its coefficients in memory, whatever the scale.
    whole = "progressive" in image.info
    decoded = image.height * image.width if whole else height * width
    _refuse_pixels(image, decoded, contract)
    try:
        pixels = simplejpeg.decode_jpeg(data, min_height=height, min_width=width)
    except ValueError as error:
        if not _TOO_STRICT.search(_text(error)):
            raise BadImage("damaged", _text(error)) from error
        image.draft(None, (image.width // factor, image.height // factor))
        pixels = _decode_any(image)
    return pixels


def _decode_any(image: Image.Image) -> np.ndarray:
    """Decodes the first frame with Pillow; transparency becomes white."""
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise BadImage("damaged", _text(error)) from error
    if image.mode == "P" and image.palette is None:
        raise BadImage("damaged", "the palette is missing")
    if image.mode.startswith("I"):  # 16 bits of grey: convert() would clip, not scale
        high = np.asarray(image).astype(np.uint32).clip(0, 65535) >> 8
        image = Image.fromarray(high.astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def _orientation(image: Image.Image) -> int:
    """EXIF 1 to 8; 1 where there is none, or none that can be read."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except (SyntaxError, ValueError, struct.error):
        return 1
    return orientation if orientation in _TRANSPOSE else 1


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes the camera's orientation, EXIF 1 to 8."""
    if orientation == 1:
        return pixels
    return np.asarray(Image.fromarray(pixels).transpose(_TRANSPOSE[orientation]))


def _jpeg_factor(height: int, width: int, contract: ImageContract) -> int:
    """The largest fast scale that leaves the target itself, or twice of it or more.

    In between, area averaging would blur: on photos of 1600x1200, 1/8 gives 54 dB
    for 200x150, which it hits, but 37 dB for 190x140.
    """
    inner_height, inner_width = _inner_size(height, width, contract)
    for factor in _JPEG_SCALES:
        ratios = height / (inner_height * factor), width / (inner_width * factor)
        if ratios == (1, 1) or min(ratios) >= 2:
            return factor
    return 1


def _inner_size(height: int, width: int, contract: ImageContract) -> tuple[int, int]:
    """The size of the whole picture after resizing, before crop or pad."""
    target = contract.height, contract.width
    if contract.resize == "stretch":
        return target
    ratios = target[0] / height, target[1] / width
    ratio = max(ratios) if contract.resize == "crop" else min(ratios)
    return max(1, round(height * ratio)), max(1, round(width * ratio))


def _centre(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """The largest central part with the aspect ratio of height x width."""
    ratio = min(pixels.shape[0] / height, pixels.shape[1] / width)
    rows, columns = max(1, round(height * ratio)), max(1, round(width * ratio))
    top, left = (pixels.shape[0] - rows) // 2, (pixels.shape[1] - columns) // 2
    return pixels[top : top + rows, left : left + columns]


def _scale(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Shrinks by area, then grows bilinearly; OpenCV's sizes are (width, height)."""
    shrunk = min(width, pixels.shape[1]), min(height, pixels.shape[0])
    if shrunk != pixels.shape[1::-1]:
        pixels = cv2.resize(pixels, shrunk, interpolation=cv2.INTER_AREA)
    if shrunk != (width, height):
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    return pixels


def _text(error: Exception) -> str:
    """An error in one line."""
    return " ".join(str(error).split()) or type(error).__name__
