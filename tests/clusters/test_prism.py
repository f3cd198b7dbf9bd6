"""Prism, Beam's own runner in Go, as a real server."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.support.engines import downloads
from tests.support.files import tree
from tests.support.photos import HEIGHT, WIDTH, jpeg, photo
from tests.support.processes import Program

FLAGS = (f"--height={HEIGHT}", f"--width={WIDTH}", "--max_reject_fraction=0.5")

DEFECT = """
import os, signal, time
import simplejpeg

sound = simplejpeg.decode_jpeg

def decode_jpeg(data, *args, **kwargs):
    if b"CRASH-ME" in data:
        time.sleep(4)
        os.kill(os.getpid(), signal.SIGSEGV)
    return sound(data, *args, **kwargs)

simplejpeg.decode_jpeg = decode_jpeg
"""


@pytest.fixture(scope="module")
def prism() -> str:
    """The program, which is built first where it is not there."""
    return str(downloads.prism())


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """IMAGES with one photo that stops its decoder for a while, and then crashes it."""
    folder = tmp_path / "images" / "train" / "a"
    folder.mkdir(parents=True)
    for index in range(10):
        (folder / f"{index}.jpg").write_bytes(jpeg(photo(0, index)))
    with (folder / "3.jpg").open("ab") as file:
        file.write(b"CRASH-ME")
    (tmp_path / "defect").mkdir()
    (tmp_path / "defect" / "sitecustomize.py").write_text(DEFECT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "defect"))
    return folder.parent.parent


def words(images: Path, dataset: Path, *options: str) -> tuple[object, ...]:
    ours = (f"--images={images}", f"--dataset={dataset}", *FLAGS, "--shards=2")
    return "pipeline", "shards", *ours, "--runner=PrismRunner", "--", *options


def servers() -> set[str]:
    """The processes that are a prism."""
    return {
        entry.name
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _program(entry).name.startswith("prism")
    }


def _program(process: Path) -> Path:
    try:
        return (process / "exe").readlink()
    except OSError:  # it has ended, or is not ours
        return Path()


def test_it_writes_the_same_bytes(
    prism: str, images: Path, made_dataset: Path, tmp_path: Path, program: Program
) -> None:
    before = servers()
    made = tmp_path / "made"
    result = program(*words(images, made, f"--prism_location={prism}"))
    assert result.returncode == 0, result.stderr
    assert "42 images listed = 40 written + 2 rejected" in result.stdout
    assert tree(made) == tree(made_dataset)
    assert servers() == before


def test_a_job_may_take_longer_than_any_answer_of_the_server(
    prism: str, faulty: Path, tmp_path: Path, program: Program
) -> None:
    """Beam would end the run after --job_server_timeout, 300 seconds by default."""
    there = (f"--prism_location={prism}", "--job_server_timeout=2")
    result = program(*words(faulty, tmp_path / "made", *there))
    assert result.returncode == 1
    assert "Deadline Exceeded" in result.stderr or "DEADLINE" in result.stderr
    result = program(*words(faulty, tmp_path / "made", there[0]))
    assert result.returncode == 0, result.stderr


def test_a_crash_costs_one_image(
    prism: str, faulty: Path, tmp_path: Path, program: Program
) -> None:
    made = tmp_path / "made"
    result = program(*words(faulty, made, f"--prism_location={prism}"))
    assert result.returncode == 0, result.stderr
    rejects = pd.read_csv(made / "rejects.csv").set_index("id")
    assert rejects.reason.to_dict() == {"a/3.jpg": "decoder_crash"}
    splits = json.loads((made / "dataset.json").read_text())["splits"]
    assert splits["train"]["examples"] == 9
