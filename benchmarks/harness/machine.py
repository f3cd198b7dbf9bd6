"""The machine that something is measured on."""

import os
import platform
import time
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from pipeline.images import conversion
from pipeline.system import resources

_PACKAGES = ("apache-beam", "tensorflow")  # besides those that decide the bytes


def describe() -> dict[str, Any]:
    """What measured figures depend on besides the code, as JSON has it."""
    return {
        "processor": _processor(),
        "cores": resources.cores(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {**conversion.versions(), **_installed()},
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def in_words(machine: Mapping[str, Any]) -> str:
    """`describe` in one line."""
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, load {machine['load']} "
        f"before the run; Python {machine['python']}, {versions}"
    )


def in_brief(machine: Mapping[str, Any]) -> str:
    """The processor and its cores."""
    return f"{machine['processor']}, {machine['cores']} cores"


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()


def _installed() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
