"""SIGINT and SIGTERM: between two steps, after the state is saved."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """Both signals as KeyboardInterrupt; inside `put_off` they only set a flag.

    One at a time: it stands for the whole process, as a handler of a signal does.

    TensorFlow turns what a callback raises into errors of its own: what leaves this
    after a KeyboardInterrupt was raised is one again.

    Attributes:
        requested: somebody wants the run to stop.
        is_put_off: whether signals only set that flag now.
    """

    active: "StopSignal | None" = None  # that has the signals now

    def __init__(self) -> None:
        self.requested = False
        self.is_put_off = self._raised = False

    def __enter__(self) -> Self:
        self._before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            signal.signal(number, self._handle)
        StopSignal.active = self
        return self

    def __exit__(
        self, kind: object, error: BaseException | None, trace: object
    ) -> None:
        StopSignal.active = None
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._raised and error and not isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt from error

    @contextlib.contextmanager
    def put_off(self) -> Iterator[None]:
        """Holds the first signal back until the block ends; a second one interrupts."""
        before, self.is_put_off = self.is_put_off, True
        try:
            yield
        finally:
            self.is_put_off = before

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first, self.requested = not self.requested, True
        if self.is_put_off and first:
            return
        self._raised = True
        # Python drops what is raised inside a `__del__`: then the next step stops.
        raise KeyboardInterrupt


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Holds a signal back for a call of a strategy, and raises it behind that.

    A strategy traces a step in threads of its own, which wait for the main thread. An
    exception that comes when they have just been started leaves them waiting, and the
    process waits for them at its end, for ever (mirrored_run.py of TensorFlow 2.21
    starts them before its `try`).

    Raises:
        KeyboardInterrupt: a signal came; nothing does outside of a `StopSignal`.
    """
    if not (stop := StopSignal.active):
        yield
        return
    with stop.put_off():
        yield
    if stop.requested and not stop.is_put_off:
        raise KeyboardInterrupt
