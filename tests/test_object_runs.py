"""Whole programs on object stores: IMAGES, DATASET and PREDICTIONS in s3:// and gs://."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import HEIGHT, REPOSITORY, WIDTH, Program, tree

from pipeline import objects
from pipeline.objects import ObjectPath

SIZE = (f"--height={HEIGHT}", f"--width={WIDTH}", "--shards=2")
SHARDS = (*SIZE, "--max_reject_fraction=0.1", "--workers=2")


def put_tree(folder: Path, target: ObjectPath) -> ObjectPath:
    """Copies a folder to a store."""

    def put(path: Path) -> None:
        (target / str(path.relative_to(folder))).upload(path)

    objects.at_once(target, put, [p for p in folder.rglob("*") if p.is_file()])
    return target


def get_tree(source: ObjectPath, folder: Path) -> Path:
    """Copies what is below a prefix to a folder."""
    for path in source.walk_files():
        target = folder / str(path).removeprefix(f"{source}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return folder


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A current folder of one's own, where logs of remote datasets go."""
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


@pytest.fixture
def run(program: Program, here: Path, tmp_path: Path) -> Program:
    """Runs a program as a user would, whose temporary files are seen."""
    (tmp_path / "tmp").mkdir()

    def run(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *map(str, words)],
            capture_output=True,
            text=True,
            cwd=here,
            env=os.environ
            | {"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path / "tmp")}
            | environment,
            timeout=300,
            check=False,
        )

    return run


@pytest.mark.slow
def test_the_whole_job_in_a_store(
    images: Path, made_dataset: Path, bucket: ObjectPath, run: Program, tmp_path: Path
) -> None:
    remote = put_tree(images, bucket / "images")
    dataset, predictions = bucket / "made" / "dataset", bucket / "predictions"
    model = tmp_path / "model"
    result = run("pipeline", f"--images={remote}", f"--dataset={dataset}", *SHARDS)
    assert result.returncode == 0, result.stderr
    assert tree(get_tree(dataset, tmp_path / "copy")) == tree(made_dataset)
    assert (tmp_path / "here" / "dataset.log").is_file()
    again = run("pipeline", f"--images={images}", f"--dataset={dataset}", *SHARDS)
    assert "is complete already" in again.stdout
    result = run("pipeline", "verify", f"--dataset={dataset}")
    assert result.returncode == 0, result.stderr

    result = run(
        *("trainer", f"--dataset={dataset}", f"--model={model}", "--recipe=demo"),
        *("--weights=none", "--epochs=1", "--batch_size=8", "--cache=none"),
    )
    assert result.returncode == 0, result.stderr
    assert "shards are fetched to" in result.stdout
    for out in (predictions, tmp_path / "predictions"):
        source = dataset if out is predictions else made_dataset
        result = run(
            *("predictor", f"--model={model}", f"--dataset={source}"),
            *(f"--predictions={out}", "--batch_size=4"),
        )
        assert result.returncode == 0, result.stderr
    copy = get_tree(predictions, tmp_path / "predicted")
    assert tree(copy) == tree(tmp_path / "predictions")
    result = run(
        *("predictor", "verify", f"--predictions={predictions}"),
        *(f"--dataset={dataset}", f"--model={model}"),
    )
    assert result.returncode == 0, result.stderr
    result = run(
        *("predictor", "evaluate", f"--model={model}", f"--dataset={dataset}"),
        *("--split=validation", f"--evaluation={tmp_path / 'evaluation'}"),
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_a_killed_run_goes_on(
    images: Path,
    made_dataset: Path,
    bucket: ObjectPath,
    here: Path,
    run: Program,
    tmp_path: Path,
) -> None:
    dataset = bucket / "dataset"
    words = ["pipeline", f"--images={images}", f"--dataset={dataset}", *SHARDS]
    words[-1:] = ["--workers=1"]
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=here,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not list((dataset / "_work" / "done").iterdir()):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {path.name for path in (dataset / "_work" / "done").iterdir()}
    assert not (dataset / "dataset.json").exists()
    result = run(*words)
    assert result.returncode == 0, result.stderr
    assert f"going on: {len(done)} of 6 shards are committed" in result.stdout
    assert tree(get_tree(dataset, tmp_path / "copy")) == tree(made_dataset)


@pytest.mark.slow
def test_photos_of_a_store_are_predicted(
    images: Path, bucket: ObjectPath, run: Program, trained: Path, tmp_path: Path
) -> None:
    remote = put_tree(images / "test", bucket / "photos")
    for source, out in (
        (remote, bucket / "predictions"),
        (images / "test", tmp_path / "predictions"),
    ):
        result = run(
            *("predictor", f"--model={trained}", f"--images={source}"),
            *(f"--predictions={out}", "--batch_size=4"),
        )
        assert result.returncode == 0, result.stderr
    copy = get_tree(bucket / "predictions", tmp_path / "copy")
    assert tree(copy) == tree(tmp_path / "predictions")
