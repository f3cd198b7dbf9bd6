"""What a long run will take: lists IMAGES, makes a few hundred images, extrapolates."""

import heapq
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline.dataset import sidecar
from pipeline.dataset.manifest import MANIFEST, SHARD_PATTERN, ImageContract
from pipeline.options import PlanOptions
from pipeline.shards import generation, plan, shard_writer
from pipeline.sources import layout
from pipeline.sources.hashing import order_key
from pipeline.sources.listing import ImageRef, Listing
from pipeline.storage.object_paths import AnyPath, ObjectPath
from pipeline.storage.resumable_folder import ResumableFolder
from pipeline.system import command_line, console, parallel_timing
from pipeline.system.console import in_bytes, in_time
from pipeline.system.errors import RunError

_SAMPLE = 480  # images
_CHUNKS = 4  # per worker: the spread between them is the range of a prediction
_SPARE = 1.05  # of the output: what the disk must hold


class Range(NamedTuple):
    """A prediction, between what the best and the worst chunk alone would say."""

    low: float
    expected: float
    high: float

    def times(self, factor: float) -> "Range":
        """Scales all three."""
        return Range(*(value * factor for value in self))

    def plus(self, constant: float) -> "Range":
        """Shifts all three."""
        return Range(*(value + constant for value in self))


@dataclass(frozen=True)
class Chunk:
    """A part of the sample, made by one process as a shard is made.

    Attributes:
        images: tried.
        seconds: it took, while all processes worked.
        bytes: of its records.
        reasons: of rejections.
    """

    images: int
    seconds: float
    bytes: int
    reasons: Counter[str]


@dataclass(frozen=True)
class Estimate:
    """What `make shards` would do.

    Attributes:
        seconds: of wall time, start-up included.
        startup: seconds of it before the first image and after the last.
        bytes: of all shards.
        shards: number of them by split.
        rejected: images, without those that are known from their paths alone.
        sampled: images that were tried.
        reasons: of rejections in the sample.
    """

    seconds: Range
    startup: float
    bytes: Range
    shards: Mapping[str, int]
    rejected: float
    sampled: int
    reasons: Counter[str]


def run(options: PlanOptions) -> None:
    """Prints what `preprocess.run` with the same options would take and make.

    Where the options name no dataset, the disk of the current folder is looked at.

    Raises:
        RunError: the images are at fault, the disk cannot hold the dataset, or too many
            images are rejected by the listing alone.
    """
    started = time.monotonic()
    listing = layout.list_images(
        options.images,
        csv=options.manifest,
        validation_fraction=options.validation_fraction,
        seed=options.seed,
        labelled_test=options.labelled_test,
        classes=options.classes,
        layout=options.layout,
        id_column=options.id_column,
        label_column=options.label_column,
    )
    layout.announce(options.images, listing)
    if options.append:
        assert options.dataset is not None  # PlanOptions sees to it
        base = generation.read_base(options.dataset)
        base.refuse_other(
            listing,
            options.contract,
            seed=options.seed,
            validation_fraction=options.validation_fraction,
            class_list=options.classes,
        )
        selected = generation.unlisted(base, listing)
        console.say("\n".join(selected.lines))
        if not len(selected.listing):
            console.conclude("make shards would add nothing.")
            return
        listing = selected.listing
    slices = plan.cut_slices(listing, count=options.shards, seed=options.seed)
    listed = time.monotonic() - started
    workers = options.workers
    chunks = _chunks(listing, options.contract, seed=options.seed, workers=workers)
    empty = parallel_timing.empty_job_seconds(workers, options.beam_arguments)
    prediction = predict(chunks, slices, startup=listed + empty, workers=workers)
    report = _report(listing, prediction, workers)
    fault = listing.beyond(options.max_reject_fraction)
    room, shortage = _look_at_disk(
        options.dataset or Path.cwd(), prediction.bytes, added=options.append
    )
    if fault or shortage:
        console.say("\n".join(report))
        raise RunError(f"make shards would fail: {fault}" if fault else shortage)
    rejected = (len(listing.rejects) + prediction.rejected) / len(listing)
    if rejected > options.max_reject_fraction:
        console.warn(
            f"make shards would likely fail at its end: about {rejected:.2%} of the "
            f"images are rejected, and --max_reject_fraction allows "
            f"{options.max_reject_fraction:.2%}"
        )
    console.conclude(
        "\n".join([*report, *room]),
        following=command_line.repeated("pipeline", "shards"),
    )


def predict(
    chunks: Sequence[Chunk],
    slices: Mapping[str, plan.Slices],
    *,
    startup: float,
    workers: int,
) -> Estimate:
    """Extrapolates from a sample.

    Args:
        chunks: the sample.
        slices: the images of every shard, by split.
        startup: seconds besides those of the images.
        workers: processes; Beam deals the shards out to them beforehand.

    Raises:
        RunError: no image of the sample is good.
    """
    sampled = sum(chunk.images for chunk in chunks)
    reasons = sum((chunk.reasons for chunk in chunks), Counter[str]())
    if reasons.total() == sampled:
        raise RunError(
            f"none of {sampled} sampled images could be decoded "
            f"({_in_words(reasons)}). Is IMAGES the right folder?"
        )
    parts = [len(refs) for split in slices.values() for refs in split]
    images, most = sum(parts), -(-len(parts) // workers)  # shards of one worker
    per_worker = images * most / len(parts)
    seconds = _range(chunks, [chunk.seconds for chunk in chunks])
    return Estimate(
        seconds=seconds.times(per_worker).plus(startup),
        startup=startup,
        bytes=_range(chunks, [chunk.bytes for chunk in chunks]).times(images),
        shards={split: len(refs) for split, refs in slices.items()},
        rejected=images * reasons.total() / sampled,
        sampled=sampled,
        reasons=reasons,
    )


def sample(refs: Iterable[ImageRef], count: int, *, seed: int) -> list[ImageRef]:
    """Draws at most `count` images, the same ones whatever the order of the listing."""
    return heapq.nsmallest(
        count, refs, key=lambda ref: (order_key(seed, ref.id), ref.split, ref.id)
    )


def _range(chunks: Sequence[Chunk], amounts: Sequence[float]) -> Range:
    """An amount per image: of all chunks together, and of the extreme ones."""
    each = [
        amount / chunk.images for chunk, amount in zip(chunks, amounts, strict=True)
    ]
    mean = sum(amounts) / sum(chunk.images for chunk in chunks)
    return Range(min(each), mean, max(each))


def _chunks(
    listing: Listing, contract: ImageContract, *, seed: int, workers: int
) -> list[Chunk]:
    """Makes the images of a sample, by all workers at once, and throws them away."""
    refs = sample(listing.refs, _SAMPLE, seed=seed)
    count = min(len(refs), workers * _CHUNKS)
    slices = {"sample": [refs[index::count] for index in range(count)]}
    with tempfile.TemporaryDirectory(prefix="plan-") as name:
        folder = Path(name)
        ResumableFolder(folder, manifest=MANIFEST).start({})
        planned = plan.write_plan(folder, slices, listing.classes)
        names = list(planned)
        tasks = [
            (names[index::workers], name, contract)
            for index in range(min(workers, count))
        ]
        results, _ = parallel_timing.in_step(_prepare, tasks)
        seconds = {name: taken for part in results for name, taken in part.items()}
        return [_chunk(folder, name, planned[name], seconds[name]) for name in names]


def _prepare(
    names: Sequence[str], folder: str, contract: ImageContract
) -> Callable[[], dict[str, float]]:
    return lambda: {name: _seconds(name, folder, contract) for name in names}


def _seconds(name: str, folder: str, contract: ImageContract) -> float:
    started = time.monotonic()
    shard_writer.write(name, folder, contract)
    return time.monotonic() - started


def _chunk(folder: Path, name: str, images: int, seconds: float) -> Chunk:
    note = sidecar.read_note(folder, name)
    assert note is not None  # it was written a moment ago
    reasons = Counter(reason for _, _, reason, _ in note.tally.rejects)
    return Chunk(images, seconds, note.shard.bytes, reasons)


def _report(listing: Listing, prediction: Estimate, workers: int) -> list[str]:
    seconds, size = prediction.seconds, prediction.bytes
    each = size.expected / len(listing.refs) / 1e3
    rate = len(listing.refs) / max(1e-9, seconds.expected - prediction.startup)
    shards = ", ".join(f"{n} {split}" for split, n in prediction.shards.items())
    return [
        f"make shards would take about {in_time(seconds.expected)} for "
        f"{len(listing):,} images and write {in_bytes(size.expected)}",
        f"  sample     {prediction.sampled} images, {workers} workers, "
        f"{rate:,.0f} images/s",
        f"  wall time  {in_time(seconds.expected)} ({in_time(seconds.low)} to "
        f"{in_time(seconds.high)}), {prediction.startup:.0f} s of it to list and start",
        f"  output     {in_bytes(size.expected)} ({in_bytes(size.low)} to "
        f"{in_bytes(size.high)}), {each:.1f} KB an image",
        f"  shards     {shards}",
        f"  rejects    {_rejects(listing, prediction)}",
    ]


def _rejects(listing: Listing, prediction: Estimate) -> str:
    known = Counter(reject.reason for reject in listing.rejects)
    words = [f"{known.total()} already ({_in_words(known)})"] if known else []
    found = prediction.reasons.total()
    if found:
        words.append(
            f"about {prediction.rejected:,.0f} of the rest: {found} of "
            f"{prediction.sampled} sampled ({_in_words(prediction.reasons)})"
        )
    elif prediction.sampled == len(listing.refs):
        words.append(f"none of the {prediction.sampled} sampled, and these are all")
    else:  # with 95 % confidence: the rule of three
        words.append(
            f"none of {prediction.sampled} sampled: likely less than "
            f"{3 / prediction.sampled:.1%}"
        )
    return "; ".join(words)


def _look_at_disk(
    dataset: AnyPath, size: Range, *, added: bool
) -> tuple[list[str], str]:
    """Returns a line on what is free, and why the dataset does not fit, or "".

    A store has room, of which there is nothing to say.
    """
    if isinstance(dataset, ObjectPath):
        return [], ""
    folder = next(path for path in (dataset, *_parents(dataset)) if path.is_dir())
    free = shutil.disk_usage(folder).free
    # An append leaves the shards that are there; any other run is what made them.
    shards = () if added else dataset.glob(SHARD_PATTERN)
    there = sum(path.stat().st_size for path in shards)
    needed = max(0, round(size.expected * _SPARE) - there)
    room = f"  disk       {in_bytes(free)} free at {folder}, {in_bytes(needed)} needed"
    if needed <= free:
        return [room], ""
    return [room], (
        f"the disk of {folder} has {free:,} bytes free, and DATASET {dataset} needs "
        f"{needed:,}: {size.expected:,.0f} predicted and 5 % to spare, less {there:,} "
        f"that are there. Free {needed - free:,} bytes, name a DATASET on another "
        "disk, or store less with a lower --quality, --height, --width."
    )


def _parents(path: Path) -> Sequence[Path]:
    return Path(os.path.abspath(path)).parents


def _in_words(reasons: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
