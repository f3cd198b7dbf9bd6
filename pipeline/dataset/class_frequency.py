"""Buckets of classes by how many images they have: what a long tail is told in."""

from typing import NamedTuple

import numpy as np

EDGES = (0, 5, 20, 100, 500, 2_000)  # most images of a class, bucket by bucket


class Limits(NamedTuple):
    """The least and the most images of a class; None where there is no most."""

    least: int
    most: int | None

    @property
    def in_words(self) -> str:
        """The limits: `0`, `6-20`, `> 2,000`."""
        if self.most is None:
            return f"> {self.least - 1:,}"
        same = self.least == self.most
        return f"{self.least:,}" if same else f"{self.least:,}–{self.most:,}"  # noqa: RUF001


LIMITS = tuple(
    Limits(least, most)
    for least, most in zip(
        (0, *(edge + 1 for edge in EDGES)), (*EDGES, None), strict=True
    )
)


def bucket_of(images: np.ndarray) -> np.ndarray:
    """Returns the positions in LIMITS, int[classes], of int[classes] images."""
    return np.searchsorted(EDGES, images)
