"""Ends a run that hangs, as a lost GPU or a broken link makes it, and shows where."""

import faulthandler
import os
import sys
import threading
import time
from typing import Self

_ADVICE = """
nothing has happened for {minutes:g} minutes: a step, or a collective operation of the
replicas, hangs. Below is where every thread was. What was saved is kept; the same
command goes on. If it happens again: `make doctor` tries the links between the
devices; NCCL_DEBUG=INFO shows what NCCL does, NCCL_P2P_DISABLE=1 or
--all_reduce=hierarchical_copy go around it. If a step takes this long: --hang_minutes.
"""


class Watchdog:
    """Expects a call of `alive` at least every so many minutes.

    Else it prints the stacks of all threads and ends the process with exit code 1:
    nothing inside a hanging operation could raise.
    """

    def __init__(self, minutes: float) -> None:
        self._minutes = minutes
        self._last = time.monotonic()
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        self.alive()
        threading.Thread(target=self._watch, daemon=True, name="watchdog").start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def alive(self) -> None:
        """Something was done."""
        self._last = time.monotonic()

    def _watch(self) -> None:
        while True:
            left = self._last + 60 * self._minutes - time.monotonic()
            if self._ended.wait(max(left, 0.1)):
                return
            if self._last + 60 * self._minutes < time.monotonic():
                print(_ADVICE.format(minutes=self._minutes), file=sys.stderr)
                faulthandler.dump_traceback(all_threads=True)
                os._exit(1)
