"""PREDICTIONS in every format, by any number of processes; resumed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support.files import tree
from tests.support.photos import CLASSES, TEST
from tests.support.processes import Program


def read_all(folder: Path, pattern: str) -> pd.DataFrame:
    read = pd.read_parquet if pattern.endswith("parquet") else pd.read_csv
    paths = sorted(folder.glob(pattern))
    assert len(paths) == 2
    frame = pd.concat([read(path) for path in paths], ignore_index=True)
    if pattern.endswith("parquet"):
        values = np.stack(frame.pop("probabilities"))
        return frame.join(pd.DataFrame(values, columns=list(CLASSES)))
    return frame


def predicted(run, dataset: Path, folder: Path, **options: object) -> Path:
    from predictor.format.file_format import Format

    names = ("kind", "top_k", "compression", "parquet")
    format = Format(**{name: options.pop(name) for name in names if name in options})
    run(dataset, folder, format=format, **options)
    return folder


@pytest.fixture
def plain(run, made_dataset: Path, tmp_path: Path) -> pd.DataFrame:
    return read_all(predicted(run, made_dataset, tmp_path / "plain"), "*.csv")


@pytest.mark.parametrize(
    ("pattern", "options"),
    [
        ("*.csv.gz", {"compression": "gzip", "batch_size": 3}),
        ("*.csv.zst", {"compression": "zstd", "writers": 2}),
        ("*.parquet", {"parquet": True}),
    ],
)
def test_the_same_numbers_in_every_file(
    run,
    plain: pd.DataFrame,
    made_dataset: Path,
    tmp_path: Path,
    pattern: str,
    options: dict,
) -> None:
    folder = predicted(run, made_dataset, tmp_path / "predictions", **options)
    frame = read_all(folder, pattern)
    assert list(frame.columns) == list(plain.columns)
    assert list(frame.id) == list(plain.id)
    np.testing.assert_allclose(frame[list(CLASSES)], plain[list(CLASSES)], rtol=1e-5)


def ranked(plain: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Labels by their probabilities, and these."""
    values = plain[list(CLASSES)].to_numpy()
    labels = np.argsort(-values, axis=1, kind="stable")
    return labels, np.take_along_axis(values, labels, axis=1)


def test_the_best_classes(
    plain: pd.DataFrame,
    model: Path,
    made_dataset: Path,
    tmp_path: Path,
    program: Program,
) -> None:
    """By the program itself."""
    folder = tmp_path / "predictions"
    words = (f"--model={model}", f"--dataset={made_dataset}", "--cpu")
    words += (f"--predictions={folder}", "--format=top_k", "--top_k=2")
    result = program("predictor", *words, "--compression=gzip")
    assert result.returncode == 0, result.stderr
    assert f"{TEST} images = {TEST} predicted + 0 rejected" in result.stdout
    top = read_all(folder, "*.csv.gz")
    assert list(top.id) == list(plain.id)
    labels, numbers = ranked(plain)
    for rank in (0, 1):
        names = [CLASSES[label] for label in labels[:, rank]]
        assert list(top[f"class_{rank + 1}"]) == names
        np.testing.assert_allclose(
            top[f"probability_{rank + 1}"], numbers[:, rank], rtol=1e-5
        )


@pytest.mark.parametrize("sampled", [False, True])
def test_a_submission(
    run, plain: pd.DataFrame, made_dataset: Path, tmp_path: Path, sampled: bool
) -> None:
    """A sample in another order, with an id more, and one less."""
    stems = [Path(image_id).stem for image_id in plain.id]
    expected = ["unknown", *reversed(stems[1:])] if sampled else stems
    options: dict = {"kind": "submission", "compression": "gzip", "batch_size": 2}
    if sampled:
        options["sample_submission"] = tmp_path / "sample.csv"
        sample = pd.DataFrame({"id": expected, "landmarks": "1 0.5"})
        sample.to_csv(tmp_path / "sample.csv", index=False)
    folder = predicted(run, made_dataset, tmp_path / "predictions", **options)
    assert {path.name for path in folder.iterdir()} == {
        *("predictions-00000-of-00001.csv.gz", "predictions.json")
    }
    path = folder / "predictions-00000-of-00001.csv.gz"
    found = pd.read_csv(path, keep_default_na=False).set_index("id").landmarks
    assert list(found.index) == expected
    labels, numbers = ranked(plain)
    for stem, label, number in zip(stems, labels[:, 0], numbers[:, 0], strict=True):
        if stem in expected:
            name, text = found[stem].split(" ")
            assert name == CLASSES[label]
            assert float(text) == pytest.approx(number, rel=1e-5)
    assert found.get("unknown", "") == ""


@pytest.mark.parametrize("writers", [2, 3])
def test_writers_do_not_matter(
    run, made_dataset: Path, tmp_path: Path, writers: int
) -> None:
    """To a single bit; three are more than there are shards."""
    folders = [tmp_path / "one", tmp_path / "more"]
    for folder, count in zip(folders, (1, writers), strict=True):
        run(made_dataset, folder, writers=count, batch_size=2)
    assert tree(folders[1]) == tree(folders[0])


def test_more_writers_go_on_where_one_stopped(
    run, made_dataset: Path, tmp_path: Path
) -> None:
    folders = [tmp_path / "undisturbed", tmp_path / "stopped"]
    run(made_dataset, folders[0], batch_size=2)
    shutil.copytree(folders[0], folders[1])
    undo(folders[1], "predictions-00001-of-00002.csv")
    run(made_dataset, folders[1], batch_size=2, writers=3)
    assert tree(folders[1]) == tree(folders[0])


def test_a_smaller_batch_goes_on(run, made_dataset: Path, tmp_path: Path) -> None:
    """As the message asks for when the device's memory was too small."""
    folders = [tmp_path / "undisturbed", tmp_path / "stopped"]
    frame = run(made_dataset, folders[0], batch_size=4)
    shutil.copytree(folders[0], folders[1])
    undo(folders[1], "predictions-00001-of-00002.csv")
    again = run(made_dataset, folders[1], batch_size=3)
    assert list(again["id"]) == list(frame["id"])
    numbers = [found[list(CLASSES)] for found in (again, frame)]
    np.testing.assert_allclose(*numbers, rtol=1e-5)
    first = "predictions-00000-of-00002.csv"
    assert tree(folders[1])[first] == tree(folders[0])[first]


def undo(folder: Path, *names: str) -> None:
    """As a run leaves it that was killed before it came to these files."""
    value = json.loads((folder / "predictions.json").read_text())
    entries = value.pop("files")
    del value["rows"], value["ledger"]
    (folder / "_work" / "done").mkdir(parents=True)
    (folder / "_work" / "run.json").write_text(json.dumps({"form": 2, "key": value}))
    for entry in entries:
        if entry["file"] in names:
            (folder / entry["file"]).unlink()
        else:
            note = {"entry": entry, "rejects": []}
            sidecar = {"bytes": entry["bytes"], "note": note}
            path = folder / "_work" / "done" / f"{entry['file']}.json"
            path.write_text(json.dumps(sidecar))
    (folder / "predictions.json").unlink()
