"""`conversion` once more, in TensorFlow's operations: a server has no Python.

An image is answered as `conversion` does, or not at all: `decode_batch` marks the
rows that it refuses. JPEGs go through the same libjpeg-turbo at the same scale, and
area averaging is the same but for the rounding: no pixel of a picture that shrinks is
more than one level off. Two levels where a picture grows, for OpenCV's bilinear
weights have 11 bits, and in CMYK, which simplejpeg mixes in whole numbers of its own.

Refused is what is no image, damaged or too large, and what TensorFlow cannot read as
`conversion` does:

* GIFs with transparency, or whose first frame does not fill the picture;
* BMPs of other than 24 bits, or compressed; animated WebPs without transparency;
* PNGs of which one grey or colour is transparent in other than 8 bits a sample;
* JPEGs that are lossless, have junk between their segments, or lack scans;
* orientations that stand elsewhere than in a plain entry of the EXIF.

JPEGs, GIFs and WebPs have no checksum, and TensorFlow passes on no warning of its
decoders. A JPEG whose bits end too early is refused. Where single bits are wrong in the
middle of a file, an image may be answered that `conversion` rejects. So is a PNG of
which only the texts are damaged: its pixels are right.
"""

import contextlib
import functools
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from pipeline.dataset.manifest import MAX_PIXELS

_JPEG_SCALES = (1, 2, 4, 8)
_LOSSLESS = b"\xff\xc3"  # `conversion` scales no JPEG with these bytes anywhere
_MAX_SEGMENTS = 1000  # a JPEG of nothing but filling would keep a server busy
# Says that CMYK is stored inverted, which `conversion` assumes. It goes in front of
# the file's own, for the last one counts.
_ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"
_MORE_BITS = bytes(range(7, 251, 4))
_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112  # EXIF tag
_SHORT, _LONG = 3, 4  # EXIF types
# Steps through rows and columns that turn a picture upright, by EXIF orientation; from
# 5 on it is transposed before.
_ROW_STEP = (1, 1, 1, -1, -1, 1, 1, -1, -1)
_COLUMN_STEP = (1, 1, -1, -1, 1, 1, -1, -1, 1)
# Where Pillow looks for an orientation in a PNG, too.
_HIDDEN_IN_PNG = (b"Raw profile type exif", b"tEXtexif", b"XML:com.adobe.xmp\0\1")
# What may stand between the palette of a GIF and its first frame, in Latin-1: data of
# an application, comments, and a control block without the flag of transparency.
_EVEN = "".join(rf"\x{value:02x}" for value in range(0, 256, 2))
_GIF_BLOCKS = (
    r"^(?s:!\xff\x0b(?:NETSCAPE2\.0\x03.{3}|.{11}[^\x00]*)\x00|!\xfe[^\x00]+\x00"
    rf"|!\xf9\x04[{_EVEN}].{{3}}\x00)*,"
)
# Makes a function of a graph that is not copied into its callers. An image then passes
# through the operations of its own kind only: about a tenth of a small JPEG's time.
_apart = functools.partial(
    tf.function, autograph=False, experimental_attributes={"_noinline": True}
)


def decode_batch(
    data: tf.Tensor, image: Mapping[str, Any]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes and resizes images as `conversion` does; for a graph.

    Args:
        data: string[batch], encoded images: JPEG, PNG, GIF, BMP or WebP.
        image: `height`, `width` and `resize` of a Contract.

    Returns:
        float32[batch, height, width, 3]: whole numbers in 0 … 255, RGB, upright; all 0
        where an image is refused. And bool[batch], false there.
    """
    count = tf.size(data, tf.int64)
    blank = tf.zeros((image["height"], image["width"], 3))
    # A graph cannot catch an error, but a data set can leave out the elements that
    # raise one. The row behind the last makes sure that one is left.
    decoded = (
        tf.data.Dataset.from_tensor_slices((data, *_read_segments(data)))
        .enumerate()
        .map(
            lambda row, encoded: (row, _pixels_of(image, *encoded)),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        .ignore_errors(log_warning=True)  # the reason, where a server has a log
        .concatenate(tf.data.Dataset.from_tensors((count, blank)))
        .batch(count + 1)
    )
    rows, pixels = decoded.get_single_element()  # int64[n], float32[n, h, w, 3]
    rows = rows[:, tf.newaxis]
    valid = tf.scatter_nd(rows, tf.ones_like(rows[:, 0], tf.bool), [count + 1])
    shape = tf.concat([[count + 1], tf.shape(blank, tf.int64)], axis=0)
    return tf.scatter_nd(rows, pixels, shape)[:-1], valid[:-1]


def _pixels_of(
    image: Mapping[str, Any], data: tf.Tensor, scans: tf.Tensor, exif: tf.Tensor
) -> tf.Tensor:
    """Returns float32[height, width, 3] of one image.

    Args:
        image: as of `decode_batch`.
        data: string[], the encoded image.
        scans: where the scans of a JPEG begin, and
        exif: its EXIF, both of `_read_segments`.

    Raises:
        tf.errors.InvalidArgumentError: the image is refused.
    """
    is_jpeg = tf.io.is_jpeg(data)
    exif = tf.cond(is_jpeg, lambda: exif, lambda: _find_exif(data))
    orientation = _orientation(exif, data)
    pixels = tf.cond(
        is_jpeg,
        lambda: _decode_jpeg(data, scans, orientation >= 5, image),
        lambda: _decode_other(data),
    )
    return _resize(_turn(pixels, orientation), image)


# JPEG


def _read_segments(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Reads the segments of JPEGs up to the first scan, of a whole batch at once.

    Returns:
        The place of the scan, 0 where there is none: int32[batch]; and the first EXIF
        segment or an empty string: string[batch].
    """
    batch, length = tf.shape(data), tf.strings.length(data)

    def cut(at: tf.Tensor, size: int) -> tf.Tensor:
        return tf.strings.substr(data, tf.minimum(at, length), tf.fill(batch, size))

    def head_at(at: tf.Tensor) -> tf.Tensor:
        raw = tf.strings.substr(cut(at, 4) + bytes(4), 0, 4)
        return tf.reshape(tf.io.decode_raw(raw, tf.int32, little_endian=False), [-1])

    def marker_of(head: tf.Tensor) -> tf.Tensor:  # without the 255 before it
        return head // 0x10000 + 256

    def size_of(head: tf.Tensor) -> tf.Tensor:
        return head % 0x10000

    def has_next(head: tf.Tensor) -> tf.Tensor:
        marker = marker_of(head)
        return ((marker >= 0xC0) & (marker < 0xD0)) | (marker > 0xDA)

    def next_segment(
        at: tf.Tensor, head: tf.Tensor, exif: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        is_exif = (exif == 0) & (marker_of(head) == 0xE1) & (cut(at + 4, 6) == _EXIF)
        step = tf.where(marker_of(head) == 0xFF, 1, 2 + size_of(head))  # 1: filling
        at, exif = at + tf.where(has_next(head), step, 0), tf.where(is_exif, at, exif)
        return at, head_at(at), exif

    start = tf.fill(batch, 2)
    at, head, exif = tf.while_loop(
        lambda at, head, exif: tf.reduce_any(has_next(head)),
        next_segment,
        (start, head_at(start), tf.zeros_like(start)),
        maximum_iterations=_MAX_SEGMENTS,
    )
    exif_size = tf.where(exif > 0, size_of(head_at(exif)) - 2, 0)
    exif = tf.strings.substr(data, tf.where(exif > 0, exif + 4, 0), exif_size)
    return tf.where(marker_of(head) == 0xDA, at, 0), exif


def _decode_jpeg(
    data: tf.Tensor, scans: tf.Tensor, is_sideways: tf.Tensor, image: Mapping[str, Any]
) -> tf.Tensor:
    """Returns uint8[h, w, 3], scaled down while decoding, but not turned."""
    shape = tf.io.extract_jpeg_shape(data)
    size, components = shape[:2], shape[2]
    upright = tf.where(is_sideways, size[::-1], size)
    scale = _jpeg_scale(upright, image)
    scale = tf.cond(
        scale > 0, lambda: tf.where(_holds(data, _LOSSLESS), 0, scale), lambda: scale
    )
    with _require(_is_small(size), "too many pixels"), _require(scans > 0, "no scan"):
        pixels = _decode_scaled(data, scale, components)
        first_scan = scans + 5 + 2 * _bytes(data, scans + 4, 1)[0]
    is_progressive = tf.reduce_any(_bytes(data, first_scan, 2) != (0, 63))
    # TensorFlow says nothing where the bits end too early. A plain JPEG is then grey
    # down to its last pixel; others may only have less detail.
    is_grey = tf.reduce_all(pixels[-1, -1] == 128)
    has_no_end = tf.strings.substr(data, -1, 1) == b"\xff"
    is_whole = tf.cond(
        is_progressive | is_grey | has_no_end | (components == 4),
        lambda: _is_whole(data, scans, is_progressive, scale, components, pixels),
        lambda: True,
    )
    with _require(is_whole, "the stream ends too early"):
        return tf.identity(pixels)


def _decode_scaled(
    data: tf.Tensor, scale: tf.Tensor, components: tf.Tensor
) -> tf.Tensor:
    """Returns uint8[h, w, 3] of a JPEG, at a place in _JPEG_SCALES."""
    is_cmyk = components == 4
    data = tf.cond(
        is_cmyk,
        lambda: tf.strings.substr(data, 0, 2) + _ADOBE + _from(data, 2),
        lambda: data,
    )
    decoders = [
        functools.partial(
            tf.io.decode_jpeg,
            data,
            channels=3,
            ratio=ratio,
            dct_method="INTEGER_ACCURATE",
        )
        for ratio in _JPEG_SCALES
    ]
    pixels = tf.switch_case(scale, decoders)
    # TensorFlow rounds down where it mixes CMYK, simplejpeg up.
    return tf.cond(is_cmyk, lambda: tf.minimum(pixels, 254) + 1, lambda: pixels)


@_apart
def _is_whole(
    data: tf.Tensor,
    scans: tf.Tensor,
    is_progressive: tf.Tensor,
    scale: tf.Tensor,
    components: tf.Tensor,
    pixels: tf.Tensor,
) -> tf.Tensor:
    """Says whether every scan of a JPEG has all of its bits.

    Decodes it once more, with bits without meaning behind every scan. They change
    the picture only where a scan has too few of its own.
    """
    # what follows each byte 255; 0 first if that byte is data, 0xD0 to 0xD7 at restarts
    pieces = tf.strings.split(_from(data, scans), b"\xff")[1:]
    first = tf.strings.substr(pieces + b"\0", 0, 1)
    marker = tf.io.decode_raw(tf.strings.reduce_join(first), tf.uint8)
    is_inside = (marker == 0) | (marker // 8 == 0xD0 // 8)
    longer = tf.where(is_inside, b"\xff", _MORE_BITS + b"\xff") + pieces
    longer = tf.strings.substr(data, 0, scans) + tf.strings.reduce_join(longer)
    is_same = tf.reduce_all(_decode_scaled(longer, scale, components) == pixels)
    # A progressive JPEG needs the last details of every component: versions of
    # libjpeg-turbo make up for missing ones in different ways. 0xDA, two bytes of
    # length, 1 component, two of it, first and last coefficient, bits left for later
    heads = tf.boolean_mask(pieces, marker == 0xDA) + bytes(9)
    heads = tf.io.decode_raw(tf.strings.substr(heads, 0, 9), tf.uint8)
    is_detail = (heads[:, 3] == 1) & (heads[:, 6] > 0)
    is_last = is_detail & (heads[:, 8] % 16 == 0)
    has_details = tf.reduce_sum(tf.cast(is_last, tf.int32)) >= components
    has_all = ~is_progressive | (~is_detail[0] & has_details)
    return is_same & has_all & tf.reduce_any(marker == 0xD9)


def _jpeg_scale(size: tf.Tensor, image: Mapping[str, Any]) -> tf.Tensor:
    """Returns the place in _JPEG_SCALES of the largest that leaves enough.

    That is the target itself, or at least twice of it.
    """
    inner = _inner_size(size, image)
    chosen = tf.constant(0)
    for index, scale in enumerate(_JPEG_SCALES[1:], 1):
        exact = tf.reduce_all(size == inner * scale)
        ample = tf.reduce_all(size >= 2 * inner * scale)
        chosen = tf.where(exact | ample, index, chosen)
    return chosen


# Other kinds


@_apart
def _decode_other(data: tf.Tensor) -> tf.Tensor:
    """Returns uint8[h, w, 3] of what is no JPEG; transparency becomes white."""
    begin = tf.strings.substr(data, 0, 4)
    pixels = tf.case(
        [
            (begin == b"\x89PNG", lambda: _decode_png(data)),
            (begin == b"GIF8", lambda: _decode_gif(data)),
            (begin == b"RIFF", lambda: _decode_webp(data)),
        ],
        default=lambda: _decode_bmp(data),
    )
    with _require(_is_small(tf.shape(pixels)[:2]), "too many pixels"):
        return tf.ensure_shape(pixels, (None, None, 3))


@_apart
def _find_exif(data: tf.Tensor) -> tf.Tensor:
    """Returns the EXIF of what is no JPEG, or an empty string."""
    begin = tf.strings.substr(data, 0, 4)
    return tf.case(
        [
            (begin == b"\x89PNG", lambda: _png_exif(data)),
            (begin == b"RIFF", lambda: _webp_exif(data)),
        ],
        default=lambda: tf.constant(b""),
    )


def _decode_png(data: tf.Tensor) -> tf.Tensor:
    size = tf.io.decode_raw(tf.strings.substr(data, 16, 8), tf.int32, False)
    depth, colour = tf.unstack(_bytes(data, 24, 2))
    with _require(_is_small(size), "too many pixels"):
        pixels = tf.io.decode_png(data, channels=4)
    # TensorFlow 2.21 fills in opacity in as many bits as the palette has.
    opaque = tf.bitwise.left_shift(1, tf.minimum(depth, 8)) - 1
    is_opaque = tf.reduce_all(pixels[..., 3] == tf.cast(opaque, tf.uint8))
    is_unsure = is_opaque & (depth < 8) & _holds(data, b"tRNS")
    # Pillow compares a transparent colour of other bits with pixels of 8.
    is_odd = ~is_opaque & ((colour == 0) | (colour == 2)) & (depth != 8)
    with _require(~is_unsure & ~is_odd, "an odd transparency"):
        return tf.cond(is_opaque, lambda: pixels[..., :3], lambda: _on_white(pixels))


def _png_exif(data: tf.Tensor) -> tf.Tensor:
    is_hidden = tf.reduce_any([_holds(data, text) for text in _HIDDEN_IN_PNG])
    with _require(~is_hidden, "the orientation may be in a text"):
        chunks = tf.strings.split(data, b"eXIf", maxsplit=1)[1:]
    return tf.concat([chunks, [b""]], axis=0)[0]


def _decode_webp(data: tf.Tensor) -> tf.Tensor:
    """Returns the first frame."""
    length = tf.io.decode_raw(tf.strings.substr(data, 4, 4), tf.int32)[0]
    is_cut = length > tf.strings.length(data) - 8
    kind = tf.strings.substr(data, 12, 4)
    is_extended = kind == b"VP8X"
    # Alpha is the same bit of two headers, and the third kind has none.
    flags = _bytes(data, tf.where(is_extended, 20, 24), 1)[0]
    has_alpha = (flags & 0x10 > 0) & (kind != b"VP8 ")
    # Where pixels are missing, TensorFlow goes on with the metadata behind them.
    data = tf.cond(is_extended, lambda: _without_metadata(data), lambda: data)
    decode = functools.partial(tf.io.decode_image, data, expand_animations=False)
    with _require(~is_cut, "the WebP is cut"):
        return tf.cond(
            has_alpha,
            lambda: _on_white(tf.ensure_shape(decode(channels=4), (None, None, 4))),
            lambda: decode(channels=3),
        )


def _without_metadata(data: tf.Tensor) -> tf.Tensor:
    """Cuts a WebP before its EXIF and XMP, or pixels that look so, and its length."""
    for name in (b"EXIF", b"XMP "):
        data = tf.strings.split(data, name, maxsplit=1)[0]
    digits = (tf.strings.length(data) - 8) // (1, 1 << 8, 1 << 16, 1 << 24) % 256
    length = tf.strings.reduce_join(tf.gather([bytes([n]) for n in range(256)], digits))
    return b"RIFF" + length + _from(data, 8)


def _webp_exif(data: tf.Tensor) -> tf.Tensor:
    def chunk() -> tf.Tensor:
        exif = _from(tf.strings.split(data, b"EXIF", maxsplit=1)[1], 4)  # its length
        begin = tf.strings.substr(exif, 0, 2)
        is_exif = (begin == b"II") | (begin == b"MM") | (begin == b"Ex")
        with _require(is_exif, "the name of the chunk is pixels by chance"):
            return tf.identity(exif)

    kind, flags = tf.strings.substr(data, 12, 4), _bytes(data, 20, 1)[0]
    has_exif = (kind == b"VP8X") & (flags & 0x08 > 0)
    return tf.cond(has_exif, chunk, lambda: tf.constant(b""))


def _decode_gif(data: tf.Tensor) -> tf.Tensor:
    """Returns the first frame."""
    size = tf.io.decode_raw(tf.strings.substr(data, 6, 4), tf.uint16)
    flags = _bytes(data, 10, 1)[0]
    palette = tf.where(flags >= 0x80, 3 * tf.bitwise.left_shift(2, flags % 8), 0)
    blocks = _utf8(tf.strings.substr(data, 13 + palette, 1024))
    frame = tf.strings.regex_replace(blocks, _GIF_BLOCKS, "", replace_global=False)
    # A frame begins with its corner and its size.
    whole = _utf8(bytes(4) + tf.strings.substr(data, 6, 4))
    is_whole = tf.strings.substr(frame, 0, tf.strings.length(whole)) == whole
    is_gif = tf.strings.regex_full_match(tf.strings.substr(data, 0, 6), "GIF8[79]a")
    with (
        _require(_is_small(size), "too many pixels"),
        _require(is_gif & is_whole, "transparency, a small frame or odd blocks"),
    ):
        return tf.io.decode_image(data, channels=3, expand_animations=False)


def _utf8(latin: tf.Tensor) -> tf.Tensor:
    """Returns the same characters in UTF-8: regular expressions take no other bytes."""
    return tf.strings.unicode_transcode(latin, "ISO-8859-1", "UTF-8")


def _decode_bmp(data: tf.Tensor) -> tf.Tensor:
    header = tf.io.decode_raw(tf.strings.substr(data, 14, 4), tf.int32)[0]
    is_plain = tf.strings.substr(data, 28, 6) == b"\x18" + bytes(5)  # 24 bits, no RLE
    is_known = (tf.strings.substr(data, 0, 2) == b"BM") & (header >= 40) & is_plain
    with _require(is_known, "no image, or a BMP of other than 24 bits"):
        return tf.io.decode_bmp(data, channels=3)


def _on_white(pixels: tf.Tensor) -> tf.Tensor:
    """Returns uint8[h, w, 3] of uint8[h, w, 4]."""
    pixels = tf.cast(pixels, tf.float32)
    opacity = pixels[..., 3:] / 255
    blended = pixels[..., :3] * opacity + 255 * (1 - opacity)
    return tf.cast(tf.round(blended), tf.uint8)


# Orientation


def _orientation(exif: tf.Tensor, data: tf.Tensor) -> tf.Tensor:
    """Returns EXIF 1 to 8: int32[]; 1 where there is none.

    Args:
        exif: an EXIF block, or an empty string.
        data: the file. Where its EXIF has no orientation, an XMP text may have one.
    """
    begin = tf.strings.regex_replace(
        tf.strings.substr(exif, 0, 64), r"^(Exif\x00\x00)+", ""
    )
    order = tf.strings.substr(begin, 0, 2)
    has_directory = (order == b"II") | (order == b"MM")
    value = tf.cond(has_directory, lambda: _exif_orientation(exif), lambda: 0)
    is_known = tf.cond(value > 0, lambda: True, lambda: _is_upright_in_xmp(data))
    with _require(is_known, "an orientation in XMP"):
        return tf.maximum(value, 1)


@_apart
def _exif_orientation(exif: tf.Tensor) -> tf.Tensor:
    """Returns what the first directory of an EXIF block says: 1 to 8, 0 for nothing."""
    tiff = tf.strings.regex_replace(exif, r"^(Exif\x00\x00)+", "")
    is_little = tf.strings.substr(tiff, 0, 4) == b"II*\0"
    is_big = tf.strings.substr(tiff, 0, 4) == b"MM\0*"

    def shorts(at: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        raw = tf.strings.substr(tiff, at, 2 * count)
        little = tf.io.decode_raw(raw, tf.uint16, little_endian=True)
        big = tf.io.decode_raw(raw, tf.uint16, little_endian=False)
        return tf.cast(tf.where(is_little, little, big), tf.int64)

    def longs(pairs: tf.Tensor) -> tf.Tensor:
        first, second = pairs[..., 0], pairs[..., 1]
        return tf.where(is_little, first + second * 65536, second + first * 65536)

    start = longs(shorts(4, 2))
    count = shorts(start, 1)[0]
    # an entry: tag, type, two shorts of count, two of value
    entries = tf.reshape(shorts(start + 2, 6 * count), [count, 6])
    entries = tf.boolean_mask(entries, entries[:, 0] == _ORIENTATION)
    kind, number, value = entries[:, 1], longs(entries[:, 2:4]), entries[:, 4:]
    is_plain = ((kind == _SHORT) | (kind == _LONG)) & (number == 1)
    value = tf.where(kind == _SHORT, value[:, 0], longs(value))
    value = tf.where((value >= 1) & (value <= 8), value, 1)
    is_readable = (is_little | is_big) & tf.reduce_all(is_plain) & (tf.size(kind) <= 1)
    with _require(is_readable, "an orientation that is no plain number"):
        return tf.cast(tf.reduce_sum(value), tf.int32)


def _is_upright_in_xmp(data: tf.Tensor) -> tf.Tensor:
    """Says whether no XMP text names another orientation than 1."""
    others = r'tiff:Orientation(?:[^=>]|=[^"]|="[^1]|>[^1]|>1[^<])'
    without = tf.strings.regex_replace(data, others, "", replace_global=False)
    return tf.strings.length(without) == tf.strings.length(data)


def _turn(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Undoes the camera's orientation, EXIF 1 to 8."""
    pixels = tf.cond(
        orientation >= 5, lambda: tf.transpose(pixels, (1, 0, 2)), lambda: pixels
    )
    rows, columns = (
        tf.gather(steps, orientation) for steps in (_ROW_STEP, _COLUMN_STEP)
    )
    return tf.ensure_shape(pixels[::rows, ::columns], (None, None, 3))


# Parts


def _require(
    condition: tf.Tensor, reason: str
) -> contextlib.AbstractContextManager[None]:
    """Refuses the image, or lets run what its `with` holds."""
    return tf.control_dependencies([tf.debugging.Assert(condition, [reason])])


def _is_small(size: tf.Tensor) -> tf.Tensor:
    """Says whether `conversion` takes so many pixels; small files may hold too many."""
    return tf.reduce_prod(tf.cast(size, tf.int64)) <= MAX_PIXELS


def _holds(data: tf.Tensor, part: bytes) -> tf.Tensor:
    return tf.size(tf.strings.split(data, part, maxsplit=1)) > 1


def _from(data: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    return tf.strings.substr(data, at, tf.strings.length(data))


def _bytes(data: tf.Tensor, at: tf.Tensor, count: int) -> tf.Tensor:
    """Returns int32[count]; the image is refused where it is shorter."""
    raw = tf.io.decode_raw(tf.strings.substr(data, at, count), tf.uint8)
    return tf.cast(tf.reshape(raw, [count]), tf.int32)


# Size


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
