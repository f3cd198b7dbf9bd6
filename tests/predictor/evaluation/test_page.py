"""The page of an evaluation: whole, escaped, by itself, and seen by a browser."""

import base64
import csv
import io
import re

import numpy as np
import pytest
from PIL import Image

from predictor.evaluation import page as evaluation_page
from predictor.evaluation import per_image
from predictor.evaluation.image_table import PICTURES
from predictor.evaluation.results import Evaluation
from predictor.format.row_batch import RowBatch
from tests.support import html_pages
from tests.support.html_pages import Browser, Page
from tests.support.photos import jpeg, photo

ODD = (
    "<script>alert(1)</script>",
    '" onmouseover="alert(2)',
    "'; DROP TABLE",
    "&lt;b&gt; & co",
    "two\nlines",
    "برج خليفة",
    "-->",
    "$x^2$ and \\frac",
)


def evaluation(
    classes: tuple[str, ...],
    rows: int,
    *,
    ids: list[str] | None = None,
    k: int | None = None,
    told: bool = True,
) -> Evaluation:
    """Of random predictions, of all classes or of the k best."""
    rng = np.random.default_rng(len(classes) + rows)
    ids = ids or [f"{number}.jpg" for number in range(rows)]
    labels = [(int(number),) for number in rng.integers(0, len(classes), rows)]
    values = rng.dirichlet(np.full(len(classes), 0.3), rows).astype(np.float32)
    order = None
    if k:
        order = np.argsort(-values, axis=1)[:, :k]
        values = np.take_along_axis(values, order, axis=1)
    part = per_image.results(RowBatch(ids, None, values), labels, order)
    return Evaluation(
        title="Evaluation of <predictions>",
        source={"model": "0" * 64, "dataset": None},
        classes=classes,
        known=len(classes),
        images=part.assign(_merge="both").sort_values("id", ignore_index=True),
        frequency=rng.integers(0, 300, len(classes)) if told else None,
    )


@pytest.fixture(scope="module")
def odd() -> tuple[Evaluation, dict[str, bytes]]:
    """Names that would break out of text, attributes, comments and lines."""
    ids = [f"{name} {number}" for number in range(10) for name in ODD]
    made = evaluation(ODD, len(ids), ids=ids)
    return made, {
        image_id: jpeg(photo(number % 3, number, 30, 40))
        for number, image_id in enumerate(made.mistakes["id"][:PICTURES])
    }


@pytest.fixture(scope="module")
def text(odd: tuple[Evaluation, dict[str, bytes]]) -> str:
    return evaluation_page.html(*odd)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return html_pages.check(text)


def test_the_title_is_that_of_the_evaluation(page: Page) -> None:
    assert page.of("title") == ["Evaluation of <predictions>"]


def test_names_are_text_and_nothing_else(page: Page) -> None:
    """Each is there as it is, in an element that isolates its direction."""
    assert set(ODD) <= set(page.of("bdi"))


def test_every_picture_has_a_text(page: Page) -> None:
    """A chart says its numbers, a photo whose it is and what it was taken for."""
    texts = page.values("alt")
    assert len(texts) == page.tags["img"]
    charts = [text for text in texts if "%" in text]
    assert [text.partition(":")[0] for text in charts] == [
        "Bar chart of top-1 accuracy",
        "Reliability diagram",
        "Histogram of classes by recall",
    ]
    assert all(" taken for " in text for text in texts if text not in charts)


def test_pictures_are_those_of_the_worst_mistakes(
    page: Page, odd: tuple[Evaluation, dict[str, bytes]]
) -> None:
    made, pictures = odd
    assert len(made.mistakes) > PICTURES == len(pictures)
    shown = [x for x in page.values("src") if x.startswith("data:image/jpeg;base64,")]
    for source, encoded in zip(shown, pictures.values(), strict=True):
        found = base64.b64decode(source.partition(",")[2], validate=True)
        assert found == encoded
        assert Image.open(io.BytesIO(found)).size == (40, 30)


def test_the_numbers_are_those_of_the_evaluation(
    page: Page, odd: tuple[Evaluation, dict[str, bytes]]
) -> None:
    totals, shown = odd[0].totals, page.of("b")
    for name in ("top_1", "top_5", "balanced_accuracy", "calibration_error"):
        assert f"{100 * totals[name]:.1f}\N{NO-BREAK SPACE}%" in shown
    for name in ("gap", "log_loss"):
        assert f"{totals[name]:.4f}" in shown


def test_the_matrix_has_every_labelled_image(
    text: str, odd: tuple[Evaluation, dict[str, bytes]]
) -> None:
    (matrix,) = re.findall(r'<table class="matrix">.*?</table>', text, re.DOTALL)
    cells = [
        re.findall(r"<td [^>]*>(\d*)</td>", row) for row in matrix.split("<tr>")[2:]
    ]
    counts = np.array([[int(cell or 0) for cell in row] for row in cells])
    found = odd[0].per_class
    assert counts.diagonal().tolist() == found["true_positives"].tolist()
    assert counts.sum(axis=1).tolist() == found["images"].tolist()
    assert counts.sum(axis=0).tolist() == found["predicted"].tolist()


def test_the_same_evaluation_is_the_same_page(
    text: str, odd: tuple[Evaluation, dict[str, bytes]]
) -> None:
    assert evaluation_page.html(*odd) == text


def test_fifteen_thousand_classes_stay_a_page() -> None:
    names = tuple(f"landmark {number}" for number in range(15_000))
    made = evaluation(names, 600)
    text = evaluation_page.html(made, {})
    found = Page(text)
    assert len(text) < 700_000
    assert found.tags["tr"] < 100
    shown = "".join(data for _, data in found.text)
    never = f"{len(made.never_predicted):,}"
    assert f"{never} of 15,000 classes" in shown
    assert f"The first 100 of {never} classes; classes.csv has all of them." in shown
    pairs = len(made.confusions)
    assert f"The first 30 of {pairs} pairs; confusions.csv has all of them." in shown
    assert made.csvs()["confusions.csv"].count(b"\n") == pairs + 1
    assert found.values("alt") == [x for x in found.values("alt") if "%" in x]


def test_what_is_not_known_is_not_guessed() -> None:
    names = tuple("abcdefgh")
    few = Page(evaluation_page.html(evaluation(names, 40, k=2), {}))
    every = Page(evaluation_page.html(evaluation(names, 40), {}))
    assert few.of("b").count("not known") == 2  # top 5, log loss
    assert "not known" not in every.of("b")


def test_without_training_counts_it_says_so() -> None:
    text = evaluation_page.html(evaluation(("a", "b"), 20, told=False), {})
    assert "Accuracy by evaluated images of the class" in text
    assert "training images of the class" not in text


def test_no_mistake_at_all() -> None:
    row = RowBatch(["x"], None, np.float32([[1, 0]]))
    made = Evaluation(
        title="x",
        source={},
        classes=("a", "b"),
        known=2,
        images=per_image.results(row, [(0,)], None).assign(_merge="both"),
        frequency=None,
    )
    found = Page(evaluation_page.html(made, {}))
    assert "There is none." in found.of("p")
    assert "Most confused" not in found.of("h2")


def test_a_line_break_in_a_name_stays_in_its_field() -> None:
    """Also a carriage return, which csv.writer quotes for no line end but `\\r\\n`."""
    names = ("cr\r", "two\nlines", 'say "x", y', "=SUM(1)")
    made = evaluation(names, 200)
    for content in made.csvs().values():
        _, *rows = csv.reader(io.StringIO(content.decode(), newline=""))
        for row in rows:
            assert len(row) in (4, 5, 8)
            assert set(names) & set(row)


def test_a_browser_shows_it(text: str, browser: Browser) -> None:
    """What a script of a name would have done is not done."""
    seen = Page(browser.dom(text))
    assert seen.of("title") == ["Evaluation of <predictions>"]
    assert set(ODD) <= set(seen.of("bdi"))
    assert seen.tags["script"] == 0
    # The bars of a chart are seen: its picture was taken.
    assert (0x00, 0x72, 0xB2) in browser.colours(text)
    assert (0x3D, 0x9B, 0xE0) in browser.colours(text, dark=True)
