"""MODEL + DATASET → PREDICTIONS: complete, once each, resumed, refused."""

import itertools
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset import manifest
from pipeline.system.errors import RunError
from tests.support.photos import CLASSES, TEST
from tests.support.predictions import make_model
from tests.support.processes import Program


@pytest.fixture(scope="module")
def model(tf, tmp_path_factory: pytest.TempPathFactory, made_dataset: Path) -> Path:
    """MODEL of an untrained network; not to be changed."""
    return make_model(tmp_path_factory.mktemp("made"), made_dataset, seed=1)


def test_every_row_once(run, made_dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "predictions"
    frame = run(made_dataset, folder)
    assert list(frame.columns) == ["id", *CLASSES]
    assert sorted(frame.id) == [f"photo {index}.jpg" for index in range(TEST)]
    np.testing.assert_allclose(frame.iloc[:, 1:].sum(axis="columns"), 1, atol=1e-5)
    names = {f"predictions-0000{index}-of-00002.csv" for index in range(2)}
    assert {path.name for path in folder.iterdir()} == names | {"predictions.json"}
    value = json.loads((folder / "predictions.json").read_text())
    assert value["rows"] == TEST
    ledger = {"examples": TEST, "predicted": TEST, "rejected": 0}
    assert value["ledger"] == ledger
    assert [entry["rows"] for entry in value["files"]] == [3, 4]
    assert value["dataset"] == manifest.load(made_dataset).fingerprint


@pytest.mark.parametrize(("batch_size", "replicas"), [(2, 1), (1, 2), (3, 2), (64, 2)])
def test_batches_and_replicas_do_not_matter(
    run, made_dataset: Path, tmp_path: Path, batch_size: int, replicas: int
) -> None:
    expected = run(made_dataset, tmp_path / "expected")
    options = {"batch_size": batch_size, "virtual_devices": replicas}
    frame = run(made_dataset, tmp_path / "predictions", **options)
    assert list(frame.id) == list(expected.id)
    np.testing.assert_allclose(
        frame.iloc[:, 1:], expected.iloc[:, 1:], rtol=1e-5, atol=1e-7
    )


def test_a_rerun_makes_only_what_is_missing(
    run, made_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle of the second shard."""
    from predictor.forward_pass import ForwardPass

    undisturbed, folder = tmp_path / "undisturbed", tmp_path / "predictions"
    run(made_dataset, undisturbed, batch_size=2)
    real = ForwardPass.stream
    first = folder / "predictions-00000-of-00002.csv"

    def interrupted(self, batches):
        yield from itertools.islice(real(self, batches), 3)
        while not (folder / "_work" / "done" / f"{first.name}.json").is_file():
            time.sleep(0.01)  # a writer is at it
        raise KeyboardInterrupt

    monkeypatch.setattr(ForwardPass, "stream", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(made_dataset, folder, batch_size=2)
    monkeypatch.undo()
    assert {path.name for path in folder.iterdir()} == {"_work", first.name}
    written = first.stat().st_mtime_ns
    run(made_dataset, folder, batch_size=2)
    assert first.stat().st_mtime_ns == written
    for path in undisturbed.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()
    assert len(list(folder.iterdir())) == 3


def test_a_second_run_does_nothing(
    run, made_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(made_dataset, tmp_path / "predictions")
    capsys.readouterr()
    run(made_dataset, tmp_path / "predictions")
    assert "complete already" in capsys.readouterr().out


def test_a_finished_folder_that_lost_a_file_is_not_complete(
    run, made_dataset: Path, tmp_path: Path
) -> None:
    run(made_dataset, tmp_path / "predictions")
    (tmp_path / "predictions" / "predictions-00001-of-00002.csv").unlink()
    with pytest.raises(RunError, match=r"predictions-00001-of-00002\.csv is missing"):
        run(made_dataset, tmp_path / "predictions")


@pytest.mark.parametrize("finished", [True, False])
def test_predictions_of_another_model_are_refused(
    run, made_dataset: Path, tmp_path: Path, finished: bool
) -> None:
    folder = tmp_path / "predictions"
    run(made_dataset, folder)
    if not finished:
        value = json.loads((folder / "predictions.json").read_text())
        key = {
            name: each
            for name, each in value.items()
            if name not in ("files", "rows", "ledger")
        }
        (folder / "_work" / "done").mkdir(parents=True)
        begun = {"form": 2, "key": key}
        (folder / "_work" / "run.json").write_text(json.dumps(begun))
        (folder / "predictions.json").unlink()
    before = {path.name: path.read_bytes() for path in folder.glob("*.csv")}
    other = make_model(tmp_path, made_dataset, seed=2)
    with pytest.raises(
        RunError, match=r"another run: model is \w{64} there and \w{64}"
    ):
        run(made_dataset, folder, model=other)
    assert {path.name: path.read_bytes() for path in folder.glob("*.csv")} == before


def test_a_missing_split_is_refused(run, dataset: Path, tmp_path: Path) -> None:
    value = json.loads((dataset / "dataset.json").read_text())
    del value["splits"]["test"]
    (dataset / "dataset.json").write_text(json.dumps(value))
    with pytest.raises(RunError, match="no split 'test'; it has train, validation"):
        run(dataset, tmp_path / "predictions")


def test_another_image_size_is_refused(run, dataset: Path, tmp_path: Path) -> None:
    value = json.loads((dataset / "dataset.json").read_text())
    value["image"]["height"] = 48
    (dataset / "dataset.json").write_text(json.dumps(value))
    with pytest.raises(RunError, match=r"image\.height is 48 there and 32 here"):
        run(dataset, tmp_path / "predictions")
    assert not (tmp_path / "predictions").exists()


def test_a_damaged_shard_is_named(run, dataset: Path, tmp_path: Path) -> None:
    path = dataset / manifest.shard_name("test", 1, 2)
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match=f"{path.name} is damaged"):
        run(dataset, tmp_path / "predictions")
    assert not (tmp_path / "predictions" / "predictions-00001-of-00002.csv").exists()


def test_a_model_that_is_not_finished_is_refused(
    run, model: Path, made_dataset: Path, tmp_path: Path
) -> None:
    half = Path(shutil.copytree(model, tmp_path / "half"))
    (half / "model.json").unlink()
    with pytest.raises(RunError, match=r"is incomplete: it has no model\.json"):
        run(made_dataset, tmp_path / "predictions", model=half)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--model=x", "--dataset=y"], 2, "missing --predictions"),
        (["--model=x", "--dataset=y", "--predictions=z", "--split=x"], 2, "train"),
        (["--model=x", "--dataset=y", "--predictions=z"], 1, "MODEL x does not exist"),
    ],
)
def test_exit_codes(
    words: list[str], code: int, message: str, program: Program
) -> None:
    result = program("predictor", *words)
    assert result.returncode == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
