"""How fast the shard job is: beside other ways, with more workers, and to start.

The real job runs at two sizes. The slope between them is its rate, what is left over
its start-up. The others are handed bytes from memory and hand bytes back: they neither
read nor write files, which the job does, and their start-up is not counted.
"""

import io
import itertools
import math
import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import simplejpeg
from PIL import Image

from benchmarks import fixtures, harness
from benchmarks.harness import Samples, Target
from benchmarks.options import ShardsOptions
from pipeline.dataset.manifest import ImageContract
from pipeline.images import conversion
from pipeline.system import console, parallel_timing

_SHARDS = 8  # per worker, in the large job; the small one has one of the same size
_MAX_PSNR = 100.0  # dB; said of equal pixels, for which it is infinite
_ENCODINGS = tuple(itertools.product((85, 90, 95), ("420", "444")))

SMALL, LARGE = "small job", "large job"
ALONE_SMALL, ALONE_LARGE = "small job, one worker", "large job, one worker"
EMPTY = "an empty Beam job of the same mode"
JOB, ALONE = "the shard job", "the shard job, one worker"
START, ABOVE = "start-up of the shard job", "start-up above an empty job"
BARE, RESIZER = "the bare image function", "img2dataset's Resizer"
PILLOW = "Pillow, full decode, bicubic"
TENSORFLOW = "TensorFlow, full decode, area"
PSNR = "PSNR against full decode + area"

TARGETS = (
    Target(JOB, BARE, at_least=0.88),
    Target(JOB, RESIZER, at_least=1.85),
    Target(JOB, PILLOW, at_least=7),
    Target(JOB, TENSORFLOW, at_least=1.85),
    Target(ABOVE, at_most=1.5),
    Target(f"{PSNR}, mean", at_least=45),
    Target(f"{PSNR}, worst", at_least=40),
)
_SECONDS = (SMALL, LARGE, ALONE_SMALL, ALONE_LARGE, EMPTY, START, ABOVE)
UNITS = dict.fromkeys(_SECONDS, "s") | {f"{PSNR}, {w}": "dB" for w in ("mean", "worst")}
_SCALING = 0.95  # of a process more: 1.9 for two

Convert = Callable[[bytes], bytes]  # encoded photo → encoded small image


def run(options: ShardsOptions) -> None:
    """Measures; prints tables; writes shards.json.

    Raises:
        RunError: no JPEG can be used, or something that was measured failed.
    """
    contract = options.contract
    photos = fixtures.jpegs(options.images, contract, seed=options.seed)
    here = harness.machine()
    data = [photo.read_bytes() for photo in photos]
    console.say(
        f"{harness.in_words(here)}\n"
        f"{options.bench_images} images from {len(photos)} photos of "
        f"{statistics.mean(map(len, data)) / 1e3:.0f} KB to {contract.height}x"
        f"{contract.width} (height x width), {contract.resize}, "
        f"{_named(contract.quality, contract.chroma)}; slope from {options.small}; "
        f"{options.repeats} alternating repeats, {options.workers} processes"
    )
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        ways = _ways(options, photos, Path(scratch))
        samples = harness.alternate(ways, options.repeats)
    derive(samples, options)
    decibels = scaled_decoding(data, contract)
    samples[f"{PSNR}, mean"] = [statistics.mean(decibels)]
    samples[f"{PSNR}, worst"] = [min(decibels)]
    stored = encodings(data, contract, repeats=options.repeats, seconds=options.seconds)
    sizes = pd.DataFrame(stored).drop(columns="rates").round(1)
    console.say(sizes.to_string(index=False))
    harness.report(
        options.output / "shards.json",
        here,
        samples,
        (*TARGETS, Target(JOB, ALONE, at_least=_SCALING * options.workers)),
        UNITS,
        setup={
            "contract": asdict(contract),
            "images": options.bench_images,
            "photos": len(photos),
            "workers": options.workers,
            "repeats": options.repeats,
            "beam_arguments": options.beam_arguments,
        },
        encodings=stored,
    )


def _ways(
    options: ShardsOptions, photos: Sequence[Path], scratch: Path
) -> dict[str, harness.Measure]:
    """Returns what is timed in every repeat: seconds of jobs, rates of baselines."""
    counts = {SMALL: options.small, LARGE: options.bench_images}
    for name, count in counts.items():
        fixtures.links(photos, scratch / name, count)
    job = partial(_job_seconds, options, scratch)
    few, many = options.workers, options.workers * _SHARDS
    ways: dict[str, harness.Measure] = {
        EMPTY: partial(
            parallel_timing.empty_job_seconds, options.workers, options.beam_arguments
        )
    }
    if options.workers > 1:
        ways[ALONE_SMALL] = partial(job, SMALL, few, 1)
        ways[ALONE_LARGE] = partial(job, LARGE, many, 1)
    ways[SMALL] = partial(job, SMALL, few, options.workers)
    ways[LARGE] = partial(job, LARGE, many, options.workers)
    share = math.ceil(options.bench_images / options.repeats)
    for name, prepare in BASELINES.items():
        ways[name] = partial(
            rate, prepare, photos, options.contract, share, options.workers
        )
    return ways


def _job_seconds(
    options: ShardsOptions, scratch: Path, size: str, shards: int, workers: int
) -> float:
    """Times the whole shard job, as a user starts it."""
    contract = asdict(options.contract)
    del contract["format"]
    dataset = scratch / "dataset"
    seconds = parallel_timing.command_seconds(
        *("-m", "pipeline", "shards", f"--images={scratch / size}"),
        *(f"--{name}={value}" for name, value in contract.items()),
        *(f"--dataset={dataset}", f"--shards={shards}", f"--workers={workers}"),
        *("--validation_fraction=0", "--", *options.beam_arguments),
    )
    shutil.rmtree(dataset)
    return seconds


def derive(samples: Samples, options: ShardsOptions) -> None:
    """Adds the rates of jobs and the start-up to the seconds that were measured."""

    def slopes(small: str, large: str) -> list[float]:
        """Returns images/s; NaN where the large job was no slower."""
        more = options.bench_images - options.small
        pairs = zip(samples[small], samples[large], strict=True)
        return [more / (b - a) if b > a else math.nan for a, b in pairs]

    samples[JOB] = slopes(SMALL, LARGE)
    if ALONE_SMALL in samples:
        samples[ALONE] = slopes(ALONE_SMALL, ALONE_LARGE)
    pairs = zip(samples[SMALL], samples[JOB], strict=True)
    samples[START] = [seconds - options.small / rate for seconds, rate in pairs]
    pairs = zip(samples[START], samples[EMPTY], strict=True)
    samples[ABOVE] = [start - empty for start, empty in pairs]


def bare(contract: ImageContract) -> Convert:
    """Prepares the image function of the shard job, alone."""
    return lambda data: conversion.convert(data, contract)


def img2dataset(contract: ImageContract) -> Convert:
    """Prepares what img2dataset's Resizer does (img2dataset/resizer.py)."""
    cv2.setNumThreads(1)

    def convert(data: bytes) -> bytes:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        size = (contract.width, contract.height)
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        options = [cv2.IMWRITE_JPEG_QUALITY, 95]  # its default
        return cv2.imencode(".jpg", small, options)[1].tobytes()

    return convert


def pillow(contract: ImageContract) -> Convert:
    """Prepares Pillow: full decode, bicubic."""
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
    """Prepares TensorFlow: full decode, area; one graph from bytes to bytes."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def convert(data: tf.Tensor) -> tf.Tensor:
        # INTEGER_ACCURATE is the faster of its two methods.
        pixels = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
        small = tf.image.resize(pixels, [contract.height, contract.width], "area")
        return tf.io.encode_jpeg(
            tf.cast(tf.round(small), tf.uint8),
            quality=contract.quality,
            chroma_downsampling=contract.chroma == "420",
        )

    return lambda data: convert(data).numpy()


BASELINES = {BARE: bare, RESIZER: img2dataset, PILLOW: pillow, TENSORFLOW: tensorflow}


def rate(
    prepare: Callable[[ImageContract], Convert],
    photos: Sequence[Path],
    contract: ImageContract,
    images: int,
    processes: int,
) -> float:
    """Measures images/s of a baseline in several processes that start together."""
    share = math.ceil(images / processes)
    tasks = [(prepare, photos, contract, share)] * processes
    _, seconds = parallel_timing.in_step(_prepare, tasks)
    return share * processes / seconds


def _prepare(
    prepare: Callable[[ImageContract], Convert],
    photos: Sequence[Path],
    contract: ImageContract,
    count: int,
) -> Callable[[], None]:
    convert = prepare(contract)
    data = [photo.read_bytes() for photo in photos]
    convert(data[0])  # what is made at the first call, such as a graph

    def work() -> None:
        for photo in itertools.islice(itertools.cycle(data), count):
            convert(photo)

    return work


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the peak signal-to-noise ratio of uint8 arrays in dB, at most 100."""
    error = np.mean((one.astype(np.float64) - other) ** 2)
    return min(_MAX_PSNR, 10 * np.log10(255**2 / error)) if error else _MAX_PSNR


def scaled_decoding(data: Sequence[bytes], contract: ImageContract) -> list[float]:
    """Returns PSNR of decode + resize against full decode + area, per photo, in dB."""
    found = []
    for photo in data:
        # Upright and in full, by the same library through another binding.
        whole = cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR_RGB)
        assert whole is not None
        full = conversion.resize(whole, contract)
        found.append(psnr(full, _small(photo, contract)))
    return found


def _small(photo: bytes, contract: ImageContract) -> np.ndarray:
    return conversion.resize(conversion.decode(photo, contract), contract)


def encodings(
    data: Sequence[bytes],
    contract: ImageContract,
    *,
    repeats: int,
    seconds: float,
) -> list[dict[str, Any]]:
    """Measures what each way to store the small images loses and costs.

    Returns:
        For each quality and chroma: `psnr` against the pixels before encoding, the
        mean over the photos, in dB; `bytes` of an image, the mean; the median
        `rate` of one decoding thread in images/s, and its `rates` by repeat.
    """
    pixels = [_small(photo, contract) for photo in data]
    stored = {
        (quality, chroma): [
            simplejpeg.encode_jpeg(one, quality, colorsubsampling=chroma)
            for one in pixels
        ]
        for quality, chroma in _ENCODINGS
    }

    ways: dict[str, harness.Measure] = {
        _named(*setting): libjpeg_turbo(images, seconds)
        for setting, images in stored.items()
    }
    rates = harness.alternate(ways, repeats)
    found = []
    for (quality, chroma), images in stored.items():
        pairs = zip(pixels, map(simplejpeg.decode_jpeg, images), strict=True)
        rate = rates[_named(quality, chroma)]
        found.append(
            {
                "quality": quality,
                "chroma": chroma,
                "psnr": statistics.mean(psnr(one, other) for one, other in pairs),
                "bytes": statistics.mean(map(len, images)),
                "rate": statistics.median(rate),
                "rates": {"simplejpeg": rate},
            }
        )
    return found


def libjpeg_turbo(jpegs: Sequence[bytes], seconds: float) -> Callable[[], float]:
    """Prepares the rate of decoding in one thread, from memory and for nobody."""

    def decode_all() -> None:
        for one in jpegs:
            simplejpeg.decode_jpeg(one)

    return lambda: len(jpegs) * harness.per_second(decode_all, seconds)


def _named(quality: int, chroma: str) -> str:
    return f"q{quality} {':'.join(chroma)}"
