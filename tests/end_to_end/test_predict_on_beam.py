"""Predictions by the workers of a Beam job: its server and its workers are real."""

from pathlib import Path

import pytest

from tests.support.files import tree
from tests.support.predictions import make_model
from tests.support.processes import Program


@pytest.fixture(scope="module")
def model(tf, tmp_path_factory: pytest.TempPathFactory, made_dataset: Path) -> Path:
    """MODEL of an untrained network; not to be changed."""
    return make_model(tmp_path_factory.mktemp("made"), made_dataset, seed=1)


def words(model: Path, folder: Path, *more: object) -> list[object]:
    return ["predictor", f"--model={model}", f"--predictions={folder}", *more]


@pytest.mark.parametrize(
    "format",
    [
        ["--format=probabilities"],
        pytest.param(["--format=submission"], marks=pytest.mark.slow),
        pytest.param(["--parquet"], marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "source", ["dataset", pytest.param("images", marks=pytest.mark.slow)]
)
def test_workers_write_the_same_bytes(
    cluster: tuple[str, ...],
    model: Path,
    images: Path,
    made_dataset: Path,
    tmp_path: Path,
    program: Program,
    source: str,
    format: list[str],
) -> None:
    where = {"dataset": made_dataset, "images": images / "test"}[source]
    flags = [f"--{source}={where}", "--max_reject_fraction=1", *format]
    here = program(*words(model, tmp_path / "here", *flags, "--cpu"))
    assert here.returncode == 0, here.stderr
    there = words(model, tmp_path / "there", *flags, "--runner=PortableRunner")
    result = program(*there, "--", *cluster)
    assert result.returncode == 0, result.stderr
    assert tree(tmp_path / "there") == tree(tmp_path / "here")
    assert f"7 predicted + {int(source == 'images')} rejected" in result.stdout
    again = program(*there, "--", *cluster)
    assert "complete already" in again.stdout


def test_what_the_last_step_refuses_is_said_as_it_is_here(
    cluster: tuple[str, ...], model: Path, tmp_path: Path, program: Program
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "page.jpg").write_text("<html>not found</html>")
    flags = [f"--images={tmp_path / 'photos'}", "--runner=PortableRunner"]
    result = program(*words(model, tmp_path / "made", *flags, "--", *cluster))
    assert result.returncode == 1
    assert "error: none of the 1 images could be predicted" in result.stderr
    assert "Traceback" not in result.stderr


def test_rejects_are_held_to_the_fraction_there_too(
    cluster: tuple[str, ...],
    model: Path,
    images: Path,
    tmp_path: Path,
    program: Program,
) -> None:
    """And a rerun that allows more predicts nothing again."""
    folder = tmp_path / "made"
    flags = [f"--images={images / 'test'}", "--runner=PortableRunner"]
    result = program(*words(model, folder, *flags, "--", *cluster))
    assert result.returncode == 1
    allows = "error: 1 of 8 images were rejected (12.50%); --max_reject_fraction allows"
    assert f"{allows} 1.00%" in result.stderr
    assert "Traceback" not in result.stderr
    (part,) = folder.glob("predictions-*.csv")
    written = part.stat().st_mtime_ns
    flags.append("--max_reject_fraction=0.2")
    result = program(*words(model, folder, *flags, "--", *cluster))
    assert result.returncode == 0, result.stderr
    assert "7 predicted + 1 rejected (1 not_an_image)" in result.stdout
    assert part.stat().st_mtime_ns == written


def test_what_follows_the_dashes_is_for_another_runner(
    model: Path, made_dataset: Path, tmp_path: Path, program: Program
) -> None:
    flags = [f"--dataset={made_dataset}", "--", "--job_endpoint=localhost:1"]
    result = program(*words(model, tmp_path / "made", *flags))
    assert result.returncode == 2
    assert "nothing takes what follows `--`" in result.stderr


def test_writers_are_those_of_this_node(
    model: Path, made_dataset: Path, tmp_path: Path, program: Program
) -> None:
    flags = [f"--dataset={made_dataset}", "--runner=PortableRunner", "--writers=2"]
    result = program(*words(model, tmp_path / "made", *flags))
    assert result.returncode == 2
    assert "--writers is for --runner=local" in result.stderr
