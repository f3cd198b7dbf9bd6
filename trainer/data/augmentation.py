"""Augmentations: one function per change, each on a whole batch, none with a state.

Everything random comes in as `draws`, a function of seed and step alone, so that a
stopped run goes on with the augmentations that it would have had. The functions run
eagerly, in a `tf.function` and in `Dataset.map`, on a CPU and on a GPU.
"""

import math

import tensorflow as tf

from trainer.recipe import Augmentation

DRAWS = 8  # per image: mirrored; area, ratio, top, left; brightness, contrast, colour

_STRETCH = 4 / 3  # a crop is at most so much wider, or higher, than the picture
_LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601
_WORDS = {4: tf.uint32, 2: tf.uint16, 1: tf.uint8}

# A kernel that computes a position beyond the last pixel, if by a rounding error, takes
# black for it. Positions are off by 3e-7 of their value at most.
_INSIDE = 1 - 1e-6


def draws(seed: int, step: int | tf.Tensor, batch_size: int) -> tf.Tensor:
    """Draws what decides the augmentations of a step, the same on every device.

    All of them, whatever is on: flips stay when a crop joins them.

    Args:
        seed: of the run, below 2**63.
        step: how many came before it.
        batch_size: global, over all replicas.

    Returns:
        float32[batch_size, DRAWS], uniform in [0, 1).
    """
    key = tf.stack([tf.constant(seed, tf.int64), tf.cast(step, tf.int64)])
    # Not the default algorithm, which is the device's choice.
    return tf.random.stateless_uniform([batch_size, DRAWS], key, alg="philox")


def of_replica(drawn: tf.Tensor, rows: int) -> tf.Tensor:
    """Takes the rows of this replica, in its context, out of those of a global batch.

    Args:
        drawn: [batch, …], with a row for each row of the global batch.
        rows: how many each replica has.
    """
    replica = tf.distribute.get_replica_context()
    first = rows * replica.replica_id_in_sync_group
    return drawn[first : first + rows]


def apply(images: tf.Tensor, draws: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    """Applies an augmentation.

    Args:
        images: uint8[batch, height, width, 3]; height and width known to the graph.
        draws: float32[batch, DRAWS] of `draws`.
        augmentation: what is on.

    Returns:
        The same shape. uint8 when nothing computes: all off, or flips alone; else
        float32 in 0 … 255.
    """
    drawn = tf.unstack(draws, DRAWS, axis=1)
    mirrored, area, ratio, top, left, light, spread, colour = drawn
    if augmentation.flip:
        images = flip(images, mirrored < 0.5)
    if augmentation.crop < 1:
        images = crop(images, boxes(area, ratio, top, left, augmentation.crop))
    if augmentation.brightness:
        images = brighten(images, _around(0, augmentation.brightness, light))
    if augmentation.contrast:
        images = contrast(images, _around(1, augmentation.contrast, spread))
    if augmentation.saturation:
        images = saturate(images, _around(1, augmentation.saturation, colour))
    # Once, at the end: in between nothing is lost.
    return images if images.dtype == tf.uint8 else tf.clip_by_value(images, 0, 255)


def flip(images: tf.Tensor, mirrored: tf.Tensor) -> tf.Tensor:
    """Swaps left and right in some images.

    Args:
        images: uint8[batch, height, width, 3].
        mirrored: bool[batch].

    Returns:
        uint8[batch, height, width, 3]
    """
    height, width, channels = images.shape[1:]
    # tf.where(mirrored[:, None, None, None], tf.reverse(images, [2]), images) takes 12
    # times as long: 17 ms instead of 1.5 for 64 images of 150x200 on a core of a Xeon.
    # ReverseV2 has a fast kernel for rank 3 with 3 channels (4 ms to 1), and SelectV2
    # goes value by value (13 ms to 0.6), so that it had better have few. Moving only
    # the chosen rows (dynamic_partition, dynamic_stitch) is no faster, and has no uint8
    # kernels for GPUs.
    lines = tf.reshape(images, [-1, width, channels])
    mirror = tf.reshape(tf.reverse(lines, [1]), [-1, height, width, channels])
    chosen = tf.where(mirrored[:, None], _words(mirror), _words(images))
    return tf.reshape(tf.bitcast(chosen, tf.uint8), [-1, height, width, channels])


def boxes(
    area: tf.Tensor, ratio: tf.Tensor, top: tf.Tensor, left: tf.Tensor, smallest: float
) -> tf.Tensor:
    """Draws boxes inside a picture: the crops of Inception (arXiv:1409.4842, section
    6), which ResNet training took over.

    Area uniform in [smallest, 1], aspect ratio log-uniform in 3/4 … 4/3, position
    uniform. The ratio is relative to the picture's own, as the crop becomes a picture
    again; where the area leaves it less room its range is smaller, instead of trying
    again until a box fits.

    Args:
        area, ratio, top, left: float32[batch], uniform in [0, 1).
        smallest: share of the picture's area.

    Returns:
        float32[batch, 4]: top, left, bottom, right; 0 is the middle of the first pixel
        and 1 that of the last.
    """
    share = smallest + (1 - smallest) * area
    room = tf.minimum(math.log(_STRETCH), -tf.math.log(share))
    stretch = tf.exp(_around(0, 1, ratio) * room)
    height = tf.minimum(tf.sqrt(share / stretch), 1)
    width = tf.minimum(tf.sqrt(share * stretch), 1)
    top, left = top * (1 - height), left * (1 - width)
    return tf.stack([top, left, top + height, left + width], axis=1) * _INSIDE


def crop(images: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """Scales a box of every image to the size of the image, bilinear.

    Args:
        images: uint8 or float32[batch, height, width, 3].
        boxes: float32[batch, 4], as `boxes` returns them.

    Returns:
        float32[batch, height, width, 3]
    """
    images = tf.cast(images, tf.float32)  # the GPU has no kernel for uint8
    each = tf.range(tf.shape(images)[0])
    return tf.image.crop_and_resize(images, boxes, each, images.shape[1:3])


def brighten(images: tf.Tensor, added: tf.Tensor) -> tf.Tensor:
    """Adds shares of 255: float32[batch], of any sign; not clipped.

    Args, returns: as `contrast`.
    """
    return tf.cast(images, tf.float32) + _per_image(255 * added)


def contrast(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Moves every value away from its image's mean, or towards it; not clipped.

    Args:
        images: uint8 or float32[batch, height, width, 3].
        factor: float32[batch]; 0 leaves one grey, 1 changes nothing.

    Returns:
        float32[batch, height, width, 3]
    """
    images = tf.cast(images, tf.float32)
    mean = tf.reduce_mean(images, axis=[1, 2, 3])
    return images * _per_image(factor) + _per_image((1 - factor) * mean)


def saturate(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Moves every pixel away from the grey of its luminance, or towards it.

    Args, returns: as `contrast`.
    """
    images = tf.cast(images, tf.float32)
    # A sum of three: a product of matrices would be rounded to 10 bits on some GPUs.
    channels = [images[..., channel : channel + 1] for channel in range(3)]
    grey = sum(part * channels[i] for i, part in enumerate(_LUMINANCE))
    return images * _per_image(factor) + _per_image(1 - factor) * grey


def _around(middle: float, most: float, draws: tf.Tensor) -> tf.Tensor:
    """Stretches [0, 1) to [middle - most, middle + most)."""
    return middle + most * (2 * draws - 1)


def _per_image(values: tf.Tensor) -> tf.Tensor:
    """Reshapes [batch] to [batch, 1, 1, 1]."""
    return values[:, None, None, None]


def _words(images: tf.Tensor) -> tf.Tensor:
    """Views uint8[batch, …] in the widest words that fill an image evenly.

    Returns:
        uint32, uint16 or uint8[batch, words]
    """
    size = math.prod(images.shape[1:])
    width = math.gcd(size, 4)
    groups = tf.reshape(images, [-1, size // width, width])
    return tf.reshape(tf.bitcast(groups, _WORDS[width]), [-1, size // width])
