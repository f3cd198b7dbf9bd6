"""PREDICTIONS: the names of its files, and what predictions.json says of them."""

from typing import NamedTuple

VERSION = 2
PARQUET_VERSION = 3  # one list of numbers a row; 2 had a column for each class
MANIFEST = "predictions.json"
REJECTS = "rejects.csv"


class Entry(NamedTuple):
    """What predictions.json says of a file.

    Attributes:
        file: its name.
        rows: below the header.
        bytes: its length.
        crc32c: of its content, hexadecimal.
        ids_sha256: of the ids in order, each with a NUL behind it.
        rejected: images of the input shard that have no row.
    """

    file: str
    rows: int
    bytes: int
    crc32c: str
    ids_sha256: str
    rejected: int


def shard_name(index: int, count: int, extension: str = ".csv") -> str:
    """The file name of a shard: `predictions-00003-of-00064.csv`."""
    return f"predictions-{index:05d}-of-{count:05d}{extension}"
