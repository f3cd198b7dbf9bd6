"""PREDICTIONS: the names of its CSV shards, their header and their rows."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import orjson

from pipeline import files
from pipeline.console import RunError

MANIFEST = "predictions.json"


def shard_name(index: int, count: int) -> str:
    """The file name of a shard: `predictions-00003-of-00064.csv`."""
    return f"predictions-{index:05d}-of-{count:05d}.csv"


def shard_pattern() -> str:
    """A glob for every shard."""
    return "predictions-*-of-*.csv"


def header(classes: Sequence[str]) -> bytes:
    """The first line: `id` and the class names."""
    return files.csv_line(["id", *classes]).encode()


def lines(ids: Iterable[bytes], probabilities: np.ndarray) -> Iterator[bytes]:
    """Yields the line of every row.

    A number is the shortest text that reads back as the same float32. orjson writes
    a whole row at once, 17 times as fast as numpy.savetxt.

    Args:
        ids: UTF-8.
        probabilities: float32[rows, classes].

    Raises:
        RunError: a probability is not finite.
    """
    ids = list(ids)
    finite = np.isfinite(probabilities).all(axis=1)
    if not finite.all():
        bad = [
            image_id.decode()
            for image_id, ok in zip(ids, finite, strict=True)
            if not ok
        ]
        raise RunError(
            f"the model's output is not finite for {len(bad)} of {len(ids)} images: "
            f"{', '.join(bad[:10])}. MODEL is broken; nothing of this shard was kept."
        )
    for image_id, row in zip(ids, np.ascontiguousarray(probabilities), strict=True):
        numbers = orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
        quoted = files.csv_line([image_id.decode()]).rstrip("\n").encode()
        yield quoted + b"," + numbers + b"\n"
