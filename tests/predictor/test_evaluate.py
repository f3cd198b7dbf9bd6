"""Evaluations: of a model and of its predictions, and what cannot be evaluated."""

import csv
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.dataset import manifest
from pipeline.system.errors import RunError, UsageError
from predictor import evaluate
from predictor.format import predictions_manifest
from predictor.format.file_format import Format
from predictor.inputs import inputs
from tests.support import predictions
from tests.support.photos import CLASSES, PER_CLASS, TEST

FILES = {
    *("evaluation.json", "evaluation.html"),
    *("classes.csv", "confusions.csv", "mistakes.csv"),
}
ODD = ("a,b", 'c"d', "<b>&amp;</b>", "two\nlines", "برج")


def write_predictions(
    folder: Path,
    ids: Sequence[str],
    probabilities: np.ndarray,
    *,
    classes: Sequence[str] = CLASSES,
    form: Format | None = None,
    **value: Any,
) -> Path:
    """PREDICTIONS of two files, of the rows that are given."""
    half, values = len(ids) // 2, probabilities.astype(np.float32)
    parts = [(ids[part], values[part]) for part in (slice(half), slice(half, None))]
    value = {"model": "m", "dataset": None, "images": "i", **value}
    return predictions.write_predictions(
        folder, form or Format(), classes, parts, **value
    )


def write_labels(path: Path, rows: Sequence[tuple[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "label"), *rows])
    return path


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Evaluates into a new folder; returns evaluation.json."""

    def run(**given: Any) -> dict[str, Any]:
        output = given.pop("output", tmp_path / "evaluation")
        nothing = dict.fromkeys(("dataset", "model", "predictions", "labels"))
        evaluate.run(output, **{"split": "validation", **nothing, **given}, cpu=True)
        return json.loads((output / "evaluation.json").read_text())

    return run


@pytest.fixture(scope="module")
def model(tf, tmp_path_factory: pytest.TempPathFactory, made_dataset: Path) -> Path:
    """MODEL of an untrained network; not to be changed."""
    parent = tmp_path_factory.mktemp("made")
    return predictions.make_model(parent, made_dataset, seed=1)


@pytest.fixture(scope="module")
def of_model(
    tf, model: Path, made_dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An evaluation of MODEL on the validation split; not to be changed."""
    folder = tmp_path_factory.mktemp("made") / "evaluation"
    evaluate.run(
        folder,
        dataset=made_dataset,
        model=model,
        split="validation",
        predictions=None,
        labels=None,
        batch_size=4,
        cpu=True,
    )
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """PREDICTIONS of five images: a, b and c right, d and e wrong."""
    rows = [
        [0.8, 0.1, 0.1],
        [0.1, 0.7, 0.2],
        [0, 0.4, 0.6],
        [0.9, 0, 0.1],
        [0.5, 0.3, 0.2],
    ]
    return write_predictions(tmp_path / "small", list("abcde"), np.array(rows))


SMALL_LABELS = [
    ("a", "blue"),
    ("b", "green"),
    ("c", "red"),
    ("d", "red"),
    ("e", "green"),
]


@pytest.mark.parametrize(
    "form",
    [
        Format(),
        Format(compression="zstd"),
        Format(compression="gzip", kind="top_k", top_k=3),
        Format(parquet=True),
    ],
    ids=lambda form: f"{form.kind}{form.extension}",
)
def test_a_model_and_its_predictions_are_the_same(
    run: Run,
    model: Path,
    made_dataset: Path,
    of_model: Path,
    tmp_path: Path,
    form: Format,
) -> None:
    from predictor import predict
    from predictor.options import PredictionRequest, PredictOptions

    folder = tmp_path / "predictions"
    source = {"dataset": made_dataset, "split": "validation"}
    order = PredictionRequest(model=model, folder=folder, format=form, **source)
    predict.run(PredictOptions(request=order, batch_size=4, cpu=True))
    found = run(dataset=made_dataset, predictions=folder)
    expected = json.loads((of_model / "evaluation.json").read_text())
    for value in (found, expected):
        assert value.pop("source")["split"] == "validation"
    assert found == expected
    for name in ("classes.csv", "confusions.csv", "mistakes.csv"):
        made = (tmp_path / "evaluation" / name).read_bytes()
        assert made == (of_model / name).read_bytes()


def test_what_the_model_says_is_what_counts(
    model: Path, made_dataset: Path, of_model: Path
) -> None:
    """Judged by Keras alone, on the images of the records."""
    import keras

    from trainer.data import input_pipeline as data

    dataset = manifest.load(made_dataset)
    shards = dataset.split("validation").shards
    batches = data.for_inference(dataset, shards, batch_size=100)
    ((_, images, labels),) = batches.as_numpy_iterator()
    network = keras.models.load_model(model / "model.keras")
    losses = network.predict(images, verbose=0)
    value = json.loads((of_model / "evaluation.json").read_text())
    right = losses.argmax(axis=1) == labels
    assert value["metrics"]["top_1"] == right.mean()
    loss = keras.losses.sparse_categorical_crossentropy(labels, losses)
    assert value["metrics"]["log_loss"] == pytest.approx(
        float(loss.numpy().mean()), 1e-4
    )
    assert value["images"]["labelled"] == PER_CLASS["validation"] * len(CLASSES)
    assert value["source"]["dataset"] == dataset.fingerprint
    assert value["by_frequency"]["of"] == "train images"
    (bucket,) = value["by_frequency"]["buckets"]
    assert (bucket["least"], bucket["most"], bucket["classes"]) == (6, 20, 3)
    frame = pd.read_csv(of_model / "classes.csv", dtype={"class": str})
    assert list(frame["train_images"]) == [PER_CLASS["train"]] * 3
    assert frame["true_positives"].sum() == right.sum()


def test_the_folder_has_these_files_and_no_others(of_model: Path) -> None:
    assert {path.name for path in of_model.iterdir()} == FILES


def test_batches_and_replicas_do_not_matter(
    run: Run, model: Path, made_dataset: Path, of_model: Path, tmp_path: Path
) -> None:
    found = run(dataset=made_dataset, model=model, batch_size=5, virtual_devices=2)
    expected = json.loads((of_model / "evaluation.json").read_text())
    for name, value in expected["metrics"].items():
        assert found["metrics"][name] == pytest.approx(value, rel=1e-4)
    assert found["images"] == expected["images"]


def test_the_same_again_is_the_same_bytes(
    run: Run, small: Path, tmp_path: Path
) -> None:
    labels = write_labels(tmp_path / "labels.csv", SMALL_LABELS)
    made = []
    for _ in range(2):
        run(predictions=small, labels=labels)
        folder = tmp_path / "evaluation"
        made.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert made[0] == made[1]
    assert made[0].keys() == FILES


def test_by_hand(run: Run, small: Path, tmp_path: Path) -> None:
    """By confidence: d wrong, a right, b right, c right, e wrong."""
    labels = write_labels(tmp_path / "labels.csv", SMALL_LABELS)
    value = run(predictions=small, labels=labels)
    expected = {
        "top_1": 3 / 5,
        "top_5": 1,
        "gap": (1 / 2 + 2 / 3 + 3 / 4) / 5,
        "log_loss": -np.log([0.8, 0.7, 0.6, 0.1, 0.3]).mean(),
        "macro_precision": (1 / 3 + 1 + 1) / 3,
        "macro_recall": (1 + 1 / 2 + 1 / 2) / 3,
        "macro_f1": (2 / 4 + 2 / 3 + 2 / 3) / 3,
        "balanced_accuracy": (1 + 1 / 2 + 1 / 2) / 3,
        "calibration_error": (0.9 + 0.2 + 0.3 + 0.4 + 0.5) / 5,
        "commonest_class": 2 / 5,
    }
    assert value["metrics"] == pytest.approx(expected, rel=1e-6)
    assert value["by_frequency"]["of"] == "evaluated images"
    assert value["classes"] == {
        "count": 3,
        "with_images": 3,
        "never_predicted": 0,
        "never_predicted_with_images": 0,
    }
    folder = tmp_path / "evaluation"
    assert (folder / "classes.csv").read_text().splitlines()[1] == (
        "blue,,1,3,1,0.3333333333333333,1.0,0.5"
    )
    assert (folder / "confusions.csv").read_text() == (
        "label,predicted,count,share\ngreen,blue,1,0.5\nred,blue,1,0.5\n"
    )
    assert (folder / "mistakes.csv").read_text() == (
        "id,label,predicted,probability,probability_of_label\n"
        "d,red,blue,0.9,0.1\ne,green,blue,0.5,0.3\n"
    )


def test_distractors_count_in_gap_alone(run: Run, small: Path, tmp_path: Path) -> None:
    """d is none: what comes behind it has a lower precision, and that is all."""
    rows = [row for row in SMALL_LABELS if row[0] != "d"]
    without = run(
        predictions=small,
        labels=write_labels(tmp_path / "without.csv", rows),
        output=tmp_path / "without",
    )
    labels = write_labels(tmp_path / "labels.csv", [*rows, ("d", "")])
    value = run(predictions=small, labels=labels)
    assert without["metrics"].pop("gap") == pytest.approx(3 / 4)
    gap = value["metrics"].pop("gap")
    assert gap == pytest.approx((1 / 2 + 2 / 3 + 3 / 4) / 4)
    assert value["metrics"] == without["metrics"]
    assert value["images"]["distractors"] == 1
    assert without["images"]["without_label"] == 1
    assert without["first_without_label"] == ["d"]


def test_a_label_without_prediction_is_a_miss(
    run: Run, small: Path, tmp_path: Path
) -> None:
    rows = [*SMALL_LABELS, ("lost", "red"), ("gone", "red")]
    value = run(predictions=small, labels=write_labels(tmp_path / "x.csv", rows))
    assert value["images"]["without_prediction"] == 2
    assert value["first_without_prediction"] == ["gone", "lost"]
    assert value["metrics"]["top_1"] == 3 / 7
    assert value["metrics"]["top_5"] == 5 / 7
    assert value["metrics"]["gap"] == pytest.approx((1 / 2 + 2 / 3 + 3 / 4) / 7)
    frame = pd.read_csv(tmp_path / "evaluation" / "classes.csv", index_col="class")
    assert frame.loc["red", "images"] == 4
    assert frame.loc["red", "recall"] == 1 / 4
    page = (tmp_path / "evaluation" / "evaluation.html").read_text()
    assert "2 labelled images have no prediction, and count as wrong" in page


def test_a_class_that_the_model_has_not(run: Run, small: Path, tmp_path: Path) -> None:
    rows = [*SMALL_LABELS[:4], ("e", "violet")]
    value = run(predictions=small, labels=write_labels(tmp_path / "x.csv", rows))
    assert value["images"]["unknown_class"] == 1
    assert value["metrics"]["top_5"] == 4 / 5
    expected = -np.log([0.8, 0.7, 0.6, 0.1, 1e-7]).mean()
    assert value["metrics"]["log_loss"] == pytest.approx(expected, rel=1e-6)
    # No image of a class of training: e is no part of M.
    assert value["metrics"]["gap"] == pytest.approx((1 / 2 + 2 / 3 + 3 / 4) / 4)


def test_several_labels_as_kaggle_gives_them(
    run: Run, small: Path, tmp_path: Path
) -> None:
    """`landmarks` with blanks between them; the one that is ranked best counts."""
    path = tmp_path / "solution.csv"
    text = "id,landmarks,Usage\na,red blue,Public\nd,green red,Private\nc,,Public\n"
    path.write_text(text)
    value = run(predictions=small, labels=path)
    assert value["metrics"]["top_1"] == 1 / 2
    assert value["images"]["distractors"] == 1
    mistakes = pd.read_csv(tmp_path / "evaluation" / "mistakes.csv")
    assert mistakes.loc[0, ["id", "label"]].tolist() == ["d", "red"]


@pytest.mark.parametrize(("k", "known"), [(1, False), (2, False), (3, True)])
def test_what_the_best_classes_do_not_tell_is_null(
    run: Run, tmp_path: Path, k: int, known: bool
) -> None:
    """Seven classes, of which the label is always the third best."""
    rows = np.tile([0.3, 0.2, 0.15, 0.1, 0.1, 0.1, 0.05], (4, 1))
    names = [f"class {number}" for number in range(7)]
    form = Format(kind="top_k", top_k=k)
    folder = write_predictions(
        tmp_path / "p", list("abcd"), rows, classes=names, form=form
    )
    rows_ = [(x, "class 2") for x in "abc"] + [("d", "class 0")]
    value = run(predictions=folder, labels=write_labels(tmp_path / "x.csv", rows_))
    assert value["metrics"]["top_1"] == 1 / 4
    assert value["metrics"]["top_5"] == (1 if known else None)
    assert (value["metrics"]["log_loss"] is not None) == known
    assert value["metrics"]["calibration_error"] is not None
    assert value["images"]["unknown_class"] is None
    page = (tmp_path / "evaluation" / "evaluation.html").read_text()
    assert ("not known" in page) == (not known)


def test_a_submission_and_stems(run: Run, tmp_path: Path) -> None:
    """Kaggle's labels know no folders and no extensions."""
    rows = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    labels = write_labels(tmp_path / "x.csv", [("a1", "blue"), ("b2", "red")])
    deep = write_predictions(tmp_path / "deep", ["0/a1.jpg", "b/2/b2.jpg"], rows)
    form = Format(kind="submission")
    flat = write_predictions(tmp_path / "flat", ["a1", "b2"], rows, form=form)
    for folder in (deep, flat):
        value = run(predictions=folder, labels=labels)
        assert value["metrics"]["top_1"] == 1 / 2
        assert value["metrics"]["gap"] == pytest.approx(1 / 2)
    mistakes = pd.read_csv(tmp_path / "evaluation" / "mistakes.csv")
    assert mistakes["probability_of_label"].isna().all()


def test_a_dot_in_an_id_begins_no_extension(run: Run, tmp_path: Path) -> None:
    """22.05 is not 22, which is another image."""
    rows = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    folder = write_predictions(tmp_path / "p", ["a/22.05", "b/31.07.JPG"], rows)
    labels = [("22", "red"), ("31", "red"), ("31.07", "green")]
    found = run(predictions=folder, labels=write_labels(tmp_path / "x.csv", labels))
    assert found["images"]["without_label"] == 1
    assert found["images"]["without_prediction"] == 2
    assert found["metrics"]["top_1"] == 1 / 3


def test_an_empty_row_of_a_submission_is_no_prediction(
    run: Run, small: Path, tmp_path: Path
) -> None:
    form = Format(kind="submission")
    rows = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    folder = write_predictions(tmp_path / "p", ["a1", "b2"], rows, form=form)
    path = folder / predictions_manifest.shard_name(1, 2)
    path.write_text("id,landmarks\nb2,\n")
    value = json.loads((folder / predictions_manifest.MANIFEST).read_text())
    value["files"][1]["bytes"] = path.stat().st_size
    (folder / predictions_manifest.MANIFEST).write_text(json.dumps(value))
    labels = write_labels(tmp_path / "x.csv", [("a1", "blue"), ("b2", "red")])
    found = run(predictions=folder, labels=labels)
    assert found["images"]["without_prediction"] == 1
    assert found["metrics"]["top_1"] == 1 / 2


def test_odd_names_survive(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ids = [f'{name} "{n}",\n.jpg' for n, name in enumerate(ODD * 4)]
    rows = rng.dirichlet(np.ones(len(ODD)), len(ids))
    folder = write_predictions(tmp_path / "p", ids, rows, classes=ODD)
    labels = dict(zip(ids, rng.choice(ODD, len(ids)), strict=True))
    run(
        predictions=folder,
        labels=write_labels(tmp_path / "x.csv", list(labels.items())),
    )
    output, options = tmp_path / "evaluation", {"dtype": str, "keep_default_na": False}
    options["lineterminator"] = "\n"
    assert tuple(pd.read_csv(output / "classes.csv", **options)["class"]) == ODD
    mistakes = pd.read_csv(output / "mistakes.csv", **options)
    said = dict(zip(ids, np.array(ODD)[rows.argmax(axis=1)], strict=True))
    wrong = {image_id for image_id in ids if said[image_id] != labels[image_id]}
    assert set(mistakes["id"]) == wrong
    for row in mistakes.itertuples():
        assert (row.label, row.predicted) == (labels[row.id], said[row.id])


def test_random_predictions_against_pandas(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    names = [f"class {number}" for number in range(30)]
    ids = [f"{number}" for number in range(400)]
    rows = rng.dirichlet(np.full(30, 0.2), len(ids)).astype(np.float32)
    labels = rng.choice(names, len(ids))
    folder = write_predictions(tmp_path / "p", ids, rows, classes=names)
    pairs = list(zip(ids, labels, strict=True))
    value = run(predictions=folder, labels=write_labels(tmp_path / "x.csv", pairs))
    frame = pd.DataFrame(rows, ids, names)
    own = np.array([frame.loc[image_id, label] for image_id, label in pairs])
    ranks = frame.rank(axis=1, ascending=False, method="first")
    rank = np.array([ranks.loc[image_id, label] for image_id, label in pairs])
    assert value["metrics"]["top_5"] == pytest.approx((rank <= 5).mean())
    assert value["metrics"]["log_loss"] == pytest.approx(
        -np.log(np.clip(own.astype(float), 1e-7, 1)).mean()
    )
    said = frame.idxmax(axis=1)
    confused = pd.crosstab(pd.Series(labels, ids), said).stack()
    confused = confused[[a != b for a, b in confused.index]]
    table = pd.read_csv(tmp_path / "evaluation" / "confusions.csv")
    for row in table.itertuples():
        assert confused[row.label, row.predicted] == row.count
        assert row.share == pytest.approx(row.count / (labels == row.label).sum())
    assert table["count"].is_monotonic_decreasing
    assert table["count"].sum() == (said.to_numpy() != labels).sum()


def test_an_evaluation_that_was_not_finished_is_none(
    run: Run, small: Path, tmp_path: Path
) -> None:
    """The page cannot be written; the numbers of an earlier run must not stay."""
    labels = write_labels(tmp_path / "labels.csv", SMALL_LABELS)
    run(predictions=small, labels=labels)
    folder = tmp_path / "evaluation"
    (folder / "evaluation.html").unlink()
    (folder / "evaluation.html").mkdir()
    with pytest.raises(IsADirectoryError):
        run(predictions=small, labels=labels)
    left = {path.name for path in folder.iterdir()}
    assert left == FILES - {"evaluation.json"} | {"_work"}
    (folder / "evaluation.html").rmdir()
    run(predictions=small, labels=labels)
    assert {path.name for path in folder.iterdir()} == FILES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,landmark\na,blue\n", "no column label; its header is 'id,landmark'"),
        ("", "is empty"),
        ("id,label\na,blue\na,red\n", "has the id 'a' in the lines 2 and 3"),
        ("id,label\na\n", "line 2 has 1 cells, and the header has 2"),
        ("id,label\na,blue,x\n", "line 2 has 3 cells, and the header has 2"),
        ("id,label\n,blue\n", "line 2 has no id"),
        ("id,label\na, blue\n", "line 2 has blanks at the ends of the label ' blue'"),
        ("id,label\na,blue\nb,bl\u200bue\n", r"'blue' and 'bl\\u200bue'\. Give labels"),
        ("id,label\na,\nb,\n", "has 2 ids and no label"),
        ("id,label\nx,blue\n", "none of the 1 ids .* 'x', .* 5 images .* such as 'a'"),
        ("id,label\na,violet\n", "none of the 1 labels .*'violet', .* is 'blue'"),
        (b"id,label\na,\xff\n", "is not UTF-8: line 2 is"),
        (None, "is no file"),
    ],
)
def test_labels_that_are_refused(
    run: Run, small: Path, tmp_path: Path, text: str | bytes | None, message: str
) -> None:
    path = tmp_path / "labels.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RunError, match=message):
        run(predictions=small, labels=path)
    assert not (tmp_path / "evaluation").exists()


def test_labels_that_differ_in_case_are_said(
    run: Run, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = write_labels(tmp_path / "labels.csv", [("a", "Blue"), ("b", "red")])
    run(predictions=small, labels=labels)
    assert "'Blue' and 'blue' are different classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["id;label\ra;blue\rd;red\r", "ID\tlandmark_id\na\tblue\nd\tred\n"]
)
def test_labels_of_any_editor(run: Run, small: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(text.encode("utf-16"))
    assert run(predictions=small, labels=path)["metrics"]["top_1"] == 1 / 2


def test_labels_of_a_spreadsheet(run: Run, small: Path, tmp_path: Path) -> None:
    """A byte order mark, carriage returns, and a column more."""
    path = tmp_path / "labels.csv"
    path.write_bytes(b"\xef\xbb\xbfid,note,label\r\na,x,blue\r\nd,y,red\r\n")
    assert run(predictions=small, labels=path)["metrics"]["top_1"] == 1 / 2


def test_labels_of_another_list_against_the_best_classes(
    run: Run, tmp_path: Path
) -> None:
    """Where nothing tells what classes there are."""
    form = Format(kind="top_k", top_k=2)
    folder = write_predictions(
        tmp_path / "p", ["a", "b"], np.array([[0.8, 0.1, 0.1]] * 2), form=form
    )
    labels = write_labels(tmp_path / "x.csv", [("a", "17"), ("b", "18")])
    with pytest.raises(RunError, match=r"none of the 2 labels .*'17', .* is 'blue'"):
        run(predictions=folder, labels=labels)


@pytest.mark.parametrize("ids", [["a", "a"], ["0/a.jpg", "1/a.jpg"]])
def test_an_image_that_was_predicted_twice(
    run: Run, tmp_path: Path, ids: list[str]
) -> None:
    folder = write_predictions(tmp_path / "p", ids, np.eye(3)[:2])
    labels = write_labels(tmp_path / "x.csv", [("a", "blue")])
    with pytest.raises(RunError, match=f"of 'a' has two predictions.*{ids[1]}"):
        run(predictions=folder, labels=labels)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"dataset": "other"}, "of other images: other there, {dataset} here"),
        ({"dataset": None}, "of other images: photos, and no DATASET, there"),
        (
            {"split": "train"},
            "of split 'train', not of 'validation'. Use --split=train",
        ),
        ({"form": Format(kind="submission")}, "is a submission: its ids are stems"),
    ],
)
def test_predictions_of_other_images_are_refused(
    run: Run, made_dataset: Path, tmp_path: Path, value: dict[str, Any], message: str
) -> None:
    fingerprint = manifest.load(made_dataset).fingerprint
    given = {"dataset": fingerprint, "split": "validation", **value}
    folder = write_predictions(tmp_path / "p", ["a"], np.eye(3)[:1], **given)
    with pytest.raises(RunError, match=message.format(dataset=fingerprint)):
        run(dataset=made_dataset, predictions=folder)


def test_predictions_of_another_model_are_refused(
    run: Run, made_dataset: Path, model: Path, small: Path, tmp_path: Path
) -> None:
    labels = write_labels(tmp_path / "labels.csv", SMALL_LABELS)
    with pytest.raises(RunError, match=r"by another model: m there, \w{64} here"):
        run(predictions=small, model=model, labels=labels)


@pytest.mark.parametrize("same", [True, False])
def test_pictures_are_of_the_images_that_were_predicted(
    run: Run, made_dataset: Path, tmp_path: Path, same: bool
) -> None:
    """DATASET of other images tells of training, whatever its ids."""
    dataset = manifest.load(made_dataset)
    parts = [
        (ids, np.eye(3, dtype=np.float32)[np.zeros(len(ids), int)])
        for ids in (
            [stored.id for stored in inputs.records(dataset, shard)]
            for shard in dataset.split("test").shards
        )
    ]
    fingerprint = dataset.fingerprint if same else "other"
    folder = predictions.write_predictions(
        tmp_path / "p", Format(), CLASSES, parts, dataset=fingerprint
    )
    rows = [(image_id, "red") for ids, _ in parts for image_id in ids[:2]]
    labels = write_labels(tmp_path / "labels.csv", [*rows, ("other", "blue")])
    value = run(predictions=folder, labels=labels, dataset=made_dataset)
    assert value["by_frequency"]["of"] == "train images"
    page = (tmp_path / "evaluation" / "evaluation.html").read_text()
    assert page.count("data:image/jpeg") == (len(rows) if same else 0)
    assert ("no pictures without the DATASET that was predicted" in page) != same


def test_predictions_of_other_shards_are_refused(
    run: Run, made_dataset: Path, tmp_path: Path
) -> None:
    """A file of PREDICTIONS has the images of a shard: the split is read once."""
    fingerprint = manifest.load(made_dataset).fingerprint
    given = {"dataset": fingerprint, "split": "validation"}
    folder = write_predictions(tmp_path / "p", ["a", "b"], np.eye(3)[:2], **given)
    with pytest.raises(RunError, match=r"have \[1, 1\] rows, and the shards of valid"):
        run(dataset=made_dataset, predictions=folder)


def test_predictions_of_other_classes_are_refused(
    run: Run, made_dataset: Path, tmp_path: Path
) -> None:
    """Labels of records are numbers: they must be those of the columns."""
    fingerprint = manifest.load(made_dataset).fingerprint
    given = {"dataset": fingerprint, "split": "validation", "classes": CLASSES[::-1]}
    folder = write_predictions(tmp_path / "p", ["a", "b"], np.eye(3)[:2], **given)
    with pytest.raises(RunError, match="has other classes than what was predicted"):
        run(dataset=made_dataset, predictions=folder)


@pytest.mark.parametrize("name", ["classes.csv", "evaluation.html", "evaluation.json"])
def test_files_of_others_are_not_replaced(
    run: Run, small: Path, tmp_path: Path, name: str
) -> None:
    """As with --evaluation=., where somebody keeps a classes.csv."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("{}")
    labels = write_labels(tmp_path / "labels.csv", SMALL_LABELS)
    with pytest.raises(RunError, match=f"mine has a file '{name}' that no evaluation"):
        run(predictions=small, labels=labels, output=tmp_path / "mine")
    assert (tmp_path / "mine" / name).read_text() == "{}"
    (tmp_path / "mine" / name).rename(tmp_path / "mine" / "notes.txt")
    run(predictions=small, labels=labels, output=tmp_path / "mine")
    run(predictions=small, labels=labels, output=tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "{}"


def test_a_folder_whose_name_is_not_utf8(run: Run, small: Path, tmp_path: Path) -> None:
    folder = small.rename(os.fsdecode(os.fsencode(tmp_path) + b"/p-\xff"))
    labels = write_labels(tmp_path / "labels.csv", SMALL_LABELS)
    run(predictions=folder, labels=labels)
    page = (tmp_path / "evaluation" / "evaluation.html").read_text()
    assert "Evaluation of p-\N{REPLACEMENT CHARACTER}" in page


def test_an_unlabelled_split_is_refused(
    run: Run, model: Path, made_dataset: Path
) -> None:
    with pytest.raises(RunError, match=f"test of .* unlabelled: none of its {TEST} im"):
        run(dataset=made_dataset, model=model, split="test")


def test_labels_for_an_unlabelled_split(
    run: Run, model: Path, made_dataset: Path, tmp_path: Path
) -> None:
    rows = [(f"photo {index}.jpg", CLASSES[2 - index % 3]) for index in range(TEST)]
    labels = write_labels(tmp_path / "labels.csv", rows)
    value = run(dataset=made_dataset, model=model, split="test", labels=labels)
    assert value["images"]["labelled"] == TEST
    assert value["images"]["without_label"] == 0
    page = (tmp_path / "evaluation" / "evaluation.html").read_text()
    assert page.count("data:image/jpeg") == value["images"]["mistakes"] > 0


def test_a_damaged_shard_is_named(run: Run, model: Path, dataset: Path) -> None:
    path = dataset / manifest.shard_name("validation", 1, 2)
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match=f"{path.name} is damaged"):
        run(dataset=dataset, model=model)


def test_a_damaged_file_of_predictions_is_named(
    run: Run, small: Path, tmp_path: Path
) -> None:
    path = small / predictions_manifest.shard_name(1, 2)
    path.write_bytes(path.read_bytes()[:-5])
    labels = write_labels(tmp_path / "labels.csv", SMALL_LABELS)
    with pytest.raises(RunError, match=path.name):
        run(predictions=small, labels=labels)


def test_nan_in_predictions_is_refused(run: Run, small: Path, tmp_path: Path) -> None:
    path = small / predictions_manifest.shard_name(1, 2)
    path.write_text(path.read_text().replace("0.9", "nan"))
    labels = write_labels(tmp_path / "labels.csv", SMALL_LABELS)
    with pytest.raises(RunError, match="the best probability of 'd' is nan"):
        run(predictions=small, labels=labels)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "nothing to evaluate: give --model and --dataset, or --predictions"),
        ({"model": "m", "labels": "l"}, "nothing to evaluate"),
        ({"predictions": "p"}, "nothing tells what the images show: give --labels"),
    ],
)
def test_flags_that_are_not_enough(
    run: Run, given: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run(**{name: Path(value) for name, value in given.items()})


def test_equal_names_of_classes_are_refused(run: Run, tmp_path: Path) -> None:
    names = ("a", "b", "a")
    folder = write_predictions(tmp_path / "p", ["x"], np.eye(3)[:1], classes=names)
    labels = write_labels(tmp_path / "x.csv", [("x", "a")])
    with pytest.raises(RunError, match="the class 'a' is there more than once"):
        run(predictions=folder, labels=labels)


def test_a_dataset_without_a_train_split(run: Run, model: Path, dataset: Path) -> None:
    value = json.loads((dataset / "dataset.json").read_text())
    del value["splits"]["train"]
    (dataset / "dataset.json").write_text(json.dumps(value))
    for path in dataset.glob("train-*"):
        path.unlink()
    found = run(dataset=dataset, model=model)
    assert found["by_frequency"]["of"] == "evaluated images"


def test_a_copy_of_the_dataset_will_do(
    run: Run, model: Path, made_dataset: Path, of_model: Path, tmp_path: Path
) -> None:
    """Nothing depends on where things are, but the names in the page."""
    moved = shutil.copytree(made_dataset, tmp_path / made_dataset.name)
    run(dataset=moved, model=model, batch_size=4)
    for name in FILES:
        made = (tmp_path / "evaluation" / name).read_bytes()
        assert made == (of_model / name).read_bytes()
