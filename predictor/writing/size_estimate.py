"""How much will be written, and how long that takes at least: said in advance."""

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.storage.object_paths import AnyPath
from pipeline.system import console, resources
from pipeline.system.console import in_bytes, in_time
from pipeline.system.errors import RunError
from predictor.format import file_format
from predictor.format.file_format import Format

_CELLS = 1 << 20  # of a sample that is written to nowhere
_SPARE = 1.03  # of the estimate; headers among it
_MANY = 1e9  # bytes that are worth a word


def announce(
    folder: AnyPath, format: Format, classes: Sequence[str], *, rows: int, writers: int
) -> None:
    """Says what is about to be written, if that is much.

    Args:
        folder: PREDICTIONS.
        format, classes: of its files.
        rows: that are still to be written.
        writers: processes.

    Raises:
        RunError: the disk cannot hold it.
    """
    each, seconds = sample(format, classes)
    needed = each * rows
    free = resources.free_disk(folder) if isinstance(folder, Path) else math.inf
    size = f"{rows:,} rows of {len(classes):,} classes take {in_bytes(needed)}"
    if needed * _SPARE > free:
        raise RunError(
            f"the disk of {folder} has {in_bytes(free)} free, and {size}. Free some, "
            f"name a folder on another disk, or write less: {_advice(format)}."
        )
    if needed > _MANY:
        room = "" if free == math.inf else f"; {in_bytes(free)} are free"
        console.say(
            f"{size}, and {in_time(seconds * rows / writers)} of {writers} writing "
            f"processes{room}. {_advice(format)} takes less."
        )


def sample(format: Format, classes: Sequence[str]) -> tuple[float, float]:
    """Bytes and seconds of a row, of made-up probabilities."""
    rows = max(2, min(64, _CELLS // len(classes)))
    ids, values = made_up(rows, len(classes))
    half = rows // 2
    started = time.perf_counter()
    # What a row adds: a header, or what Parquet says of each column, comes once a file.
    added = _length(format, classes, ids, values) - _length(
        format, classes, ids[:half], values[:half]
    )
    seconds = time.perf_counter() - started
    return added / (rows - half), seconds / (rows + half)


def _length(
    format: Format, classes: Sequence[str], ids: Sequence[str], values: np.ndarray
) -> int:
    """Bytes of a file of these rows, which goes nowhere."""
    with open(os.devnull, "wb") as nowhere:
        output = file_format.Output(nowhere)
        with file_format.table(format, classes, output) as table:
            table.write(ids, values)
    return output.length


def made_up(rows: int, classes: int) -> tuple[list[str], np.ndarray]:
    """Ids, and float32[rows, classes] as a softmax has them."""
    logits = np.random.default_rng(0).normal(0, 3, (rows, classes))
    values = np.exp(logits - logits.max(axis=1, keepdims=True)).astype(np.float32)
    values /= values.sum(axis=1, keepdims=True)
    return [f"photo-{row:016d}.jpg" for row in range(rows)], values


def _advice(format: Format) -> str:
    if format.kind == "probabilities":
        return "--format=top_k"
    return "a smaller --top_k" if format.compression != "none" else "--compression=zstd"
