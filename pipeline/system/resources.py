"""The cores and the memory that this process may use, in a container or out of it."""

import contextlib
import ctypes
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_LIMITS = (  # of cgroup v2 and v1
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)
_M_ARENA_MAX = -8  # of glibc's malloc.h
_UNLIMITED = 1 << 62  # cgroup v1 says "no limit" by a number about this large


def cores() -> int:
    """Cores by affinity and by the CPU quota of every cgroup around this process."""
    allowed = len(os.sched_getaffinity(0))
    quotas = [math.ceil(quota) for quota in _quotas()]
    return max(1, min([allowed, *quotas]))


def free_memory() -> int:
    """Bytes that can still be taken: of the machine, or of a cgroup if that is less.

    Page cache counts as free, as it does in the kernel's own MemAvailable.
    """
    return max(0, min([_available(), *_left()]))


def free_disk(folder: Path) -> int:
    """Bytes, where a folder is or would be made."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def limit_arenas() -> None:
    """Has glibc keep as many heaps as there are cores, instead of eight times as many.

    What threads allocate in one and free in another stays scattered over all of them:
    feeding 50 epochs took 1.8 GB and went on growing; so it takes 1.0 GB from the tenth
    epoch on. To be called before threads are started; MALLOC_ARENA_MAX goes first.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, cores())


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    raise OSError("/proc/meminfo has no MemAvailable")


def _quotas() -> Iterator[float]:
    """Cores by each CPU quota (cgroup v2: cpu.max; v1: cpu.cfs_quota_us)."""
    for folder in _folders("cpu"):
        words = _words(folder / "cpu.max")
        if not words:
            quota, period = (
                _words(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")
            )
            words = [*quota, *period]
        if len(words) == 2 and words[0].isdigit():  # else "max", or -1
            yield int(words[0]) / int(words[1])


def _left() -> Iterator[int]:
    """Bytes below each memory limit; file pages that can be dropped count as free."""
    for folder in _folders("memory"):
        for limit_name, usage_name in _LIMITS:
            limit, usage = _words(folder / limit_name), _words(folder / usage_name)
            if usage and limit[0].isdigit() and int(limit[0]) < _UNLIMITED:
                yield int(limit[0]) - int(usage[0]) + _droppable(folder)


def _droppable(folder: Path) -> int:
    """Bytes of files in memory that nothing has used for a while."""
    words = _words(folder / "memory.stat")
    counts = dict(zip(words[::2], words[1::2], strict=False))
    return int(counts.get("total_inactive_file", counts.get("inactive_file", 0)))


def _folders(controller: str) -> Iterator[Path]:
    """The folders of the cgroups around this process, from the inside outwards.

    In a container with a namespace of its own the path is `/`; without one it may
    name a folder that is not mounted, and then its root is what counts.
    """
    for line in _MEMBERSHIP.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _CGROUPS / controllers if controllers else _CGROUPS
        inner = root / path.lstrip("/")
        yield from (f for f in (inner, *inner.parents) if f.is_relative_to(root))


def _words(path: Path) -> list[str]:
    """The words of a small file; none where it cannot be read."""
    try:
        return path.read_text().split()
    except OSError:
        return []
