"""Photos decoded and resized by child processes, in order, whatever they do."""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np

from pipeline.dataset.manifest import ImageContract
from pipeline.images import conversion, image_bytes, isolation
from pipeline.images.conversion import BadImage
from pipeline.images.isolation import Why
from pipeline.system import child_process, io_errors

PHOTOS_TOGETHER = 8  # that go to a child at a time, and come back decoded
_AHEAD = 2  # such requests per child: one is waiting when it has answered

Decoded = list[np.ndarray | BadImage]


class Decoders:
    """Makes of photos what a model takes: as the shards have them, but not encoded.

    Args:
        contract: size and resize rule.
        count: child processes.
        seconds: after which a photo is given up.
    """

    def __init__(
        self, contract: ImageContract, *, count: int, seconds: float = 60
    ) -> None:
        self._contract, self._seconds = contract, seconds
        self._pool = isolation.new_pool(count)
        self._pool.start(count)  # they import while TensorFlow does
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="decoders")

    def decode(self, uris: Iterable[str]) -> Iterator[np.ndarray | BadImage]:
        """Yields uint8[height, width, 3], or why there is none, for each, in order.

        Args:
            uris: for pipeline.images.image_bytes.

        Raises:
            UnavailableError: a photo cannot be read now; see io_errors.
            RunError: children end again and again, and no photo is to blame; or the
                memory is full.
        """
        left = iter(uris)
        asked: deque[Future[Decoded]] = deque()
        while photos := list(itertools.islice(left, PHOTOS_TOGETHER)):
            if len(asked) == _AHEAD * self._pool.count:
                yield from asked.popleft().result()
            asked.append(self._threads.submit(self._decode, photos))
        while asked:
            yield from asked.popleft().result()

    def end(self) -> None:
        """Ends the children."""
        self._pool.end()
        self._threads.shutdown(cancel_futures=True)

    def _decode(self, uris: Sequence[str]) -> Decoded:
        return isolation.run(
            self._pool,
            partial(_decode, uris, self._contract),
            lambda index: (image_bytes.path(uris[index]), uris[index]),
            self._contract,
            seconds=self._seconds,
        )


def _decode(
    uris: Sequence[str], contract: ImageContract, rejected: Mapping[int, Why]
) -> Decoded:
    """Child entry point: decodes and resizes photos."""
    decoded: Decoded = []
    for index, uri in enumerate(uris):
        child_process.at(index)
        try:
            if index in rejected:
                raise BadImage(*rejected[index])
            with io_errors.explained(image_bytes.path(uri)):
                pixels = conversion.decode(image_bytes.read(uri), contract)
                decoded.append(conversion.resize(pixels, contract))
        except BadImage as bad:
            decoded.append(bad)
    return decoded
