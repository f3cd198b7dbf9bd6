"""Cores and memory: by affinity, by the machine, by cgroups of both versions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.system import resources
from tests.support.files import REPOSITORY

GIB = 1 << 30


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a tree of cgroup files, and puts this process into one of them."""

    def make(membership: str, files: dict[str, str]) -> None:
        for name, text in files.items():
            (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "cgroup" / name).write_text(text)
        (tmp_path / "membership").write_text(membership)
        monkeypatch.setattr(resources, "_CGROUPS", tmp_path / "cgroup")
        monkeypatch.setattr(resources, "_MEMBERSHIP", tmp_path / "membership")
        monkeypatch.setattr(resources, "_available", lambda: 64 * GIB)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))

    return make


V1 = "4:memory:/docker/ab\n1:cpu,cpuacct:/docker/ab\n0::/\n"


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {}, 16),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 16),
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "1000 100000\n"}, 1),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "2000 1000\n"}, 2),
        (
            V1,
            {
                "cpu,cpuacct/docker/ab/cpu.cfs_quota_us": "300000\n",
                "cpu,cpuacct/docker/ab/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            V1,
            {
                "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            16,
        ),
    ],
)
def test_cores(cgroups, membership: str, files: dict[str, str], expected: int) -> None:
    cgroups(membership, files)
    assert resources.cores() == expected


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {}, 64 * GIB),
        ("0::/\n", {"memory.max": "max\n", "memory.current": "5\n"}, 64 * GIB),
        (
            "0::/\n",
            {
                "memory.max": f"{8 * GIB}\n",
                "memory.current": f"{5 * GIB}\n",
                "memory.stat": f"anon 7\ninactive_file {2 * GIB}\nactive_file 9\n",
            },
            5 * GIB,
        ),
        (
            "0::/a/b\n",
            {
                "a/b/memory.max": "max\n",
                "a/b/memory.current": "5\n",
                "a/memory.max": f"{3 * GIB}\n",
                "a/memory.current": f"{GIB}\n",
            },
            2 * GIB,
        ),
        (
            V1,
            {
                "memory/docker/ab/memory.limit_in_bytes": f"{4 * GIB}\n",
                "memory/docker/ab/memory.usage_in_bytes": f"{GIB}\n",
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
                "memory/memory.usage_in_bytes": f"{GIB}\n",
            },
            3 * GIB,
        ),
        ("0::/\n", {"memory.max": "5\n", "memory.current": "9\n"}, 0),
    ],
)
def test_free_memory(
    cgroups, membership: str, files: dict[str, str], expected: int
) -> None:
    cgroups(membership, files)
    assert resources.free_memory() == expected


def test_this_machine() -> None:
    assert 1 <= resources.cores() <= (os.cpu_count() or 1)
    assert 0 < resources.free_memory() < 1 << 50


def test_affinity_counts() -> None:
    core = min(os.sched_getaffinity(0))
    script = "from pipeline.system import resources; print(resources.cores())"
    result = subprocess.run(
        ["taskset", "-c", str(core), sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
    )
    assert result.stdout == "1\n"


ARENAS = """
import ctypes, sys, threading
from pipeline.system import resources

if sys.argv[1] == "limited":
    resources.cores = lambda: 3
    resources.limit_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
barrier = threading.Barrier(12)

def work():
    libc.malloc(5000)
    barrier.wait()  # all threads live at the same time

threads = [threading.Thread(target=work) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


@pytest.mark.parametrize(
    ("words", "environment", "allowed"),
    [
        (["limited"], {}, range(2, 4)),
        (["limited"], {"MALLOC_ARENA_MAX": "5"}, range(4, 6)),
        (["as it is"], {}, range(6, 99)),
    ],
)
def test_heaps_are_limited(words, environment, allowed) -> None:
    result = subprocess.run(
        [sys.executable, "-c", ARENAS, *words],
        env={**os.environ, **environment},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.count("<heap nr=") in allowed
