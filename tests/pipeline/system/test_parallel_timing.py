"""Samples, processes in step, whole commands."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from pipeline import estimate
from pipeline.sources.listing import ImageRef
from pipeline.system import parallel_timing
from pipeline.system.errors import RunError

REFS = [ImageRef(f"{n}.jpg", f"/photos/{n}.jpg", "a", "train") for n in range(50)]
FAILING = "import sys; print('no photos', file=sys.stderr); sys.exit(3)"


def pause(seconds: float) -> Callable[[], tuple[int, float, float]]:
    """Says who worked, and from when to when."""

    def work() -> tuple[int, float, float]:
        started = time.monotonic()
        time.sleep(seconds)
        return os.getpid(), started, time.monotonic()

    return work


def kill() -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), signal.SIGKILL)


def test_a_sample_does_not_depend_on_the_order() -> None:
    chosen = estimate.sample(REFS, 10, seed=1)
    assert chosen == estimate.sample(reversed(REFS), 10, seed=1)
    assert chosen != estimate.sample(REFS, 10, seed=2)
    assert len(set(chosen)) == 10
    assert set(estimate.sample(REFS[:3], 10, seed=1)) == set(REFS[:3])


def test_processes_in_step_overlap() -> None:
    (one, other), seconds = parallel_timing.in_step(pause, [(0.2,), (0.4,)])
    assert one[0] != other[0]
    assert max(one[1], other[1]) < min(one[2], other[2])
    assert seconds == pytest.approx(max(one[2], other[2]) - min(one[1], other[1]), 0.1)


def test_a_killed_process_is_told() -> None:
    with pytest.raises(RunError, match=r"a process was killed.*fewer --workers"):
        parallel_timing.in_step(kill, [()])


def test_a_command_that_fails_is_told() -> None:
    with pytest.raises(RunError, match=r"`python -c .*` failed.* 3;.* no photos"):
        parallel_timing.command_seconds("-c", FAILING)
