"""Processes that decode and resize photos, in order, whatever a photo does to them."""

import contextlib
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import simplejpeg

from pipeline.dataset.manifest import ImageContract
from pipeline.images import conversion, image_bytes
from pipeline.images.conversion import BadImage
from pipeline.system import io_errors
from pipeline.system.errors import RunError
from predictor.processes.request_process import RequestProcess, WorkerLostError

_AHEAD = 8  # photos that a process has before it, or has done
_TRIES = 2  # of a photo that its process did not survive
_LOSSES = 3  # of processes in a row, which no photo is to blame for
_START_SECONDS = 120.0  # for a process to start and import, on a busy machine

# How a faulty decoder ends its process, if not by exit(). Other signals come from
# outside: SIGKILL where the memory is full.
_CRASHES = {
    *(signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV)
}
_ADVICE = (
    "What was committed is kept: free memory or mend the installation, and run the "
    "same command again."
)


@dataclass
class _Asked:
    """A photo that is under way, and whose turn it is to answer."""

    uri: str
    decoder: int
    tries: int = 1


@dataclass
class _Decoder:
    """A process, and whether it has shown that it can decode."""

    worker: RequestProcess[str | None, np.ndarray]
    proved: bool = False


class Decoders:
    """Makes of photos what a model takes: as the shards have them, but not encoded.

    The first thing that a process decodes is a photo that is known to be good. So what
    ends it before that is a fault of the machine, and ends the run; what ends it at a
    photo is the photo's, when a second process ends at it as the first thing it does.

    Args:
        contract: size and resize rule.
        count: processes.
        seconds: after which a photo is given up.
    """

    def __init__(
        self, contract: ImageContract, *, count: int, seconds: float = 60
    ) -> None:
        self._contract, self._seconds = contract, seconds
        self._decoders = [self._start() for _ in range(count)]
        self._asked: deque[_Asked] = deque()
        self._losses = 0

    def decode(self, uris: Iterable[str]) -> Iterator[np.ndarray | BadImage]:
        """Yields uint8[height, width, 3], or why there is none, for each, in order.

        Args:
            uris: for pipeline.images.image_bytes.

        Raises:
            UnavailableError: a photo cannot be read now; see io_errors.
            RunError: processes end again and again, and no photo is to blame; or the
                memory is full.
        """
        for number, uri in enumerate(uris):
            if len(self._asked) == _AHEAD * len(self._decoders):
                yield self._oldest()
            asked = _Asked(uri, number % len(self._decoders))
            self._asked.append(asked)
            self._ask(asked)
        while self._asked:
            yield self._oldest()

    def end(self) -> None:
        """Ends the processes."""
        for decoder in self._decoders:
            decoder.worker.end()

    def _start(self) -> _Decoder:
        decoder = _Decoder(RequestProcess(_Decode, self._contract))
        with contextlib.suppress(WorkerLostError):  # who waits for an answer will know
            decoder.worker.ask(None)
        return decoder

    def _ask(self, asked: _Asked) -> None:
        with contextlib.suppress(WorkerLostError):
            self._decoders[asked.decoder].worker.ask(asked.uri)

    def _oldest(self) -> np.ndarray | BadImage:
        """Of all that is under way: what became of it."""
        asked = self._asked[0]
        found: np.ndarray | BadImage | None = None
        while found is None:
            try:
                self._await_proof(self._decoders[asked.decoder])
                found = self._answer(asked)
            except WorkerLostError as lost:
                found = self._again(asked, lost)
        self._asked.popleft()
        self._losses = 0
        return found

    def _await_proof(self, decoder: _Decoder) -> None:
        """Waits until a process has decoded the known photo."""
        if decoder.proved:
            return
        try:
            decoder.worker.answer(seconds=_START_SECONDS)
        except (BadImage, MemoryError) as error:
            raise RunError(
                "a process that decodes photos cannot decode even a sound one of 16x16 "
                f"pixels: {error or type(error).__name__}. {_ADVICE}"
            ) from error
        decoder.proved = True

    def _answer(self, asked: _Asked) -> np.ndarray | BadImage:
        try:
            return self._decoders[asked.decoder].worker.answer(seconds=self._seconds)
        except BadImage as bad:
            return bad

    def _again(self, asked: _Asked, lost: WorkerLostError) -> BadImage | None:
        """Starts a new process for a lost one; returns why a photo is given up.

        The photo that the process was at has another try: not only photos end
        processes.
        """
        decoder = self._decoders[asked.decoder]
        decoder.worker.end()
        if decoder.proved and _may_be_the_photo(lost):
            asked.tries += 1
        else:
            self._losses += 1
        if self._losses == _LOSSES:
            where = "as they began"
            if decoder.proved:
                where = (
                    f"at {image_bytes.path(asked.uri)}, by something else than a crash"
                )
            raise RunError(
                f"processes that decode photos were lost {_LOSSES} times in a row, "
                f"{where}: {lost}. What they said is above. Is there enough memory for "
                f"{len(self._decoders)} of them? {_ADVICE}"
            ) from lost
        self._decoders[asked.decoder] = self._start()
        condemned = asked.tries > _TRIES
        for other in self._asked:
            if other.decoder == asked.decoder and not (condemned and other is asked):
                self._ask(other)
        reason = "timeout" if lost.late else "decoder_crash"
        return BadImage(reason, str(lost)) if condemned else None


def _may_be_the_photo(lost: WorkerLostError) -> bool:
    """Returns whether a decoder ended by itself, or hangs; else something killed it."""
    if lost.late:
        return True
    code = lost.exitcode
    return code is not None and (code >= 0 or -code in _CRASHES)


class _Decode:
    """What a process does with a photo; with None, with one that is known."""

    def __init__(self, contract: ImageContract) -> None:
        self._contract = contract

    def __call__(self, uri: str | None) -> np.ndarray:
        if uri is None:
            return self._convert(_known_photo())
        with io_errors.explained(image_bytes.path(uri)):
            return self._convert(image_bytes.read(uri))

    def _convert(self, data: bytes) -> np.ndarray:
        pixels = conversion.decode(data, self._contract)
        return conversion.resize(pixels, self._contract)


def _known_photo() -> bytes:
    encoded: bytes = simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8))
    return encoded
