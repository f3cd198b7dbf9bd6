"""What is asked of an object store, and asked again where that helps.

Beam's own filesystems are not used. They make a client for every call (182 ms for an
object of 250 KB that a kept client reads in 3 ms). On S3 they publish what was written
before an exception, cannot write an empty object, and list a bucket that is not there
as an empty one. They try a failing request for ten minutes. These are the clients that
they wrap, and that the extras `aws` and `gcp` bring.
"""

import importlib
import random
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from pipeline.system.errors import UnavailableError

CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0  # without a byte
CONNECTIONS = 16  # of a process, at once
PAGE = 1000  # keys that come by one request at most

_TRIES = 6
_FIRST_WAIT = 0.25  # seconds; each further wait is twice as long
_PATIENCE = 30.0  # seconds until the last try; less than --image_timeout

_EXTRAS = {
    "gs": ("pipeline.storage.google_storage", "gcp"),
    "s3": ("pipeline.storage.s3", "aws"),
}
SCHEMES = tuple(_EXTRAS)

_T = TypeVar("_T")


class StoreError(UnavailableError):
    """A store cannot be reached, or refuses: no fault of an image."""


class TransientError(Exception):
    """A request failed in a way that may not come again."""


class Entry(NamedTuple):
    """One line of a listing: an object, or without a size what keys have in common."""

    key: str
    size: int | None


class Page(NamedTuple):
    """A part of a listing, and what to ask for the next one with; "" at its end."""

    entries: Sequence[Entry]
    token: str


class Store(Protocol):
    """A client of one store, for one process.

    Raises (every method):
        FileNotFoundError: there is no such object.
        TransientError: it may work the next time.
        StoreError: it will not.
    """

    def page(
        self, bucket: str, prefix: str, *, delimiter: str, limit: int, token: str
    ) -> Page:
        """Lists so many keys with a prefix, in order; up to a delimiter, if any."""

    def size(self, bucket: str, key: str) -> int:
        """The bytes of an object."""

    def read(self, bucket: str, key: str, start: int, length: int | None) -> bytes:
        """A part of an object, or all from `start` on; less where it ends before."""

    def upload(self, path: Path, bucket: str, key: str) -> int:
        """Makes an object of a file; returns the size that the store then says.

        It appears whole or not at all: its length is announced before its content.
        """

    def delete(self, bucket: str, keys: Sequence[str]) -> None:
        """Deletes objects, and does not mind those that are gone."""


@cache
def client(scheme: str) -> Store:
    """The client of a scheme; the first call takes a moment.

    Raises:
        StoreError: its library is not installed, or finds no credentials.
    """
    module, extra = _EXTRAS[scheme]
    try:
        store: Store = importlib.import_module(module).connect()
    except ImportError as error:
        raise StoreError(
            f"{scheme}:// needs a library that is not installed ({error.name}): "
            f"`pip install 'vgg16-at-scale[{extra}]'`, here and on every worker."
        ) from error
    return store


def insist(what: str, action: Callable[[], _T]) -> _T:
    """Calls, and calls again after growing, random waits while it may still work.

    Args:
        what: for the message, such as "read s3://bucket/key".
        action: a request.

    Raises:
        StoreError: it failed every time.
    """
    started = time.monotonic()
    for number in range(1, _TRIES + 1):
        try:
            return action()
        except TransientError as error:
            seconds = time.monotonic() - started
            if number == _TRIES or seconds > _PATIENCE:
                raise StoreError(
                    f"cannot {what}: {error}. It was tried {number} times in "
                    f"{seconds:.0f} s. What was committed is kept: see whether the "
                    "store and the way to it are well, and run the same command again."
                ) from error
            time.sleep(_FIRST_WAIT * 2 ** (number - 1) * random.uniform(0.5, 1))
    raise AssertionError  # the last try returned or raised
