"""DATASETs of release 0.1, made by its own code (tests/testdata/release-0.1)."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline import preprocess, verify
from pipeline.dataset import manifest
from pipeline.dataset.manifest import ImageContract
from pipeline.options import ShardsOptions
from pipeline.system.errors import RunError
from tests.support.files import tree

FOLDERS = Path(__file__).parents[2] / "testdata" / "release-0.1"
FINISHED = FOLDERS / "finished" / "dataset"


def make(images: Path, folder: Path, **options: Any) -> None:
    settings = {"max_reject_fraction": 0.1, "workers": 1, "shards": 2, **options}
    preprocess.run(
        ShardsOptions(
            images=images,
            dataset=folder,
            contract=ImageContract(height=32, width=40, quality=50),
            **settings,
        )
    )


def test_a_finished_one_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    dataset = manifest.load(FINISHED)
    assert {name: split.examples for name, split in dataset.splits.items()} == {
        "train": 12,
        "validation": 6,
        "test": 6,
    }
    assert manifest.find_damage(dataset) is None
    verify.run(FINISHED, workers=1)
    assert "is whole: 25 images listed = 24 written + 1 rejected" in (
        capsys.readouterr().out
    )


def test_verify_still_finds_what_is_wrong(tmp_path: Path) -> None:
    """It has no digest of rejects.csv; the ledger tells."""
    folder = Path(shutil.copytree(FINISHED, tmp_path / "dataset"))
    (folder / "rejects.csv").write_text("id,split,label,reason,detail\n")
    with pytest.raises(RunError, match=r"ledger\.splits\.test\.listed is 7"):
        verify.run(folder, workers=1)


def test_an_unfinished_one_is_refused_by_name(images: Path, tmp_path: Path) -> None:
    """Whatever the photos and flags are, and nothing of it changes."""
    folder = Path(shutil.copytree(FOLDERS / "unfinished/dataset", tmp_path / "made"))
    before = tree(folder)
    with pytest.raises(
        RunError, match=r"made was begun by release 0\.1.*Finish it .*--overwrite"
    ):
        make(images, folder)
    assert tree(folder) == before
    make(images, folder, overwrite=True)
    verify.run(folder, workers=1)


def test_a_run_of_another_form_is_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="images were rejected"):
        make(images, tmp_path / "made", max_reject_fraction=0.0)
    path = tmp_path / "made" / "_work" / "run.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "form": 3}))
    with pytest.raises(RunError, match=r"was begun by another release"):
        make(images, tmp_path / "made")
