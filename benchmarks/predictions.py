"""How fast predictions are written: beside other ways, and what that costs a run.

The models have random weights, and as many classes as Google's landmarks had.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from multiprocessing import active_children
from pathlib import Path

import keras
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from benchmarks import fixtures, harness
from benchmarks.harness import Target
from benchmarks.options import PredictionsOptions
from pipeline.dataset import manifest
from pipeline.dataset.manifest import Dataset
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import ResumableFolder
from pipeline.system import console, resources
from predictor.format.file_format import Format
from predictor.format.predictions_manifest import MANIFEST
from predictor.forward_pass import ForwardPass
from predictor.inputs.inputs import Batch, FromDataset
from predictor.writing.size_estimate import made_up
from predictor.writing.writers import Writers
from trainer import model
from trainer.data import input_pipeline as data
from trainer.recipe import RECIPES
from trainer.training import distribution

CLASSES = tuple(f"landmark {label}" for label in range(14_951))

_IN_MEMORY = Path("/dev/shm")  # where the speed of no disk counts
_ROWS = 64  # of a batch
_BATCHES = 4  # of a file
_PANDAS_ROWS = 8  # 0.15 s
_VGG16_IMAGES, _SMALL_IMAGES = 256, 512

ONE, TWO = "ours, 1 process", "ours, 2 processes"
PANDAS, PYARROW = "pandas.to_csv", "pyarrow.csv.write_csv"
VGG16, VGG16_CSV = "VGG16, no CSV", "VGG16, with CSV"
SMALL, SMALL_KERAS = "small model, ours", "small model, predict and to_csv"

FEW, MANY = "peak memory, few rows", "peak memory, many rows"

TARGETS = (
    Target(ONE, PANDAS, at_least=25),
    Target(ONE, PYARROW, at_least=9),
    Target(TWO, ONE, at_least=1.9),
    Target(VGG16_CSV, VGG16, at_most=1.02),
    Target(SMALL_KERAS, SMALL, at_least=1.5),
    Target(MANY, FEW, at_most=1.05),
)
UNITS = (
    dict.fromkeys((ONE, TWO, PANDAS, PYARROW), "M/s")  # million numbers a second
    | dict.fromkeys((VGG16, VGG16_CSV, SMALL, SMALL_KERAS), "s")
    | dict.fromkeys((FEW, MANY), "MB")
)


def run(options: PredictionsOptions) -> None:
    """Measures; prints a table; writes predictions.json.

    Raises:
        RunError: the dataset is at fault.
    """
    resources.limit_arenas()
    dataset = manifest.load(options.dataset)
    here = harness.machine()
    console.say(harness.in_words(here))
    fast = _IN_MEMORY if _IN_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=fast) as scratch:
        samples = harness.alternate(
            _writing(Path(scratch), options.seconds), options.repeats
        )
    with tempfile.TemporaryDirectory() as scratch:
        ways = _running(dataset, options.split, Path(scratch))
        for measure in ways.values():
            measure()  # makes the graphs
        samples = harness.alternate(ways, options.repeats, samples)
    for name, count in zip((FEW, MANY), options.rows, strict=True):
        samples[name] = [harness.isolated(_peak, options.dataset, options.split, count)]
    path = options.output / "predictions.json"
    harness.report(path, here, samples, TARGETS, UNITS, rows=options.rows)


def _writing(scratch: Path, seconds: float) -> dict[str, harness.Measure]:
    """Prepares millions of numbers a second: of our processes and of others."""
    ids, values = made_up(_ROWS, len(CLASSES))
    frame = pd.DataFrame(values, columns=pd.Index(CLASSES))
    frame.insert(0, "id", ids)
    arrow = pa.Table.from_pandas(frame, preserve_index=False)
    few = frame.iloc[:_PANDAS_ROWS]

    def rate(rows: int, write: Callable[[], object]) -> float:
        return harness.per_second(write, seconds) * rows * len(CLASSES) / 1e6

    def ours(processes: int) -> float:
        names = [f"{number}.csv" for number in range(processes)]
        with _writers(scratch, processes) as writers:

            def write(batches: int) -> None:
                for _ in range(batches):
                    for name in names:
                        writers.write(name, ids, values)
                for name in names:
                    writers.end(name, [])  # the next file takes its place

            write(1)
            writers.finish()  # the processes have started
            started, rows = time.perf_counter(), 0
            while time.perf_counter() - started < seconds:
                write(_BATCHES)
                rows += _BATCHES * _ROWS * processes
            writers.finish()
            return rows * len(CLASSES) / (time.perf_counter() - started) / 1e6

    return {
        ONE: partial(ours, 1),
        TWO: partial(ours, 2),
        PANDAS: lambda: rate(
            _PANDAS_ROWS, lambda: few.to_csv(scratch / "pandas.csv", index=False)
        ),
        PYARROW: lambda: rate(
            _ROWS, lambda: pyarrow.csv.write_csv(arrow, scratch / "arrow.csv")
        ),
    }


def _writers(scratch: Path, count: int) -> Writers:
    """Returns writing processes into a new folder."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    ResumableFolder(folder, manifest=MANIFEST).start({})
    return Writers(folder, Format(), CLASSES, rows=_ROWS, count=count)


def _running(dataset: Dataset, split: str, scratch: Path) -> dict[str, harness.Measure]:
    """Prepares seconds of whole runs on real pictures."""
    strategy = distribution.strategy(cpu=True)
    with strategy.scope():
        vgg16 = model.build(
            height=dataset.image.height,
            width=dataset.image.width,
            classes=len(CLASSES),
            weights="none",
            recipe=RECIPES["article"],
        )
        small = _small(dataset)
    forward, ours = ForwardPass(vgg16, strategy), ForwardPass(small, strategy)
    run = partial(_predict, dataset, split)
    return {
        VGG16: partial(run, _VGG16_IMAGES, forward),
        VGG16_CSV: partial(run, _VGG16_IMAGES, forward, scratch),
        SMALL: partial(run, _SMALL_IMAGES, ours, scratch),
        SMALL_KERAS: partial(_keras, dataset, split, _SMALL_IMAGES, small, scratch),
    }


def _small(dataset: Dataset) -> keras.Model:
    """Builds a model as wide as VGG16 at its end, and nearly nothing before it."""
    layers = keras.layers
    pixels = keras.Input((dataset.image.height, dataset.image.width, 3))
    means = layers.Rescaling(1 / 255)(layers.AveragePooling2D(16)(pixels))
    outputs = layers.Dense(len(CLASSES), "softmax")(layers.Flatten()(means))
    return keras.Model(pixels, outputs)


def _predict(
    dataset: Dataset,
    split: str,
    images: int,
    forward: ForwardPass,
    scratch: Path | None = None,
) -> float:
    """Times the first picture to the last row on disk, as `make predict` does it.

    Without a folder, it is to the last probability.
    """
    source = FromDataset(dataset, split)
    shards = range(len(fixtures.first_shards(dataset, split, images)))
    started = time.perf_counter()
    batches = source.batches(shards, batch_size=_ROWS, at_once=1)
    if scratch:
        with _writers(scratch, 1) as writers:
            _write(writers, forward, batches)
            writers.finish()
    else:
        for _ in forward.stream(batches):
            pass
    return time.perf_counter() - started


def _write(
    writers: Writers, forward: ForwardPass, batches: Iterable[Batch], prefix: str = ""
) -> None:
    for batch, probabilities in forward.stream(batches):
        name = f"{prefix}{batch.shard}"
        writers.write(name, batch.ids, probabilities)
        if batch.last:
            writers.end(name, [])


def _keras(
    dataset: Dataset, split: str, images: int, network: keras.Model, scratch: Path
) -> float:
    """Times `predict` into memory, and a table of that as one CSV."""
    started = time.perf_counter()
    shards = fixtures.first_shards(dataset, split, images)
    batches = data.for_inference(dataset, shards, batch_size=_ROWS)
    values = network.predict(batches.map(lambda batch: batch.images), verbose=0)
    ids = [name.decode() for batch in batches for name in batch.ids.numpy()]
    frame = pd.DataFrame(values, index=pd.Index(ids, name="id"), columns=list(CLASSES))
    frame.to_csv(scratch / "keras.csv")
    return time.perf_counter() - started


def _peak(folder: AnyPath, split: str, rows: int) -> float:
    """Returns megabytes of this process and its writer at most, with the small model.

    The split is predicted again and again, until there are so many rows.
    """
    dataset = manifest.load(folder)
    source = FromDataset(dataset, split)
    forward = ForwardPass(_small(dataset), distribution.strategy(cpu=True))
    shards = range(len(source.sizes))
    with (
        tempfile.TemporaryDirectory() as scratch,
        _writers(Path(scratch), 1) as writers,
    ):
        for turn in range(-(-rows // sum(source.sizes))):
            batches = source.batches(shards, batch_size=_ROWS, at_once=1)
            _write(writers, forward, batches, f"{turn}-")
        writers.finish()
        processes = [os.getpid(), *(each.pid for each in active_children())]
        return sum(harness.memory("VmHWM", one) for one in processes if one)
