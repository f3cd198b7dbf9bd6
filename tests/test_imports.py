"""The arrows between the folders, and who may import what."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY

FOLDERS = ("pipeline", "trainer", "predictor")
MODULES = [
    path for name in FOLDERS for path in sorted(Path(REPOSITORY, name).glob("*.py"))
]

# folder that imports → folder imported → modules that it may take
ALLOWED = {
    "trainer": {
        "pipeline": {
            "console",
            "fetch",
            "figures",
            "files",
            "image",
            "lock",
            "machine",
            "manifest",
            "measure",
            "objects",
            "record",
            "resources",
            "workfolder",
        }
    },
    "predictor": {
        "pipeline": {
            "audit",
            "console",
            "engine",
            "fetch",
            "figures",
            "files",
            "image",
            "ledger",
            "listing",
            "lock",
            "machine",
            "manifest",
            "objects",
            "origin",
            "pool",
            "record",
            "resources",
            "shard",
            "unlabelled",
            "watch",
            "work",
            "workfolder",
        },
        "trainer": {"dataset", "devices", "history", "model", "recipe", "stop"},
    },
    "pipeline": {},
}
PROGRAMS = {
    "bench",
    "benchmark",
    "estimate",
    "evaluate",
    "flink",
    "preprocess",
    "verify",
    "worker_pool",
    "train",
    "curves",
    "doctor",
    "export",
    "predict",
    "summary",
    "samples",
}


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Yields (top-level package, module below it or "") for every import."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "", alias.name) for alias in node.names]
        else:
            continue
        for module, name in names:
            top, _, below = module.partition(".")
            yield top, below or name


def ids(path: Path) -> str:
    return f"{path.parent.name}.{path.stem}"


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_imports_run_against_the_data(path: Path) -> None:
    allowed = ALLOWED[path.parent.name]
    for top, module in imports(path):
        if top in FOLDERS and top != path.parent.name:
            assert module in allowed.get(top, set()), f"{top}.{module}"


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_nothing_imports_upward(path: Path) -> None:
    for top, module in imports(path):
        if top == path.parent.name and path.stem != "__main__":
            assert module not in PROGRAMS | {"__main__"}


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_only_main_defines_flags(path: Path) -> None:
    defines = "flags.DEFINE" in path.read_text()
    assert defines == (path.stem == "__main__")


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_only_job_and_the_worker_pool_import_beam(path: Path) -> None:
    uses = any(top == "apache_beam" for top, _ in imports(path))
    assert uses == (ids(path) in {"pipeline.job", "pipeline.worker_pool"})


def test_the_arrows_are_seen() -> None:
    """The tests above would pass on a parser that finds no import at all."""
    found = set(imports(REPOSITORY / "predictor" / "predict.py"))
    assert {("trainer", "model"), ("pipeline", "console")} <= found


def test_a_shard_worker_imports_no_tensorflow(dataset: Path) -> None:
    """A worker imports what `job` imports, and runs `shard.write`."""
    script = """
import sys
from pathlib import Path
from pipeline import shard
from pipeline.manifest import ImageContract
from pipeline.sources import list_images

assert "pandas" not in sys.modules  # Beam takes it where it is installed
from pipeline import job

images, folder = map(Path, sys.argv[1:])
listing = list_images(images)
slices = shard.plan(listing, count=1, seed=0)
(folder / "_work" / "done").mkdir(parents=True)
for name in shard.write_plan(folder, slices, listing.classes):
    shard.write(name, str(folder), ImageContract(height=32, width=40))
    print(shard.read_note(folder, name).shard.examples)
heavy = {"tensorflow", "keras", "jax", "torch"} & set(sys.modules)
print("heavy:", sorted(heavy))
"""
    folder = dataset.parent
    (folder / "photos" / "a").mkdir(parents=True)
    (folder / "photos" / "a" / "x.png").write_bytes(_png())
    result = subprocess.run(
        [sys.executable, "-c", script, folder / "photos", folder / "made"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
    )
    assert result.stdout.split("\n")[:2] == ["1", "heavy: []"]


def _png() -> bytes:
    import io

    from PIL import Image

    encoded = io.BytesIO()
    Image.new("RGB", (50, 50), "teal").save(encoded, "PNG")
    return encoded.getvalue()
