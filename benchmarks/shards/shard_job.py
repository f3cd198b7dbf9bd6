"""How fast the shard job is: beside other ways, with more workers, and to start.

The real job runs at two sizes. The slope between them is its rate, what is left over
its start-up. Everything alternates, repeat by repeat; ratios are within a repeat.
"""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import bench_photos, machine
from benchmarks.harness.figures import Figure, divide, table
from benchmarks.shards import job_timings, jpeg_quality
from benchmarks.shards.baselines import BASELINES, Baseline
from benchmarks.shards.job_timings import Setup
from pipeline.dataset.manifest import ImageContract
from pipeline.storage import atomic
from pipeline.system.errors import RunError

_PHOTOS = 256  # different ones at most: all that a contender keeps in memory


def run(
    images: Path,
    *,
    contract: ImageContract,
    count: int,
    workers: int,
    repeats: int,
    seed: int = 0,
    output: Path | None = None,
    beam_arguments: Sequence[str] = (),
) -> None:
    """Measures, and prints a table and JSON.

    Args:
        images: a root of photos; the JPEGs among them are used, up to 256.
        contract: of the stored images.
        count: images of the large job, by repeating the photos; at least two.
        workers: processes on both sides.
        repeats: of every measurement.
        seed: chooses among more photos.
        output: where the JSON goes; without it, it is the last line printed.
        beam_arguments: options for Beam.

    Raises:
        RunError: there is no JPEG that can be used, the folder of `output` does not
            exist, or something that was measured failed.
    """
    if output and not output.parent.is_dir():
        raise RunError(f"{output.parent}, for {output.name}, is no folder. Make it.")
    photos = bench_photos.jpegs(images, contract, at_most=_PHOTOS, seed=seed)
    setup = Setup(photos, contract, count, workers, repeats, tuple(beam_arguments))
    here = machine.describe()
    print("\n".join(_introduction(setup, here)), flush=True)
    samples = job_timings.take(setup)
    data = [photo.read_bytes() for photo in photos]
    found = [*figures(setup, samples), *_quality(data, contract)]
    print("\n".join(table(found)), flush=True)
    encodings = jpeg_quality.encodings(data, contract, decodes=count, repeats=repeats)
    print("\n".join(_encoding_table(encodings)))
    value = {
        "machine": here,
        "setup": {**asdict(setup), "photos": len(photos)},
        "figures": [figure.to_json() for figure in found],
        "encodings": [asdict(encoding) for encoding in encodings],
    }
    if output:
        atomic.write_json(output, value)
    else:
        print(json.dumps(value, ensure_ascii=False))


def figures(setup: Setup, samples: job_timings.Samples) -> list[Figure]:
    """Rates, ratios and start-up, from the seconds of jobs and rates of contenders."""
    slope = partial(_slopes, setup.images - setup.small)
    ours = slope(samples[job_timings.SMALL], samples[job_timings.LARGE])
    found = [Figure(f"shard job, {_processes(setup.workers)}", "images/s", ours)]
    for contender in BASELINES:
        if rates := samples.get(contender.name):
            found += _against(contender, ours, tuple(rates))
    if alone := samples.get(job_timings.ALONE_SMALL):
        one = slope(alone, samples[job_timings.ALONE_LARGE])
        found += _scaling(setup.workers, one, ours)
    return [*found, *_start_up(setup, samples, ours)]


def _slopes(
    images: int, small: Sequence[float], large: Sequence[float]
) -> tuple[float, ...]:
    """Images/s between two sizes, per repeat; NaN where the large job was no slower."""
    return tuple(
        images / (b - a) if b > a else math.nan
        for a, b in zip(small, large, strict=True)
    )


def _against(
    contender: Baseline, ours: tuple[float, ...], rates: tuple[float, ...]
) -> list[Figure]:
    return [
        Figure(contender.name, "images/s", rates),
        Figure(
            f"shard job / {contender.name}",
            "times",
            divide(ours, rates),
            at_least=contender.at_least,
        ),
    ]


def _scaling(
    workers: int, one: tuple[float, ...], ours: tuple[float, ...]
) -> list[Figure]:
    return [
        Figure("shard job, 1 process", "images/s", one),
        Figure(
            f"1 → {workers} processes",
            "times",
            divide(ours, one),
            at_least=0.95 * workers,  # 1.9 for two
        ),
    ]


def _start_up(
    setup: Setup, samples: job_timings.Samples, ours: tuple[float, ...]
) -> list[Figure]:
    empty = tuple(samples[job_timings.EMPTY])
    start = tuple(
        seconds - setup.small / rate
        for seconds, rate in zip(samples[job_timings.SMALL], ours, strict=True)
    )
    above = tuple(a - b for a, b in zip(start, empty, strict=True))
    return [
        Figure("start-up of the shard job", "s", start),
        Figure("an empty Beam job of the same mode", "s", empty),
        Figure("start-up above an empty job", "s", above, at_most=1.5),
    ]


def _quality(data: Sequence[bytes], contract: ImageContract) -> list[Figure]:
    decibels = jpeg_quality.scaled_decoding(data, contract)
    what = "PSNR against full decode + area"
    return [
        Figure(f"{what}, mean", "dB", (statistics.mean(decibels),), at_least=45),
        Figure(f"{what}, worst", "dB", (min(decibels),), at_least=40),
    ]


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def _introduction(setup: Setup, here: Mapping[str, Any]) -> list[str]:
    sizes = [photo.stat().st_size for photo in setup.photos]
    contract = setup.contract
    lines = [
        machine.in_words(here),
        f"{setup.images} images from {len(sizes)} photos of "
        f"{statistics.mean(sizes) / 1e3:.0f} KB to {contract.height}x{contract.width} "
        f"(height x width), {contract.resize}, q{contract.quality} "
        f"4:{contract.chroma[1]}:{contract.chroma[2]}; slope from {setup.small}; "
        f"{setup.repeats} alternating repeats, {_processes(setup.workers)}",
    ]
    lines += [
        f"skipped: {contender.name} ({contender.package} is not installed)"
        for contender in BASELINES
        if not contender.installed()
    ]
    return lines


def _encoding_table(encodings: Sequence[jpeg_quality.Encoding]) -> list[str]:
    decoders = list(encodings[0].rates)
    header = "".join(f"  {name + ', images/s':>22}" for name in decoders)
    lines = ["", f"{'stored as':<11} {'PSNR, dB':>8} {'bytes':>8}{header}", "-" * 88]
    for encoding in encodings:
        name = f"q{encoding.quality} 4:{encoding.chroma[1]}:{encoding.chroma[2]}"
        rates = "".join(
            f"  {statistics.median(encoding.rates[d]):>22,.0f}" for d in decoders
        )
        lines.append(f"{name:<11} {encoding.psnr:>8.1f} {encoding.bytes:>8,.0f}{rates}")
    return lines
