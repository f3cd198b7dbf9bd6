"""What make looks at before it does anything."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.files import REPOSITORY


def make(folder: Path, *words: str, **environment: str) -> tuple[int, str]:
    result = subprocess.run(
        ["make", "-f", str(REPOSITORY / "Makefile"), *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **environment},
        check=False,
    )
    return result.returncode, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["shards"], "IMAGES"),
        (["shards", "IMAGES=x"], "DATASET"),
        (["retry"], "DATASET"),
        (["plan"], "IMAGES"),
        (["verify"], "DATASET"),
        (["inspect"], "DATASET"),
        (["train", "DATASET=x"], "MODEL"),
        (["curves"], "MODEL"),
        (["report"], "MODEL"),
        (["export"], "MODEL"),
        (["predict", "MODEL=x", "PREDICTIONS=y"], "DATASET"),
        (["predict", "MODEL=x", "IMAGES=y"], "PREDICTIONS"),
        (["cluster-up"], "ENGINE"),
        (["cluster-down"], "ENGINE"),
    ],
)
def test_a_missing_variable_is_named_before_anything_is_installed(
    tmp_path: Path, words: list[str], missing: str
) -> None:
    code, said = make(tmp_path, *words)
    assert code == 2
    assert f"{missing} is missing: make {words[0]} {missing}=…; see `make help`" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["verify", "PREDICTIONS=x"],
        ["predict", "MODEL=x", "PREDICTIONS=y", "IMAGES=z"],
        ["evaluate"],
    ],
)
def test_what_may_be_missing(tmp_path: Path, words: list[str]) -> None:
    assert "is missing: make" not in make(tmp_path, "-n", *words)[1]


def test_an_engine_that_there_is_not(tmp_path: Path) -> None:
    code, said = make(tmp_path, "test-clusters", "ENGINE=samza")
    assert code == 2
    assert "ENGINE=samza: there are dask, flink, spark and prism" in said
    for engine in ("ENGINE=spark", "ENGINE="):
        assert "there are dask" not in make(tmp_path, "-n", "test-clusters", engine)[1]


def test_help_does_not_wait_for_a_driver(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\n")
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert make(tmp_path, "help", PATH=path)[0] == 0
    assert make(tmp_path, PATH=path)[0] == 0
    assert not (tmp_path / "asked").exists()
    make(tmp_path, "-n", "install", PATH=path)
    assert (tmp_path / "asked").exists()
