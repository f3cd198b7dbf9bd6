"""How fast predictions are written: beside other ways, and what that costs a run.

Everything alternates, repeat by repeat; ratios are within a repeat. The model is
VGG16 from random weights, with as many classes as Google's landmarks had.
"""

import itertools
import math
import multiprocessing
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from multiprocessing import active_children
from pathlib import Path

import keras
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from benchmarks.harness import machine
from benchmarks.harness.figures import Figure, divide, table
from pipeline.dataset import manifest
from pipeline.dataset.manifest import Dataset, Shard
from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import ResumableFolder
from pipeline.system import console, resources
from pipeline.system.child_process import end_with_the_parent
from predictor.format.file_format import Format
from predictor.format.predictions_manifest import MANIFEST
from predictor.forward_pass import ForwardPass
from predictor.inputs.inputs import FromDataset
from predictor.writing.size_estimate import made_up
from predictor.writing.writers import Writers
from trainer import model
from trainer.data import input_pipeline as data
from trainer.recipe import RECIPES
from trainer.training import distribution

CLASSES = tuple(f"landmark {label}" for label in range(14_951))
MILLION = 1e6

_IN_MEMORY = Path("/dev/shm")  # where the speed of no disk counts
_ROWS = 64  # of a batch
_BATCHES = 4  # of a file
_TEXT_SECONDS = 2.0  # of a measurement
_PANDAS_ROWS = 8  # 0.15 s
_WHOLE_IMAGES = 256  # of a run of VGG16
_SMALL_IMAGES = 512
_MEMORY_ROWS = (1_000, 20_000)

Seconds = dict[str, list[float]]


def run(
    folder: AnyPath, *, split: str, repeats: int, output: AnyPath | None = None
) -> None:
    """Measures, and prints a table.

    Args:
        folder: DATASET.
        split: whose images are predicted; its first shards, until they are enough.
        repeats: of every measurement.
        output: where JSON goes.

    Raises:
        RunError: the dataset is at fault.
    """
    resources.limit_arenas()
    dataset = manifest.load(folder)
    here = machine.describe()
    print(machine.in_words(here), flush=True)
    with tempfile.TemporaryDirectory(dir=_memory_or_disk()) as scratch:
        figures = _text(Path(scratch), repeats)
    with tempfile.TemporaryDirectory() as scratch:
        figures += _runs(dataset, split, Path(scratch), repeats)
    figures += _memory(folder, split)
    print("\n".join(table(figures)))
    if output:
        found = [figure.to_json() for figure in figures]
        atomic.write_json(output, {"machine": here, "figures": found})


def _memory_or_disk() -> Path | None:
    return _IN_MEMORY if _IN_MEMORY.is_dir() else None


def _text(scratch: Path, repeats: int) -> list[Figure]:
    """Million numbers a second: of our processes, of pandas and of pyarrow."""
    ids, values = made_up(_ROWS, len(CLASSES))
    frame = pd.DataFrame(values, columns=pd.Index(CLASSES))
    frame.insert(0, "id", ids)
    arrow = pa.Table.from_pandas(frame, preserve_index=False)
    few = frame.iloc[:_PANDAS_ROWS]
    ways: dict[str, Callable[[], float]] = {
        "ours, 1 process": partial(_ours, scratch, 1),
        "ours, 2 processes": partial(_ours, scratch, 2),
        "pandas.to_csv": lambda: _rate(
            _PANDAS_ROWS, lambda: few.to_csv(scratch / "pandas.csv", index=False)
        ),
        "pyarrow.csv.write_csv": lambda: _rate(
            _ROWS, lambda: pyarrow.csv.write_csv(arrow, scratch / "arrow.csv")
        ),
    }
    samples = _alternate(ways, repeats, "writing")
    one, two, pandas, pyarrow_ = (tuple(samples[name]) for name in ways)
    return [
        *(Figure(name, "M/s", tuple(samples[name])) for name in ways),
        Figure("ours / pandas, a process", "times", divide(one, pandas), 25),
        Figure("ours / pyarrow, a process", "times", divide(one, pyarrow_), 9),
        Figure("1 → 2 processes", "times", divide(two, one), 1.9),
    ]


def _rate(rows: int, write: Callable[[], object]) -> float:
    """Million numbers a second, of a function that writes rows."""
    started, done = time.perf_counter(), 0
    while (seconds := time.perf_counter() - started) < _TEXT_SECONDS:
        write()
        done += rows
    return done * len(CLASSES) / seconds / MILLION


def _ours(scratch: Path, processes: int) -> float:
    """As `_rate`, of writer processes that have started; files replace each other."""
    ids, values = made_up(_ROWS, len(CLASSES))
    names = [f"{number}.csv" for number in range(processes)]
    with _writers(scratch, processes) as writers:

        def write(batches: int) -> None:
            for _ in range(batches):
                for name in names:
                    writers.write(name, ids, values)
            for name in names:
                writers.end(name, [])

        write(1)
        writers.finish()
        started, rows = time.perf_counter(), 0
        while time.perf_counter() - started < _TEXT_SECONDS:
            write(_BATCHES)
            rows += _BATCHES * _ROWS * processes
        writers.finish()
        seconds = time.perf_counter() - started
    return rows * len(CLASSES) / seconds / MILLION


def _writers(scratch: Path, count: int) -> Writers:
    """Into a new folder."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    ResumableFolder(folder, manifest=MANIFEST).start({})
    return Writers(folder, Format(), CLASSES, rows=_ROWS, count=count)


def _alternate(
    ways: Mapping[str, Callable[[], float]], repeats: int, what: str
) -> dict[str, list[float]]:
    """Measures everything once, then once again, and so on."""
    samples: dict[str, list[float]] = defaultdict(list)
    with console.progress(repeats * len(ways), what, unit="sample") as bar:
        for _ in range(repeats):
            for name, measure in ways.items():
                samples[name].append(measure())
                bar.update()
    return samples


def _runs(dataset: Dataset, split: str, scratch: Path, repeats: int) -> list[Figure]:
    """Seconds of whole runs, on real pictures."""
    strategy = distribution.strategy(cpu=True)
    with strategy.scope():
        vgg = ForwardPass(_vgg16(dataset), strategy)
        small = _small(dataset)
    ours = ForwardPass(small, strategy)
    ways: dict[str, Callable[[], float]] = {
        "VGG16, no CSV": partial(_forward, vgg, dataset, split, _WHOLE_IMAGES),
        "VGG16, with CSV": partial(
            _forward, vgg, dataset, split, _WHOLE_IMAGES, scratch
        ),
        "small model, ours": partial(
            _forward, ours, dataset, split, _SMALL_IMAGES, scratch
        ),
        "small model, predict and to_csv": partial(
            _keras, small, dataset, split, _SMALL_IMAGES, scratch
        ),
    }
    for measure in ways.values():
        measure()  # makes the graphs
    samples = _alternate(ways, repeats, "running")
    bare, whole, fast, slow = (tuple(samples[name]) for name in ways)
    return [
        *(Figure(name, "s", tuple(samples[name])) for name in ways),
        Figure("VGG16, with CSV / without", "times", divide(whole, bare), None, 1.02),
        Figure("predict and to_csv / ours", "times", divide(slow, fast), 1.5),
    ]


def _vgg16(dataset: Dataset) -> keras.Model:
    return model.build(
        height=dataset.image.height,
        width=dataset.image.width,
        classes=len(CLASSES),
        weights="none",
        recipe=RECIPES["article"],
    )


def _small(dataset: Dataset) -> keras.Model:
    """As wide as VGG16 at its end, and nearly nothing before it."""
    layers = keras.layers
    pixels = keras.Input((dataset.image.height, dataset.image.width, 3))
    means = layers.Rescaling(1 / 255)(layers.AveragePooling2D(16)(pixels))
    outputs = layers.Dense(len(CLASSES), "softmax")(layers.Flatten()(means))
    return keras.Model(pixels, outputs)


def _forward(
    forward: ForwardPass,
    dataset: Dataset,
    split: str,
    images: int,
    scratch: Path | None = None,
) -> float:
    """Seconds from the first picture to the last row that is on disk, as predict does
    it; without a folder, to the last probability."""
    source = FromDataset(dataset, split)
    shards = [n for n, _ in enumerate(_shards(dataset, split, images))]
    started = time.perf_counter()
    with _writers(scratch, 1) if scratch else nullcontext() as writers:
        batches = source.batches(shards, batch_size=_ROWS, at_once=1)
        for batch, probabilities in forward.stream(batches):
            if writers:
                writers.write(str(batch.shard), batch.ids, probabilities)
                if batch.last:
                    writers.end(str(batch.shard), [])
        if writers:
            writers.finish()
    return time.perf_counter() - started


def _keras(
    network: keras.Model, dataset: Dataset, split: str, images: int, scratch: Path
) -> float:
    """Seconds of `predict` into memory, and of a table of that as one CSV."""
    started = time.perf_counter()
    shards = _shards(dataset, split, images)
    batches = data.for_inference(dataset, shards, batch_size=_ROWS)
    values = network.predict(batches.map(lambda batch: batch.images), verbose=0)
    ids = [name.decode() for batch in batches for name in batch.ids.numpy()]
    frame = pd.DataFrame(values, index=pd.Index(ids, name="id"), columns=list(CLASSES))
    frame.to_csv(scratch / "keras.csv")
    return time.perf_counter() - started


def _shards(dataset: Dataset, split: str, images: int) -> list[Shard]:
    """The first shards, until they have so many images."""
    shards = dataset.split(split).shards
    totals = itertools.accumulate(shard.examples for shard in shards)
    return [
        shard
        for shard, total in zip(shards, totals, strict=True)
        if total - shard.examples < images
    ]


def _memory(folder: AnyPath, split: str) -> list[Figure]:
    """Peak megabytes of few rows and of many, each in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    found = []
    for rows in _MEMORY_ROWS:
        with ProcessPoolExecutor(1, spawn, end_with_the_parent) as process:
            found.append(process.submit(_peak, folder, split, rows).result())
    few, many = found
    return [
        *(
            Figure(f"peak memory, {rows:,} rows", "MB", (peak,))
            for rows, peak in zip(_MEMORY_ROWS, found, strict=True)
        ),
        Figure("peak memory, many rows / few", "times", (many / few,), None, 1.05),
    ]


def _peak(folder: AnyPath, split: str, rows: int) -> float:
    """Megabytes of this process and its writer at most, with the small model.

    The split is predicted again and again, until there are so many rows.
    """
    resources.limit_arenas()
    dataset = manifest.load(folder)
    source = FromDataset(dataset, split)
    shards = range(len(source.sizes))
    forward = ForwardPass(_small(dataset), distribution.strategy(cpu=True))
    with (
        tempfile.TemporaryDirectory() as scratch,
        _writers(Path(scratch), 1) as writers,
    ):
        for turn in range(math.ceil(rows / sum(source.sizes))):
            batches = source.batches(shards, batch_size=_ROWS, at_once=1)
            for batch, probabilities in forward.stream(batches):
                name = f"{turn}-{batch.shard}"
                writers.write(name, batch.ids, probabilities)
                if batch.last:
                    writers.end(name, [])
        writers.finish()
        processes = [os.getpid(), *(each.pid for each in active_children())]
        return sum(_high_water(process) for process in processes if process)


def _high_water(process: int) -> float:
    """Megabytes that a process had in memory at most.

    Not getrusage: its maximum is that of the parent, too, before exec.
    """
    status = Path(f"/proc/{process}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
