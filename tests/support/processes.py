"""Programs and their processes."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def children(pid: int) -> list[int]:
    found = subprocess.run(
        ["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in found.stdout.split()]


def wait_for_shards(folder: Path, process: subprocess.Popen[str]) -> None:
    """Waits until some shards are committed, but not all."""
    while len(list(folder.glob("_work/done/*"))) < 3:
        assert process.poll() is None
        time.sleep(0.02)


Program = Callable[..., subprocess.CompletedProcess[str]]


def descendants(pid: int) -> list[int]:
    below = children(pid)
    return below + [deeper for child in below for deeper in descendants(child)]
