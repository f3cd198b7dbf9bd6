"""What is lost on the way to a stored image, and what it costs to read it again."""

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import simplejpeg

from pipeline.dataset.manifest import ImageContract
from pipeline.images import conversion
from pipeline.system import parallel_timing

MAX_PSNR = 100.0  # dB; said of equal pixels, for which it is infinite
SETTINGS = tuple((q, chroma) for chroma in ("420", "444") for q in (85, 90, 95))

DecodeAll = Callable[[Sequence[bytes]], Any]


@dataclass(frozen=True)
class Encoding:
    """One way to store the small images.

    Attributes:
        quality, chroma: of the JPEG.
        psnr: against the pixels before encoding, mean over the photos, in dB.
        bytes: of a stored image, mean.
        rates: images/s of one decoding process, per repeat, by decoder.
    """

    quality: int
    chroma: str
    psnr: float
    bytes: float
    rates: dict[str, list[float]]


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """The peak signal-to-noise ratio of two uint8 arrays in dB, at most MAX_PSNR."""
    error = np.mean((one.astype(np.float64) - other) ** 2)
    return min(MAX_PSNR, 10 * np.log10(255**2 / error)) if error else MAX_PSNR


def scaled_decoding(data: Sequence[bytes], contract: ImageContract) -> list[float]:
    """PSNR of decode + resize against full decode + INTER_AREA, per photo, in dB."""
    return [
        psnr(conversion.resize(_full(photo), contract), _small(photo, contract))
        for photo in data
    ]


def encodings(
    data: Sequence[bytes], contract: ImageContract, *, decodes: int, repeats: int
) -> list[Encoding]:
    """Measures every one of SETTINGS on the same photos.

    Args:
        data: encoded photos.
        contract: their size once they are small.
        decodes: images decoded per setting and repeat, at least.
        repeats: of the decoding, alternating between the settings.
    """
    pixels = [_small(photo, contract) for photo in data]
    stored = [
        [
            simplejpeg.encode_jpeg(one, quality, colorsubsampling=chroma)
            for one in pixels
        ]
        for quality, chroma in SETTINGS
    ]
    rounds = -(-decodes // len(data))
    rates = {
        name: _rates(prepare, contract, stored, rounds, repeats)
        for name, prepare in DECODERS.items()
        if importlib.util.find_spec(name)
    }
    return [
        Encoding(
            *setting,
            psnr=_mean_psnr(pixels, images),
            bytes=sum(map(len, images)) / len(images),
            rates={name: [row[index] for row in rates[name]] for name in rates},
        )
        for index, (setting, images) in enumerate(zip(SETTINGS, stored, strict=True))
    ]


def _simplejpeg(_: ImageContract) -> DecodeAll:
    return lambda images: [simplejpeg.decode_jpeg(data) for data in images]


def _tensorflow(contract: ImageContract) -> DecodeAll:
    """As `record.parse` decodes for training."""
    import tensorflow as tf

    shape = [contract.height, contract.width, 3]

    def decode(data: tf.Tensor) -> tf.Tensor:
        pixels = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
        return tf.ensure_shape(pixels, shape)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def decode_all(images: tf.Tensor) -> tf.Tensor:
        spec = tf.TensorSpec(shape, tf.uint8)
        return tf.map_fn(decode, images, fn_output_signature=spec)

    return decode_all


DECODERS = {"simplejpeg": _simplejpeg, "tensorflow": _tensorflow}  # by package


def _rates(
    prepare: Callable[[ImageContract], DecodeAll],
    contract: ImageContract,
    stored: Sequence[Sequence[bytes]],
    rounds: int,
    repeats: int,
) -> list[list[float]]:
    """Images/s of one process, by repeat and setting."""
    task = (prepare, contract, stored, rounds, repeats)
    (rates,), _ = parallel_timing.in_step(_prepare, [task])
    return rates


def _prepare(
    prepare: Callable[[ImageContract], DecodeAll],
    contract: ImageContract,
    stored: Sequence[Sequence[bytes]],
    rounds: int,
    repeats: int,
) -> Callable[[], list[list[float]]]:
    decode_all = prepare(contract)
    decode_all(stored[0])  # what is made at the first call, such as a graph

    def rate(images: Sequence[bytes]) -> float:
        started = time.perf_counter()
        for _ in range(rounds):
            decode_all(images)
        return rounds * len(images) / (time.perf_counter() - started)

    return lambda: [[rate(images) for images in stored] for _ in range(repeats)]


def _mean_psnr(pixels: Sequence[np.ndarray], images: Sequence[bytes]) -> float:
    pairs = zip(pixels, images, strict=True)
    return float(
        np.mean([psnr(one, simplejpeg.decode_jpeg(jpeg)) for one, jpeg in pairs])
    )


def _small(photo: bytes, contract: ImageContract) -> np.ndarray:
    return conversion.resize(conversion.decode(photo, contract), contract)


def _full(photo: bytes) -> np.ndarray:
    """Decoded in full and upright, by the same library through another binding."""
    decoded = cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
