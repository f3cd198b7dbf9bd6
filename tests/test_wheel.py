"""The wheel: what a cloud worker or a GPU node installs in place of this checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.files import REPOSITORY

pytestmark = pytest.mark.integration

PACKAGES = ("pipeline", "trainer", "predictor")
OPTIONAL = {"pipeline.runners.dask"}  # needs an extra of its own
# They need jinja2 and matplotlib, of the extra `train`.
PAGES = ("pipeline.page", "pipeline.inspection", "pipeline.inspect_dataset")
IMPORT_ALL = """
import importlib, pathlib, sys
for name in sys.stdin.read().split():
    module = importlib.import_module(name)
    assert "site-packages" in module.__file__, module.__file__
print("imported")
"""


def uv(*words: object) -> None:
    subprocess.run([Path(sys.executable).with_name("uv"), *map(str, words)], check=True)


def modules(package: str) -> list[str]:
    return [
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(
            ".__init__"
        )
        for path in sorted((REPOSITORY / package).rglob("*.py"))
        if path.name != "__main__.py"
    ]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    uv("build", "--quiet", "--wheel", "--out-dir", folder, REPOSITORY)
    (path,) = folder.glob("*.whl")
    return path


def test_it_holds_every_module_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    expected = {
        str(path.relative_to(REPOSITORY))
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*.py")
    }
    assert {name for name in names if name.endswith(".py")} == expected
    templates = {
        str(path.relative_to(REPOSITORY))
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*.j2")
    }
    assert {name for name in names if name.endswith(".j2")} == templates
    assert {f"{package}/py.typed" for package in PACKAGES} <= {*names}


def test_every_module_can_be_imported_where_only_the_wheel_is(
    wheel: Path, tmp_path: Path
) -> None:
    uv("venv", "--quiet", "--python", sys.executable, tmp_path / "clean")
    python = tmp_path / "clean" / "bin" / "python"
    constraints = REPOSITORY / "constraints.txt"

    def install_and_import(requirement: str, names: list[str]) -> None:
        uv(
            "pip",
            "install",
            "--quiet",
            "--python",
            python,
            "-c",
            constraints,
            requirement,
        )
        result = subprocess.run(
            [python, "-c", IMPORT_ALL],
            input="\n".join(name for name in names if name not in OPTIONAL),
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
            check=False,
        )
        assert result.stdout == "imported\n", result.stderr

    light = [name for name in modules("pipeline") if not name.startswith(PAGES)]
    install_and_import(str(wheel), light)
    whole = [name for package in PACKAGES for name in modules(package)]
    install_and_import(f"vgg16-at-scale[train] @ file://{wheel}", whole)
