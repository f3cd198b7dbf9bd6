"""What `bench` times: the real shard job at two sizes, the contenders, an empty job."""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from benchmarks.shards import baselines
from benchmarks.shards.baselines import BASELINES, Baseline
from pipeline.dataset.manifest import ImageContract
from pipeline.system import parallel_timing
from pipeline.system.console import progress

_SHARDS = 8  # per worker, in the large job; the small one has one of the same size

# What is timed in every repeat, in this order; and every contender by its name.
SMALL, LARGE = "small job", "large job"
ALONE_SMALL, ALONE_LARGE = "small job, one worker", "large job, one worker"
EMPTY = "empty Beam job"

Samples = Mapping[str, Sequence[float]]  # one value per repeat


@dataclass(frozen=True)
class Setup:
    """What is measured, and with what.

    Attributes:
        photos: JPEG files, repeated as often as it takes.
        contract: of the stored images.
        images: of the large job, and of a contender in all repeats together.
        workers: processes, on both sides.
        repeats: of everything.
        beam_arguments: options for Beam.
    """

    photos: Sequence[Path]
    contract: ImageContract
    images: int
    workers: int
    repeats: int
    beam_arguments: Sequence[str] = ()

    @property
    def small(self) -> int:
        """Images of the small job."""
        return max(1, self.images // _SHARDS)


def take(setup: Setup) -> dict[str, list[float]]:
    """Takes every measurement once per repeat: seconds of jobs, rates of contenders."""
    samples: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        takes = _takes(setup, Path(scratch))
        total = setup.repeats * len(takes)
        with progress(total, "bench", unit="measurement") as bar:
            for _ in range(setup.repeats):
                for name, measurement in takes.items():
                    samples.setdefault(name, []).append(measurement())
                    bar.update()
    return samples


def _takes(setup: Setup, scratch: Path) -> dict[str, Callable[[], float]]:
    small, large = scratch / "small", scratch / "large"
    _link(setup.photos, small / "photos", setup.small)
    _link(setup.photos, large / "photos", setup.images)
    job = partial(_job_seconds, setup, scratch / "dataset")
    few, many = setup.workers, setup.workers * _SHARDS
    empty = partial(
        parallel_timing.empty_job_seconds, setup.workers, setup.beam_arguments
    )
    takes: dict[str, Callable[[], float]] = {EMPTY: empty}
    if setup.workers > 1:
        takes[ALONE_SMALL] = partial(job, small, few, 1)
        takes[ALONE_LARGE] = partial(job, large, many, 1)
    takes[SMALL] = partial(job, small, few, setup.workers)
    takes[LARGE] = partial(job, large, many, setup.workers)
    takes |= {c.name: partial(_rate, setup, c) for c in BASELINES if c.installed()}
    return takes


def _link(photos: Sequence[Path], folder: Path, count: int) -> None:
    """Repeats the photos in a class folder, by links."""
    folder.mkdir(parents=True)
    for index in range(count):
        photo = photos[index % len(photos)].absolute()
        (folder / f"{index:07d}.jpg").symlink_to(photo)


def _job_seconds(
    setup: Setup, dataset: Path, images: Path, shards: int, workers: int
) -> float:
    """The whole shard job, as a user starts it."""
    contract = asdict(setup.contract)
    del contract["format"]
    seconds = parallel_timing.command_seconds(
        *("-m", "pipeline", "shards", f"--images={images}", f"--dataset={dataset}"),
        *(f"--{name}={value}" for name, value in contract.items()),
        *(f"--shards={shards}", f"--workers={workers}", "--validation_fraction=0"),
        *("--", *setup.beam_arguments),
    )
    shutil.rmtree(dataset)
    return seconds


def _rate(setup: Setup, contender: Baseline) -> float:
    """Images/s of a contender, over its share of the images in one repeat."""
    return baselines.rate(
        contender,
        setup.photos,
        setup.contract,
        images=-(-setup.images // setup.repeats),
        processes=setup.workers,
    )
