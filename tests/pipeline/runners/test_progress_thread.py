"""The thread that shows the progress of a job elsewhere."""

import threading
from typing import Any

import pytest

from pipeline.runners import remote
from pipeline.system.errors import RunError


class Watch:
    """Meets a damaged sidecar at its first look."""

    look_seconds = 0.0

    def __init__(self) -> None:
        self.looks, self.second = 0, threading.Event()

    def look(self) -> None:
        self.looks += 1
        if self.looks == 1:
            raise RunError("a sidecar is damaged")
        self.second.set()


def test_a_damaged_sidecar_does_not_end_the_progress(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote, "_LOOK_SECONDS", 0.01)
    watch: Any = Watch()
    with remote._ProgressThread(watch, 1e9, lambda: None):
        assert watch.second.wait(60)
