"""Some rows of PREDICTIONS, as they are read back."""

import csv
import zlib
from typing import NamedTuple

import numpy as np
import zstandard

_NUMBERS = 4 << 20  # in memory at a time: 16 MB
_ROWS = 4096  # in memory at a time, for the sake of their ids

# What a damaged file makes its readers say.
FAULTS = (ValueError, csv.Error, EOFError, OSError, zlib.error, zstandard.ZstdError)


class RowBatch(NamedTuple):
    """Some rows of a file.

    Attributes:
        ids: of the images; of `submission`, of the sample.
        classes: the names of every row's classes; None of `probabilities`, whose header
            has them. A row of `submission` that knows nothing has none.
        probabilities: float32[rows, k]; 0 where a row has no class.
    """

    ids: list[str]
    classes: list[list[str]] | None
    probabilities: np.ndarray


def at_once(width: int) -> int:
    """Returns how many rows of so many numbers may be in memory."""
    return max(1, min(_ROWS, _NUMBERS // width))


def is_probability(values: np.ndarray) -> np.ndarray:
    """Returns where float[…] is a probability: from 0 to 1, and no NaN."""
    return (values >= 0) & (values <= 1)


def in_words(fault: Exception) -> str:
    """Returns what one of FAULTS says, in a line."""
    if isinstance(fault, FileNotFoundError):
        return "is missing"
    if isinstance(fault, UnicodeDecodeError):
        return "it is not UTF-8"
    return " ".join((str(fault) or type(fault).__name__).split())
