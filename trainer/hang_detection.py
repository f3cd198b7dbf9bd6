"""Ends a run that hangs, as a lost GPU or a broken link makes it, and shows where."""

import faulthandler
import os
import sys
import threading
import time
from typing import Self

_ADVICE = """
nothing has happened for {minutes:g} minutes: a step, a collective operation of the
replicas, or the reading or writing of a cache hangs. Below is where every thread was.
What was saved is kept; the same command goes on. If it happens again: `make doctor`
tries the links between the devices; NCCL_DEBUG=INFO shows what NCCL does,
NCCL_P2P_DISABLE=1 or --all_reduce=hierarchical_copy go around it. If a step takes this
long: --hang_minutes.
"""

_last_progress = time.monotonic()


def alive() -> None:
    """Notes that this process has made progress, whether a watchdog watches or not.

    Everything that can take minutes calls this after each piece of its work. It is a
    function of the module because such work is done at every depth of a run, also in
    threads of tf.data.
    """
    global _last_progress
    _last_progress = time.monotonic()


class HangDetector:
    """Ends the process where `alive` is not called for so many minutes.

    It prints the stacks of all threads; the exit code is 1. Nothing that is inside a
    hanging operation could raise. The watching thread gives its advice first; where a
    hanging call of C keeps Python's lock, that thread cannot run, and a timer of
    faulthandler, which needs no lock, ends the process a little later without it.
    """

    def __init__(self, minutes: float) -> None:
        self._minutes = minutes
        self._look_every = 2 * minutes  # in seconds: a thirtieth of the time allowed
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        alive()
        self._thread = threading.Thread(
            target=self._watch, daemon=True, name="watchdog"
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while True:
            left = _last_progress + 60 * self._minutes - time.monotonic()
            if left <= 0:
                print(_ADVICE.format(minutes=self._minutes), file=sys.stderr)
                faulthandler.dump_traceback(all_threads=True)
                os._exit(1)
            # Later than this thread would, if it could, looks next.
            # To the descriptor: sys.stderr of a notebook has none.
            later = left + 2 * self._look_every
            faulthandler.dump_traceback_later(later, exit=True, file=2)
            if self._ended.wait(min(left, self._look_every)):
                return
