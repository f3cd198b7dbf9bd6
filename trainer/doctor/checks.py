"""Whether this node can train: what is there, whether it works, whether it suffices."""

import functools
import itertools
import os
import platform
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import keras
import tensorflow as tf

from pipeline.dataset import manifest, record
from pipeline.dataset.manifest import Dataset
from pipeline.system import console, resources
from pipeline.system.console import in_bytes
from pipeline.system.errors import RunError, UsageError
from trainer.cache import on_disk, policy
from trainer.doctor import decode_rate, replica_test
from trainer.doctor.replica_test import ChildError
from trainer.options import DoctorOptions
from trainer.training import distribution
from trainer.training.distribution import Gpu

OK, ADVICE, PROBLEM = "ok", "advice", "problem"

_TIMEOUT = 120  # seconds, for two replicas to start and to agree
_TOLERANCE = 1e-3  # of parity, in float32
_ARTICLE = (150, 200)  # height and width of images, where no DATASET is named
_FILES = 4096  # open at once: shards, caches, event files
_SHARDS = 256 << 20  # bytes to read for a rate
_SECONDS = 1.0  # that decoding is measured
# VGG16 without its top has 14.7 M parameters, the head 3.1 M and its classes; training
# keeps them, two averages of most, and one more copy while a state replaces another.
_STATE_BYTES = 4 * 18_000_000 * 3 * 2


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        level: OK, ADVICE or PROBLEM.
        text: what was found, and what to do about it.
    """

    level: str
    text: str

    def __str__(self) -> str:
        return f"{self.level:<8} {self.text}"


def run(options: DoctorOptions) -> None:
    """Prints a line for each finding.

    Raises:
        RunError: there are problems; how many.
    """
    problems = 0
    for finding in findings(options):
        console.say(str(finding), matters=finding.level == PROBLEM)
        problems += finding.level == PROBLEM
    if problems:
        raise RunError(f"{problems} problems, see above; training may not work here.")
    console.conclude(
        "this node can train",
        following=console.command(
            "trainer", "train", dataset=options.dataset, model=options.model
        ),
    )


def findings(options: DoctorOptions) -> Iterator[Finding]:
    """Yields all findings, each as soon as it is known."""
    yield _versions()
    yield from gpus(
        distribution.gpus(),
        distribution.in_machine(),
        precision=options.recipe.precision,
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
    )
    yield all_reduce(replica_test.all_reduce)
    yield parity(replica_test.parity)
    yield placement(replica_test.placement)
    dataset = manifest.load(options.dataset) if options.dataset else None
    if distribution.gpus():
        size = (dataset.image.height, dataset.image.width) if dataset else _ARTICLE
        yield copies(functools.partial(replica_test.copies, options.recipe, *size))
    yield _limits()
    folder = options.model or Path.cwd()
    caches = options.caches(folder)
    if dataset:
        yield _reading(dataset)
        yield _decoding(dataset)
        # What `make train` would keep from epoch to epoch.
        choice = policy.choose(dataset, options.recipe, options, folder=caches)
        yield Finding(ADVICE if choice.kind == "none" else OK, str(choice))
    yield from complete_caches(caches)
    yield disk(folder, resources.free_disk(folder))


def gpus(
    seen: Sequence[Gpu], listed: str, *, precision: str, visible: str | None
) -> Iterator[Finding]:
    """Yields what TensorFlow sees of what the driver lists, and the libraries for it.

    Args:
        seen: by TensorFlow.
        listed: by the driver, a line each.
        precision: of the recipe.
        visible: CUDA_VISIBLE_DEVICES, if it is set: GPUs may be hidden on purpose.
    """
    built = tf.sysconfig.get_build_info()
    libraries = [
        f"{name.removeprefix('nvidia-')} {version}"
        for name, version in _nvidia_wheels()
    ]
    yield Finding(
        OK,
        f"TensorFlow was built for CUDA {built.get('cuda_version', 'none')}, cuDNN "
        f"{built.get('cudnn_version', 'none')}; installed: "
        f"{', '.join(libraries) or 'no library of NVIDIA'}",
    )
    count = len(listed.splitlines())
    if count > len(seen) and visible is not None:
        yield Finding(
            OK if seen else ADVICE,
            f"the driver lists {count} GPUs, TensorFlow sees {len(seen)}: "
            f"CUDA_VISIBLE_DEVICES={visible!r} hides the rest",
        )
    elif count > len(seen):
        yield Finding(
            PROBLEM,
            f"the driver lists {count} GPUs, TensorFlow sees {len(seen)}: `make "
            "install` again where nvidia-smi works, or train with --cpu",
        )
    elif not seen:
        yield Finding(ADVICE, "no GPU: training works, some hundred times slower")
    for gpu in seen:
        capability = ".".join(map(str, gpu.compute_capability or ("unknown",)))
        yield Finding(OK, f"{gpu.device}: {gpu.name}, compute capability {capability}")
    try:
        distribution.check_precision(precision, seen)
    except UsageError as error:
        yield Finding(PROBLEM, str(error))
    for line in listed.splitlines():
        yield Finding(OK, f"the driver: {line}")


def all_reduce(
    attempt: Callable[[], tuple[int, float]], *, timeout: float = _TIMEOUT
) -> Finding:
    """Tries whether the replicas can sum."""
    try:
        count, rate = replica_test.in_child(attempt, timeout=timeout)
    except ChildError as error:
        return Finding(
            PROBLEM,
            f"a sum over the replicas: {error}. Look at NCCL_DEBUG=INFO; "
            "NCCL_P2P_DISABLE=1 or --all_reduce=hierarchical_copy go around NCCL's "
            "links",
        )
    return Finding(OK, f"a sum over {count} replicas: {in_bytes(rate)}/s and replica")


def parity(attempt: Callable[[], float], *, timeout: float = _TIMEOUT) -> Finding:
    """Tries whether all replicas train as one does."""
    try:
        apart = replica_test.in_child(attempt, timeout=timeout)
    except ChildError as error:
        return Finding(PROBLEM, f"all replicas and 1: {error}")
    text = f"all replicas and 1 end {apart:.1e} of their way apart"
    if apart <= _TOLERANCE:
        return Finding(OK, f"{text} ({_TOLERANCE:g} allowed)")
    return Finding(
        PROBLEM,
        f"{text}, more than {_TOLERANCE:g}: train with one GPU "
        "(CUDA_VISIBLE_DEVICES=0), and report it",
    )


def placement(
    attempt: Callable[[], list[str]], *, timeout: float = _TIMEOUT
) -> Finding:
    """Looks whether batches and weights lie on the devices that compute with them."""
    try:
        astray = replica_test.in_child(attempt, timeout=timeout)
    except ChildError as error:
        return Finding(PROBLEM, f"where batches and weights lie: {error}")
    if not astray:
        return Finding(OK, "batches and weights lie on the devices that use them")
    return Finding(
        PROBLEM,
        f"{len(astray)} tensors are copied in every step, such as: {astray[0]}. "
        "Report it",
    )


def copies(
    attempt: Callable[[], tuple[float, float]], *, timeout: float = _TIMEOUT
) -> Finding:
    """Compares the time of copying a batch to the devices with that of a step."""
    try:
        copy, step = replica_test.in_child(attempt, timeout=timeout)
    except ChildError as error:
        return Finding(PROBLEM, f"copies of a batch: {error}")
    text = (
        f"a batch of pixels is copied to the devices in {1e3 * copy:.1f} ms, "
        f"{copy / step:.0%} of a step of {1e3 * step:.1f} ms"
    )
    if copy < step:
        return Finding(OK, f"{text}, and meanwhile")
    return Finding(ADVICE, f"{text}: training waits for copies")


def complete_caches(folder: Path) -> Iterator[Finding]:
    """Compares complete caches with their checksums, which a run does not do again.

    Args:
        folder: of the caches.
    """
    for manifest_path in sorted(folder.glob(f"*/{on_disk.MANIFEST}")):
        cache = manifest_path.parent
        if damage := on_disk.find_damage(cache):
            yield Finding(
                PROBLEM, f"{damage}. Remove {cache}: the next run makes it anew"
            )
        else:
            yield Finding(OK, f"the cache in {cache} is as it was written")


def disk(folder: Path, free: int) -> Finding:
    """Compares the free disk with a training state."""
    text = (
        f"the disk of {folder} has {in_bytes(free)} free; a training state takes up "
        f"to {in_bytes(_STATE_BYTES)}, a snapshot some {in_bytes(_STATE_BYTES / 6)}"
    )
    if free > 2 * _STATE_BYTES:
        return Finding(OK, text)
    return Finding(PROBLEM, f"{text}: free some, or name a MODEL elsewhere")


def _versions() -> Finding:
    return Finding(
        OK,
        f"Python {platform.python_version()}, TensorFlow {tf.__version__}, Keras "
        f"{keras.__version__}; {resources.cores()} cores",
    )


def _nvidia_wheels() -> list[tuple[str, str]]:
    found = {(one.name, one.version) for one in metadata.distributions()}
    return sorted(pair for pair in found if pair[0].startswith("nvidia-"))


def _decoding(dataset: Dataset) -> Finding:
    """Measures decoding by all cores, in images per second."""
    stored = record.read(dataset.paths("train")[0])
    jpegs = [one.record.encoded for one in itertools.islice(stored, 256)]
    cores = resources.cores()
    size = max(1, min(32, len(jpegs) // cores))
    rate = decode_rate.decode_jpeg(jpegs * cores, batch_size=size, threads=cores)(
        _SECONDS
    )
    return Finding(OK, f"decoding DATASET: {rate:,.0f} images/s on {cores} cores")


def _reading(dataset: Dataset) -> Finding:
    """Measures the disk, as far as the system lets go of what it remembers.

    Of a store, that of one connection.
    """
    taken, started = 0, time.perf_counter()
    for path in dataset.paths("train"):
        with path.open("rb") as file:
            if isinstance(path, Path):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while data := file.read(1 << 20):
                taken += len(data)
        if taken > _SHARDS:
            break
    rate = taken / (time.perf_counter() - started)
    split = dataset.split("train")
    each = sum(shard.bytes for shard in split.shards) / split.examples
    return Finding(
        OK, f"reading DATASET: {in_bytes(rate)}/s, or {rate / each:,.0f} images/s"
    )


def _limits() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"{soft} files may be open at once"
    if soft >= _FILES or soft == resource.RLIM_INFINITY:
        return Finding(OK, text)
    return Finding(ADVICE, f"{text}: with many shards, `ulimit -n {_FILES}` before")
