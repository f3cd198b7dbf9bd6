"""`conversion` once more, in TensorFlow's operations: for a server has no Python.

JPEGs go through the same libjpeg-turbo at the same scale, and area averaging is the
same but for the rounding: no pixel that shrinks is more than one level off. Not the
same: transparency in GIF and WebP, which TensorFlow drops, EXIF outside of JPEGs, which
it does not see, and some damaged JPEGs, which it takes.
"""

import functools
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from pipeline.images.conversion import MAX_PIXELS

_JPEG_SCALES = (1, 2, 4, 8)
_PNG = b"\x89PNG"
# The entry of an EXIF directory up to its value, by byte order: tag 0x0112, of type
# "short", one of them.
_ORIENTATION = (b"\x12\x01\x03\0\1\0\0\0", b"\x01\x12\0\x03\0\0\0\1\0")
_EXIF_BYTES = 1 << 16  # an EXIF segment is no longer, and comes first
# Steps through rows and columns that turn a picture upright, by EXIF orientation; from
# 5 on it is transposed before.
_ROW_STEP = (1, 1, 1, -1, -1, 1, 1, -1, -1)
_COLUMN_STEP = (1, 1, -1, -1, 1, 1, -1, -1, 1)


def pixels_of(data: tf.Tensor, image: Mapping[str, Any]) -> tf.Tensor:
    """Decodes and resizes one image as `pipeline.images.conversion` does; for a graph.

    Args:
        data: string[], an encoded image of any kind that `tf.io.decode_image` takes.
        image: `height`, `width` and `resize` of a Contract.

    Returns:
        float32[height, width, 3]: whole numbers in 0 … 255, RGB, upright.

    Raises:
        tf.errors.InvalidArgumentError: `data` is no image, damaged, or too large.
    """
    pixels = tf.case(
        [
            (tf.io.is_jpeg(data), lambda: _decode_jpeg(data, image)),
            (tf.strings.substr(data, 0, 4) == _PNG, lambda: _decode_png(data)),
        ],
        default=lambda: tf.io.decode_image(data, channels=3, expand_animations=False),
    )
    return _resize(tf.ensure_shape(pixels, (None, None, 3)), image)


def _decode_jpeg(data: tf.Tensor, image: Mapping[str, Any]) -> tf.Tensor:
    """uint8[h, w, 3], scaled down while decoding, upright."""
    size = tf.io.extract_jpeg_shape(data)[:2]
    orientation = _orientation(data)
    sideways = orientation >= 5
    upright = tf.where(sideways, size[::-1], size)
    with tf.control_dependencies([_refuse_too_large(size)]):
        decoders = [
            functools.partial(
                tf.io.decode_jpeg,
                data,
                channels=3,
                ratio=scale,
                dct_method="INTEGER_ACCURATE",
            )
            for scale in _JPEG_SCALES
        ]
        pixels = tf.switch_case(_jpeg_scale(upright, image), decoders)
    pixels = tf.cond(sideways, lambda: tf.transpose(pixels, (1, 0, 2)), lambda: pixels)
    rows, columns = (
        tf.gather(steps, orientation) for steps in (_ROW_STEP, _COLUMN_STEP)
    )
    return pixels[::rows, ::columns]


def _jpeg_scale(size: tf.Tensor, image: Mapping[str, Any]) -> tf.Tensor:
    """The place in _JPEG_SCALES of the largest that leaves the target, or twice it."""
    inner = _inner_size(size, image)
    chosen = tf.constant(0)
    for index, scale in enumerate(_JPEG_SCALES[1:], 1):
        exact = tf.reduce_all(size == inner * scale)
        ample = tf.reduce_all(size >= 2 * inner * scale)
        chosen = tf.where(exact | ample, index, chosen)
    return chosen


def _orientation(data: tf.Tensor) -> tf.Tensor:
    """EXIF 1 to 8 of a JPEG; 1 where there is none: int32[].

    Looks for the bytes of the entry: eight that agree by chance are no risk.
    """
    head = tf.strings.substr(data, 0, _EXIF_BYTES)
    after = [tf.strings.split(head, entry, maxsplit=1)[1:] for entry in _ORIENTATION]
    first = tf.concat([*after, [b"\1"]], axis=0)[0]
    value = tf.io.decode_raw(tf.strings.substr(first + b"\0", 0, 1), tf.uint8)[0]
    return tf.where((value >= 1) & (value <= 8), tf.cast(value, tf.int32), 1)


def _decode_png(data: tf.Tensor) -> tf.Tensor:
    """uint8[h, w, 3]; transparency becomes white."""
    head = tf.strings.substr(data, 0, 24) + bytes(24)  # at least as long
    header = tf.io.decode_raw(tf.strings.substr(head, 16, 8), tf.int32, False)
    with tf.control_dependencies([_refuse_too_large(header)]):
        pixels = tf.cast(tf.io.decode_png(data, channels=4), tf.float32)
    opacity = pixels[..., 3:] / 255
    blended = pixels[..., :3] * opacity + 255 * (1 - opacity)
    return tf.cast(tf.round(blended), tf.uint8)


def _refuse_too_large(size: tf.Tensor) -> tf.Operation:
    """Before anything is decoded: a small file may hold gigabytes of pixels."""
    return tf.debugging.assert_less_equal(
        tf.reduce_prod(tf.cast(size, tf.int64)),
        tf.constant(MAX_PIXELS, tf.int64),
        f"the image has more than {MAX_PIXELS:,} pixels",
    )


def _resize(pixels: tf.Tensor, image: Mapping[str, Any]) -> tf.Tensor:
    """float32[height, width, 3] of uint8[h, w, 3]: `conversion.resize`."""
    height, width = image["height"], image["width"]
    target = tf.constant([height, width])
    if image["resize"] == "crop":
        pixels = _centre(pixels, target)
    if image["resize"] != "pad":
        return tf.ensure_shape(_scale(pixels, target), (height, width, 3))
    inner = _inner_size(tf.shape(pixels)[:2], image)
    top, left = tf.unstack((target - inner) // 2)
    return tf.image.pad_to_bounding_box(_scale(pixels, inner), top, left, height, width)


def _inner_size(size: tf.Tensor, image: Mapping[str, Any]) -> tf.Tensor:
    """The size of the whole picture after resizing, before crop or pad: int32[2]."""
    target = tf.constant([image["height"], image["width"]])
    if image["resize"] == "stretch":
        return target
    ratios = target / size  # float64, as Python's, so that halves round alike
    reduce = tf.reduce_max if image["resize"] == "crop" else tf.reduce_min
    return _at_least_one(tf.cast(size, tf.float64) * reduce(ratios))


def _centre(pixels: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """The largest central part with the aspect ratio of the target."""
    size = tf.shape(pixels)[:2]
    ratio = tf.reduce_min(size / target)
    part = _at_least_one(tf.cast(target, tf.float64) * ratio)
    top, left = tf.unstack((size - part) // 2)
    return pixels[top : top + part[0], left : left + part[1]]


def _at_least_one(size: tf.Tensor) -> tf.Tensor:
    return tf.maximum(tf.cast(tf.round(size), tf.int32), 1)


def _scale(pixels: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Shrinks by area, then grows bilinearly; whole numbers after either.

    OpenCV rounds halves up where it shrinks to exactly one half, else to even.
    """
    shrunk = tf.minimum(size, tf.shape(pixels)[:2])
    pixels = tf.image.resize(pixels, shrunk, tf.image.ResizeMethod.AREA)
    return tf.round(tf.image.resize(tf.floor(pixels + 0.5), size))
