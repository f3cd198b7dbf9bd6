"""SIGINT and SIGTERM: between two steps, after the state is saved."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """Both signals as KeyboardInterrupt; inside `put_off` they only set a flag.

    TensorFlow turns what a callback raises into errors of its own: what leaves this
    after a KeyboardInterrupt was raised is one again.

    Attributes:
        requested: somebody wants the run to stop.
    """

    def __init__(self) -> None:
        self.requested = False
        self._put_off = self._raised = False

    def __enter__(self) -> Self:
        self._before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: object, error: BaseException | None, trace: object
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._raised and error and not isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt from error

    @contextlib.contextmanager
    def put_off(self) -> Iterator[None]:
        """Holds the first signal back until the block ends; a second one interrupts."""
        self._put_off = True
        try:
            yield
        finally:
            self._put_off = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._put_off or self.requested:
            self._raised = True
            raise KeyboardInterrupt
        self.requested = True
