"""The page of a run: what it says of a run, complete or not, and what it refuses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.system.errors import RunError
from tests.support import html_pages
from tests.support.files import REPOSITORY
from tests.support.html_pages import Browser, Page
from tests.support.photos import TEST
from tests.support.small_network import small_convolutions
from trainer.options import ReportOptions
from trainer.recipe import RECIPES, Augmentation
from trainer.report import report_model

RECIPE = replace(
    RECIPES["demo"],
    batch_size=8,
    augmentation=Augmentation(flip=True, brightness=0.5),
)


@pytest.fixture(scope="module")
def trained(tf, tmp_path_factory: pytest.TempPathFactory, made_dataset: Path) -> Path:
    """MODEL of a run of one epoch that was started again for a second one."""
    from trainer import train
    from trainer.options import TrainOptions

    folder = tmp_path_factory.mktemp("trained") / "<b>model"
    with small_convolutions():
        for epochs in (1, 2):
            train.run(
                TrainOptions(
                    dataset=made_dataset,
                    model=folder,
                    recipe=replace(RECIPE, epochs=epochs),
                    weights="none",
                    seed=3,
                    cpu=True,
                )
            )
    return folder


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    """A MODEL of one's own."""
    return Path(shutil.copytree(trained, tmp_path / trained.name))


def reported(model: Path, **options: object) -> Page:
    report_model.run(ReportOptions(model=model, **options))
    return html_pages.check((model / report_model.FILE).read_text())


def test_the_page_of_a_run(model: Path, made_dataset: Path) -> None:
    page = reported(model)
    text = " ".join(page.shown.split())
    assert page.of("title") == ["MODEL <b>model"]
    assert "Complete: 2 of 2 epochs of recipe demo" in text
    # What was replaced, and nothing else.
    replaced = ["epochs", "batch_size", "augmentation"]
    assert [code for code in page.of("code") if code in vars(RECIPE)] == replaced
    for value in ("flip True, brightness 0.5", "flip True", "16", "8"):
        assert value in page.of("td")
    # Where it was found, and the training images as they are and thrice augmented.
    assert str(made_dataset) in page.of("bdi")
    assert f"24 in train, 9 in validation, {TEST} in test" in text
    texts = page.values("alt")
    assert sum(text.endswith("as it is stored") for text in texts) == 6
    assert sum(", augmented, " in text for text in texts) == 18
    charts = [text.partition(", by epoch")[0] for text in texts if "by epoch" in text]
    assert charts == [
        "loss (cross-entropy)",
        "accuracy, %",
        *("learning rate", "images/s", "input wait, %"),
    ]
    starts = json.loads((model / "starts.json").read_text())["starts"]
    assert [(start["epoch"], start["step"]) for start in starts] == [(0, 0), (1, 0)]
    assert {"the beginning", "epoch 1"} <= {*page.of("td")}
    assert starts[0]["devices"] == ["CPU:0"]


def test_the_same_run_is_the_same_page(model: Path) -> None:
    reported(model)
    first = (model / report_model.FILE).read_bytes()
    reported(model)
    assert (model / report_model.FILE).read_bytes() == first


def test_a_browser_shows_it(model: Path, browser: Browser) -> None:
    reported(model)
    text = (model / report_model.FILE).read_text()
    assert Page(browser.dom(text)).of("title") == ["MODEL <b>model"]
    assert (0x00, 0x72, 0xB2) in browser.colours(text)
    assert (0x3D, 0x9B, 0xE0) in browser.colours(text, dark=True)


def test_a_run_that_is_not_complete(model: Path) -> None:
    (model / "model.json").unlink()
    assert "Not complete: 2 of 2 epochs" in " ".join(reported(model).shown.split())
    (model / "history.csv").unlink()
    page = reported(model)
    assert "no epoch is done yet" in page.shown
    assert "Curves" not in page.of("h2")


def test_without_its_dataset(model: Path) -> None:
    path = model / "starts.json"
    value = json.loads(path.read_text())
    value["starts"][-1]["dataset"] = "/nowhere"
    path.write_text(json.dumps(value))
    page = reported(model)
    assert "make report DATASET=…" in page.of("code")
    assert not [text for text in page.values("alt") if "augmented" in text]


def test_another_dataset_is_refused(model: Path, dataset: Path) -> None:
    path = dataset / "dataset.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(RunError, match=r"is not the one that MODEL .* is trained on"):
        reported(model, dataset=dataset)


def test_a_model_of_release_0_1(tmp_path: Path) -> None:
    source = REPOSITORY / "tests" / "testdata" / "release-0.1" / "finished" / "model"
    page = reported(Path(shutil.copytree(source, tmp_path / "model")))
    text = " ".join(page.shown.split())
    assert "Not complete: 0 of 6 epochs" in text
    assert "an earlier release trained this model (Python 3.11.7" in text


@pytest.mark.parametrize("labels", [True, False])
def test_an_evaluation(model: Path, made_dataset: Path, labels: bool) -> None:
    """The figures are those that `evaluate` writes, and the link leads there."""
    from predictor import evaluate

    folder = model.parent / "evaluation & more"
    evaluate.run(
        folder,
        dataset=made_dataset,
        model=model,
        split="validation",
        predictions=None,
        labels=None,
        cpu=True,
    )
    if not labels:
        (folder / "evaluation.html").unlink()
    page = reported(model, evaluation=folder)
    link = "../evaluation%20%26%20more/evaluation.html"
    assert (link in page.values("href")) == labels
    metrics = json.loads((folder / "evaluation.json").read_text())["metrics"]
    assert f"{100 * metrics['top_1']:.1f}\N{NO-BREAK SPACE}%" in page.of("td")
    assert f"{metrics['log_loss']:.4f}" in page.of("td")
    (model / "model.keras").write_bytes(b"another")
    value = json.loads((model / "model.json").read_text())
    (model / "model.json").write_text(json.dumps({**value, "sha256": "1" * 64}))
    with pytest.raises(RunError, match=r"is not of MODEL .*, and this one has 1111"):
        reported(model, evaluation=folder)


def test_what_it_refuses(model: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"has neither model\.json nor starts\.json"):
        report_model.run(ReportOptions(model=tmp_path))
    with pytest.raises(RunError, match=r"has no evaluation\.json"):
        reported(model, evaluation=tmp_path)
    (model / "report.html").write_text("mine")
    with pytest.raises(RunError, match=r"`make report` did not write it"):
        reported(model)
