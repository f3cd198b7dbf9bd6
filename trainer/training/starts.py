"""starts.json: when and where a run was started and resumed, for `report`.

It decides nothing: a run resumes from checkpoint/ alone.
"""

import datetime
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.storage import atomic
from pipeline.system import resources
from pipeline.system.errors import RunError

FILE = "starts.json"
_CPUS = Path("/proc/cpuinfo")


def read(folder: Path) -> dict[str, Any]:
    """Returns what `add` wrote into MODEL; {} where an earlier release trained it.

    Returns:
        `run` and `recipe` as in model.json, and `starts`, a list of what `add` takes.
    """
    path = folder / FILE
    return atomic.read_json(path) if path.is_file() else {}


def add(
    folder: Path,
    *,
    run: Mapping[str, Any],
    recipe: Mapping[str, Any],
    devices: Sequence[str],
    versions: Mapping[str, str],
    **facts: Any,
) -> None:
    """Adds a start of a run to MODEL.

    Args:
        folder: MODEL.
        run: what a run must have in common with the run that it resumes.
        recipe: all of it.
        devices: of the replicas.
        versions: of what computes.
        facts: `epoch` and `step` that are done; `dataset` and `cache` in words.
    """
    start = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "processor": _processor(),
        "cores": resources.cores(),
        "free_memory": resources.free_memory(),
        "devices": list(devices),
        "versions": dict(versions),
        **facts,
    }
    try:
        earlier = read(folder).get("starts", [])
    except RunError:  # it is damaged, which stops no run
        earlier = []
    value = {"run": run, "recipe": recipe, "starts": [*earlier, start]}
    atomic.write_json(folder / FILE, value)


def _processor() -> str:
    """Returns what the system calls the processor."""
    lines = _CPUS.read_text().splitlines() if _CPUS.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if "model name" in line)
    return next(named, platform.machine())
