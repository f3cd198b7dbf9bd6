"""Processes that decode and resize photos, in order, whatever a photo does to them."""

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline import image, io_errors, origin
from pipeline.image import BadImage
from pipeline.manifest import ImageContract
from predictor.worker import Worker, WorkerLostError

_AHEAD = 8  # photos that a process has before it, or has done
_TRIES = 2  # of a photo that its process did not survive


@dataclass
class _Asked:
    """A photo that is under way, and whose turn it is to answer."""

    uri: str
    decoder: int
    tries: int = 1


class Decoders:
    """Makes of photos what a model takes: as the shards have them, but not encoded.

    Args:
        contract: size and resize rule.
        count: processes.
        seconds: after which a photo is given up.
    """

    def __init__(
        self, contract: ImageContract, *, count: int, seconds: float = 60
    ) -> None:
        self._contract, self._seconds = contract, seconds
        self._workers = [self._start() for _ in range(count)]
        self._asked: deque[_Asked] = deque()

    def decode(self, uris: Iterable[str]) -> Iterator[np.ndarray | BadImage]:
        """Yields uint8[height, width, 3], or why there is none, for each, in order.

        Args:
            uris: for pipeline.origin.

        Raises:
            UnavailableError: a photo cannot be read now; see io_errors.
        """
        for number, uri in enumerate(uris):
            if len(self._asked) == _AHEAD * len(self._workers):
                yield self._oldest()
            asked = _Asked(uri, number % len(self._workers))
            self._asked.append(asked)
            self._ask(asked)
        while self._asked:
            yield self._oldest()

    def end(self) -> None:
        """Ends the processes."""
        for worker in self._workers:
            worker.end()

    def _start(self) -> Worker[str, np.ndarray]:
        return Worker(_Decode, self._contract)

    def _ask(self, asked: _Asked) -> None:
        with contextlib.suppress(WorkerLostError):  # who waits for an answer will know
            self._workers[asked.decoder].ask(asked.uri)

    def _oldest(self) -> np.ndarray | BadImage:
        """Of all that is under way: what became of it."""
        asked = self._asked[0]
        found: np.ndarray | BadImage | None = None
        while found is None:
            try:
                found = self._workers[asked.decoder].answer(seconds=self._seconds)
            except BadImage as bad:
                found = bad
            except WorkerLostError as lost:
                found = self._again(asked, lost)
        self._asked.popleft()
        return found

    def _again(self, asked: _Asked, lost: WorkerLostError) -> BadImage | None:
        """A new process takes what the lost one had, and why a photo is given up.

        The photo that it was at has another try: not only photos end processes.
        """
        self._workers[asked.decoder].end()
        self._workers[asked.decoder] = self._start()
        asked.tries += 1
        condemned = asked.tries > _TRIES
        for other in self._asked:
            if other.decoder == asked.decoder and not (condemned and other is asked):
                self._ask(other)
        reason = "timeout" if lost.late else "decoder_crash"
        return BadImage(reason, str(lost)) if condemned else None


class _Decode:
    """What a process does with a photo."""

    def __init__(self, contract: ImageContract) -> None:
        self._contract = contract

    def __call__(self, uri: str) -> np.ndarray:
        with io_errors.explained(origin.path(uri)):
            pixels = image.decode(origin.read(uri), self._contract)
            return image.resize(pixels, self._contract)
