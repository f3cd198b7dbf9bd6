"""Rules of the house that import-linter (`make check`) cannot say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.files import REPOSITORY

PACKAGES = ("pipeline", "trainer", "predictor", "benchmarks")
MODULES = sorted(
    path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")
)
LARGEST_FOLDER = 12


def test_one_module_defines_flags() -> None:
    """Flags are fields of options."""
    defining = {path for path in MODULES if "flags.DEFINE" in path.read_text()}
    assert defining == {REPOSITORY / "pipeline" / "system" / "command_line.py"}


def test_one_module_prints() -> None:
    """All of what a program says goes by its flags --quiet and --debug."""
    printing = {
        str(path.relative_to(REPOSITORY))
        for path in MODULES
        if re.search(r"^\s*print\(", path.read_text(), re.MULTILINE)
    }
    assert printing == {
        "pipeline/system/console.py",
        "pipeline/system/command_line.py",  # --help
        "pipeline/storage/side_files.py",  # into a log
        "pipeline/worker_pool.py",  # has no verbs
        "trainer/hang_detection.py",  # as it ends the process
    }


def test_no_folder_has_more_modules_than_a_reader_can_survey() -> None:
    folders = {path.parent for path in MODULES}
    assert len(folders) > 20
    crowded = {
        str(folder.relative_to(REPOSITORY)): count
        for folder in folders
        if (count := len({*folder.glob("*.py")} - {folder / "__init__.py"}))
        > LARGEST_FOLDER
    }
    assert crowded == {}


def test_cores_are_those_of_the_container() -> None:
    """Its quota counts, too; a benchmark pins its processes to some of them."""
    asking = {
        path
        for path in MODULES
        if re.search("sched_getaffinity|cpu_count", path.read_text())
    }
    assert asking == {
        REPOSITORY / "pipeline" / "system" / "resources.py",
        REPOSITORY / "benchmarks" / "harness.py",
    }


# What a program imports, and what must not come along (TensorFlow: 480 MB, 5 s).
LIGHT = {
    "a process that writes a shard": (
        "import pipeline.system.child_process, pipeline.shards.shard_writer",
        ("tensorflow", "keras", "apache_beam", "pandas"),
    ),
    "a Beam worker": (
        "import pipeline.beam_job, pipeline.runners.execution, "
        "pipeline.shards.shard_writer, pipeline.shards.finalize",
        ("tensorflow", "keras"),
    ),
    "a training program that parses its flags": (
        "import runpy; runpy.run_module('trainer.__main__', run_name='flags')",
        ("tensorflow", "keras", "apache_beam"),
    ),
    "a prediction that parses its flags": (
        "import runpy; runpy.run_module('predictor.__main__', run_name='flags')",
        ("tensorflow", "keras", "apache_beam"),
    ),
}


@pytest.mark.parametrize("what", LIGHT)
def test_heavy_packages_stay_out_of(what: str) -> None:
    statement, heavy = LIGHT[what]
    script = f"{statement}\nimport sys\nprint(*sorted({set(heavy)} & {{*sys.modules}}))"
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
    )
    assert result.stdout.split() == []


@pytest.mark.integration
def test_a_heavy_package_would_be_seen() -> None:
    script = "import trainer.model, sys; print('keras' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
    )
    assert result.stdout.split() == ["True"]


def test_every_folder_of_modules_is_a_package() -> None:
    """find_packages leaves out folders without __init__.py, with all that they hold."""
    missing = {
        path.parent
        for path in MODULES
        if not Path(path.parent, "__init__.py").is_file()
    }
    assert missing == set()


def test_what_docstrings_refer_to_exists() -> None:
    """A docstring says `see module.name`: both are there."""
    sources: dict[str, str] = {}
    for path in MODULES:
        sources[path.stem] = sources.get(path.stem, "") + path.read_text()
    references = {
        (path.stem, *found)
        for path in MODULES
        for found in re.findall(r"\bsee `?(\w+)\.(\w+)", path.read_text())
    }
    assert len(references) > 20
    dead = [
        f"{where}: see {module}.{name}"
        for where, module, name in sorted(references)
        if not re.search(
            rf"^\s*(?:def|class) {name}\b|^{name}\b",
            sources.get(module, ""),
            re.MULTILINE,
        )
    ]
    assert dead == []
