"""What the shard job is measured against: other ways to make the same small image.

Every contender is handed bytes from memory, and hands bytes back. It neither reads nor
writes files, all of which the shard job does: what it wins by, it wins all the same.
"""

import importlib.util
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pipeline.dataset.manifest import ImageContract
from pipeline.images import conversion
from pipeline.system import parallel_timing

Convert = Callable[[bytes], bytes]  # encoded photo → encoded small image


@dataclass(frozen=True)
class Baseline:
    """One way to make the small images.

    Attributes:
        name: for the table.
        prepare: makes the function, inside the process that runs it.
        at_least: what the shard job's rate must be, in multiples of this one's.
        package: what it needs besides what a shard worker needs.
    """

    name: str
    prepare: Callable[[ImageContract], Convert]
    at_least: float
    package: str = "numpy"

    def installed(self) -> bool:
        """Whether it can run here."""
        return importlib.util.find_spec(self.package) is not None


def bare(contract: ImageContract) -> Convert:
    """The image function of the shard job, alone."""
    return lambda data: conversion.convert(data, contract)


def img2dataset(contract: ImageContract) -> Convert:
    """What img2dataset's Resizer does (img2dataset/resizer.py), to a fixed size."""
    cv2.setNumThreads(1)

    def convert(data: bytes) -> bytes:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        size = (contract.width, contract.height)
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        options = [cv2.IMWRITE_JPEG_QUALITY, 95]  # its default
        return cv2.imencode(".jpg", small, options)[1].tobytes()

    return convert


def pillow(contract: ImageContract) -> Convert:
    """Pillow: full decode, bicubic."""
    size = (contract.width, contract.height)
    chroma = ":".join(contract.chroma)

    def convert(data: bytes) -> bytes:
        photo = Image.open(io.BytesIO(data)).convert("RGB")
        small = photo.resize(size, Image.Resampling.BICUBIC)
        encoded = io.BytesIO()
        small.save(encoded, "JPEG", quality=contract.quality, subsampling=chroma)
        return encoded.getvalue()

    return convert


def tensorflow(contract: ImageContract) -> Convert:
    """TensorFlow: full decode, area; one graph from bytes to bytes."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def convert(data: tf.Tensor) -> tf.Tensor:
        # INTEGER_ACCURATE is the faster of its two methods.
        pixels = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
        small = tf.image.resize(pixels, [contract.height, contract.width], "area")
        small = tf.cast(tf.round(small), tf.uint8)
        return tf.io.encode_jpeg(
            small,
            quality=contract.quality,
            chroma_downsampling=contract.chroma == "420",
        )

    return lambda data: convert(data).numpy()


BASELINES = (
    Baseline("the bare image function", bare, 0.88),
    Baseline("img2dataset's Resizer", img2dataset, 1.85),
    Baseline("Pillow, full decode, bicubic", pillow, 7),
    Baseline("TensorFlow, full decode, area", tensorflow, 1.85, "tensorflow"),
)


def rate(
    contender: Baseline,
    photos: Sequence[Path],
    contract: ImageContract,
    *,
    images: int,
    processes: int,
) -> float:
    """Images/s of a pool of processes, start-up and reading apart.

    Args:
        contender: what the processes run.
        photos: JPEG files, repeated as often as it takes.
        contract: of the small images.
        images: how many are converted in all.
        processes: how many share them.
    """
    share = -(-images // processes)
    shares = [
        (contender.prepare, photos, contract, share * index, share)
        for index in range(processes)
    ]
    _, seconds = parallel_timing.in_step(_prepare, shares)
    return share * processes / seconds


def _prepare(
    prepare: Callable[[ImageContract], Convert],
    photos: Sequence[Path],
    contract: ImageContract,
    first: int,
    count: int,
) -> Callable[[], None]:
    convert = prepare(contract)
    data = [photo.read_bytes() for photo in photos]
    convert(data[0])  # what is made at the first call, such as a graph

    def work() -> None:
        for index in range(first, first + count):
            convert(data[index % len(data)])

    return work
