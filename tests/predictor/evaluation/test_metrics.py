"""Metrics against scikit-learn, published examples, and computations by hand."""

import math

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics

from pipeline.system.errors import RunError
from predictor.evaluation import metrics, per_image
from predictor.evaluation.per_image import NONE
from predictor.format import top_classes
from predictor.format.row_batch import RowBatch

SEEDS = range(8)
# scikit-learn warns of classes that were never predicted, or have no images.
UNDEFINED = {"zero_division": 0, "average": "macro"}


def softmax(rng: np.random.Generator, rows: int, classes: int) -> np.ndarray:
    """Probabilities, coarse enough that many of a row are equal."""
    steps = rng.integers(0, 6, (rows, classes)).astype(np.float32) + 1
    return steps / steps.sum(axis=1, keepdims=True)


def random_case(seed: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Ids, labels (a fifth of them distractors), probabilities."""
    rng = np.random.default_rng(seed)
    rows, classes = int(rng.integers(1, 60)), int(rng.integers(2, 9))
    labels = rng.integers(0, classes, rows)
    labels[rng.random(rows) < 0.2] = NONE
    labels[0] = 0
    ids = [f"{number:x}.jpg" for number in rng.permutation(rows)]
    return ids, labels, softmax(rng, rows, classes)


def reduced(
    ids: list[str],
    labels: np.ndarray | list[tuple[int, ...]],
    values: np.ndarray,
    ranked: np.ndarray | None = None,
) -> pd.DataFrame:
    """The table of images that all have a row in the list of labels."""
    several = [x if isinstance(x, tuple) else (x,) if x >= 0 else () for x in labels]
    found = per_image.results(RowBatch(ids, None, values), several, ranked)
    return found.assign(_merge="both").sort_values("id", ignore_index=True)


def found(seed: int, missing: int = 0) -> pd.DataFrame:
    lost = [f"lost {number}" for number in range(missing)]
    rows = per_image.without_prediction(lost, [(0,)] * missing)
    both = pd.concat([reduced(*random_case(seed)), rows.assign(_merge="left_only")])
    return both.sort_values("id", ignore_index=True)


def of_confidences(pairs: list[tuple[float, bool | None]]) -> pd.DataFrame:
    """Images in the order of their ids: confidence, and right, wrong or distractor."""
    labels = [NONE if right is None else 0 if right else 1 for _, right in pairs]
    return reduced(
        [f"{number:03d}" for number in range(len(pairs))],
        np.array(labels),
        np.array([[confidence] for confidence, _ in pairs], np.float32),
        np.zeros((len(pairs), 1), int),
    )


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(0.5, True)], 1),
        ([(0.5, False)], 0),
        ([(0.9, True), (0.5, True)], 1),
        ([(0.9, False), (0.5, True)], 1 / 4),  # (1/2 · 1) / 2
        ([(0.5, True), (0.9, False)], 1 / 4),
        ([(0.9, True), (0.5, False)], 1 / 2),
        ([(0.9, True), (0.8, False), (0.7, True)], (1 + 2 / 3) / 3),
        # A distractor is no image of a class, but pushes down what comes behind it.
        ([(0.9, None), (0.5, True)], 1 / 2),
        ([(0.9, True), (0.5, None)], 1),
        ([(0.9, True), (0.8, None), (0.7, False), (0.6, True)], (1 + 2 / 4) / 3),
        # Of equal confidences the first id comes first.
        ([(0.5, True), (0.5, None)], 1),
        ([(0.5, None), (0.5, True)], 1 / 2),
        ([(0.9, None)], None),
    ],
)
def test_gap_by_hand(
    pairs: list[tuple[float, bool | None]], expected: float | None
) -> None:
    assert metrics.gap(of_confidences(pairs), 2) == pytest.approx(expected)


def test_gap_of_the_published_example() -> None:
    """The example of the competition's own code, whose scores are no probabilities.

    tensorflow/models, delf/python/datasets/google_landmarks_dataset/metrics_test.py:
    three images show landmarks, two of them several; one of these has no prediction.
    """
    landmarks = [(0, 12), (100, 200, 300), (1,), (), ()]
    ids = [f"0{n}23456789abcdef" for n in range(1, 6)]
    predictions = {1: (0, 0.01), 2: (1, 10.0), 3: (150, 15.0)}
    values = np.array([[score / 20] for _, score in predictions.values()], np.float32)
    table = pd.concat(
        [
            reduced(
                [ids[n] for n in predictions],
                [landmarks[n] for n in predictions],
                values,
                np.array([[number] for number, _ in predictions.values()]),
            ),
            per_image.without_prediction([ids[0]], landmarks[:1]).assign(
                _merge="left_only"
            ),
        ]
    ).sort_values("id", ignore_index=True)
    assert metrics.gap(table, 0) == pytest.approx(0.166667, abs=1e-6)
    assert metrics.accuracy(table, 1) == pytest.approx(0.333333, abs=1e-6)


def test_gap_counts_images_that_show_a_class_of_training() -> None:
    """An image of a class that the model has not is no fault of its recall."""
    values = np.float32([[0.9, 0.1], [0.8, 0.2]])
    table = reduced(["a", "b"], np.array([0, 7]), values)
    assert metrics.gap(table, 2) == 1
    assert metrics.gap(table, 0) == 1 / 2  # nothing tells what the model has
    assert metrics.accuracy(table, 1) == 1 / 2


@pytest.mark.parametrize("seed", SEEDS)
def test_gap_against_average_precision(seed: int) -> None:
    """scikit-learn divides by the right ones, GAP by the images that show a class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 4, 50)
    values = rng.dirichlet(np.ones(4), 50).astype(np.float32)  # no two are equal
    table = reduced([str(n) for n in range(50)], labels, values)
    right = values.argmax(axis=1) == labels
    average = sklearn.metrics.average_precision_score(right, values.max(axis=1))
    expected = average * right.sum() / (labels >= 0).sum()
    assert metrics.gap(table, 4) == pytest.approx(expected)


def test_of_several_labels_the_best_ranked_counts() -> None:
    values = np.float32([[0.1, 0.6, 0.3], [0.2, 0.5, 0.3], [0.2, 0.5, 0.3]])
    labels = [(0, 2), (2, 1), (7, 8)]
    expected = [[2, 2], [1, 1], [7, per_image.LAST]]
    table = reduced(list("abc"), labels, values)
    assert table[["label", "rank"]].to_numpy().tolist() == expected
    ranked = top_classes.best(values, 2)
    best = np.take_along_axis(values, ranked, axis=1)
    few = reduced(list("abc"), labels, best, ranked)
    assert few[["label", "rank"]].to_numpy().tolist() == [[2, 2], [1, 1], [7, -2]]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n", [1, 2, 5])
def test_accuracy_against_sorting(seed: int, n: int) -> None:
    _, labels, probabilities = random_case(seed)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :n]
    right = [label in row for label, row in zip(labels, order, strict=True)]
    expected = np.mean(
        [x for x, label in zip(right, labels, strict=True) if label >= 0]
    )
    assert metrics.accuracy(found(seed), n) == pytest.approx(expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_metrics_against_scikit_learn(seed: int) -> None:
    """Classes without images, and classes that were never predicted, among them."""
    rng = np.random.default_rng(seed)
    classes, rows = 9, 60
    labels = rng.integers(0, 7, rows)
    values = rng.dirichlet(np.full(classes, 0.3), rows).astype(np.float32)
    values[:, 2] = 0
    values /= values.sum(axis=1, keepdims=True)
    table = reduced([str(n) for n in range(rows)], labels, values)
    said = values.argmax(axis=1)
    by_class = metrics.per_class(table, classes)
    for name, score in (
        ("precision", sklearn.metrics.precision_score),
        ("recall", sklearn.metrics.recall_score),
        ("f1", sklearn.metrics.f1_score),
    ):
        ours = metrics.macro(by_class, name)
        assert ours == pytest.approx(score(labels, said, **UNDEFINED)), name
    assert by_class["recall"].mean() == pytest.approx(
        sklearn.metrics.balanced_accuracy_score(labels, said)
        if set(said) <= set(labels)
        else by_class["recall"][sorted(set(labels))].mean()
    )
    assert metrics.accuracy(table, 1) == sklearn.metrics.accuracy_score(labels, said)
    every = range(classes)
    assert metrics.accuracy(table, 3) == pytest.approx(
        sklearn.metrics.top_k_accuracy_score(labels, values, k=3, labels=every)
    )
    exact = np.clip(values.astype(np.float64), metrics.LEAST, 1)
    expected = -np.log(exact[np.arange(rows), labels]).mean()
    assert metrics.log_loss(table) == pytest.approx(expected)
    clear = np.clip(values, 1e-3, 1).astype(np.float64)  # no clip bears upon these
    clear /= clear.sum(axis=1, keepdims=True)
    assert metrics.log_loss(
        reduced([str(n) for n in range(rows)], labels, clear)
    ) == pytest.approx(sklearn.metrics.log_loss(labels, clear, labels=every), rel=1e-6)
    matrix = sklearn.metrics.confusion_matrix(labels, said, labels=every)
    np.testing.assert_array_equal(by_class["images"], matrix.sum(axis=1))
    np.testing.assert_array_equal(by_class["predicted"], matrix.sum(axis=0))
    np.testing.assert_array_equal(by_class["true_positives"], np.diag(matrix))
    pairs = [
        (-matrix[a, b], a, b) for a in every for b in every if a != b and matrix[a, b]
    ]
    expected_pairs = [[a, b, -count] for count, a, b in sorted(pairs)]
    made = metrics.confusions(table)
    assert made[["label", "predicted", "count"]].to_numpy().tolist() == expected_pairs
    shares = made["count"] / matrix.sum(axis=1)[made["label"]]
    np.testing.assert_allclose(made["share"], shares)


@pytest.mark.parametrize("seed", SEEDS)
def test_images_without_prediction_are_wrong(seed: int) -> None:
    whole, less = found(seed), found(seed, missing=3)
    images = int(whole["labelled"].sum())
    for value in (
        lambda x: metrics.accuracy(x, 1),
        lambda x: metrics.accuracy(x, 5),
        lambda x: metrics.gap(x, 9),
    ):
        assert value(less) == pytest.approx(value(whole) * images / (images + 3))
    sums = [metrics.log_loss(x) * n for x, n in ((whole, images), (less, images + 3))]
    assert sums[1] - sums[0] == pytest.approx(3 * math.log(1e7))
    errors = [metrics.calibration_error(metrics.calibration(x)) for x in (whole, less)]
    assert errors[0] == errors[1]


def test_log_loss_of_what_was_thought_impossible() -> None:
    case = reduced(["x"], np.array([1]), np.float32([[1, 0]]))
    assert metrics.log_loss(case) == pytest.approx(math.log(1e7))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_best_classes_tell_the_same_or_nothing(seed: int, k: int) -> None:
    """Whatever is known from k classes is what all probabilities say."""
    ids, labels, probabilities = random_case(seed)
    k = min(k, probabilities.shape[1])
    ranked = top_classes.best(probabilities, k)
    values = np.take_along_axis(probabilities, ranked, axis=1)
    few, whole = reduced(ids, labels, values, ranked), found(seed)
    for n in range(1, k + 1):
        assert metrics.accuracy(few, n) == metrics.accuracy(whole, n)
    assert metrics.gap(few, 9) == metrics.gap(whole, 9)
    pd.testing.assert_frame_equal(metrics.calibration(few), metrics.calibration(whole))
    all_there = ((whole["rank"] <= k) | ~whole["labelled"]).all()
    for value in (metrics.log_loss, lambda x: metrics.accuracy(x, k + 1)):
        assert value(few) == (value(whole) if all_there else None)


def test_f1_of_what_is_neither_there_nor_predicted() -> None:
    case = reduced(["x"], np.array([0]), np.float32([[1, 0, 0]]))
    made = metrics.per_class(case, 3)
    np.testing.assert_array_equal(made["f1"], [1, np.nan, np.nan])
    np.testing.assert_array_equal(made["recall"], [1, np.nan, np.nan])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_worst_mistakes_come_first(seed: int) -> None:
    case = found(seed, missing=2)
    rows = [
        (-row.confidence, row.probability, row.id)
        for row in case.itertuples()
        if row.label >= 0 and row.predicted >= 0 and row.label != row.predicted
    ]
    assert metrics.mistakes(case)["id"].tolist() == [row[-1] for row in sorted(rows)]


@pytest.mark.parametrize("seed", SEEDS)
def test_calibration_against_a_loop(seed: int) -> None:
    case = found(seed, missing=1)
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(15)]
    for row in case.itertuples():
        if row.label >= 0 and row.predicted >= 0:
            confidence = float(row.confidence)
            here = next(m for m in range(15) if confidence <= (m + 1) / 15)
            bins[here].append((confidence, row.label == row.predicted))
    total = sum(map(len, bins))
    error = sum(
        abs(sum(right for _, right in rows) - sum(x for x, _ in rows)) for rows in bins
    )
    made = metrics.calibration(case)
    assert made["images"].tolist() == list(map(len, bins))
    assert metrics.calibration_error(made) == pytest.approx(error / total)


def test_calibration_by_hand() -> None:
    """Four answers at 0.95, three of them right; one at 0.3 that is wrong."""
    pairs = [(0.95, True), (0.95, True), (0.95, True), (0.95, False), (0.3, False)]
    made = metrics.calibration(of_confidences(pairs))
    assert made["images"].tolist() == [0, 0, 0, 0, 1] + [0] * 9 + [4]
    assert made["accuracy"][14] == 0.75
    assert made["confidence"][14] == pytest.approx(0.95)
    assert np.isnan(made["accuracy"][3])
    assert metrics.calibration_error(made) == pytest.approx((4 * 0.2 + 0.3) / 5)


def test_buckets_by_hand() -> None:
    """Classes of 0, 5, 6 and 3,000 training images; none between 7 and 2,000."""
    probabilities = np.float32(
        [[0.7, 0.1, 0.1, 0.1], [0.6, 0.2, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1]]
    )
    case = reduced(list("xyz"), np.array([0, 1, 2]), probabilities)
    made = metrics.buckets(case, np.array([0, 5, 6, 3000]))
    assert made == [
        (0, 0, 1, 1, 1, 1),
        (1, 5, 1, 1, 0, 1),
        (6, 20, 1, 1, 1, 1),
        (2001, None, 1, 0, None, None),
    ]
    assert [bucket.in_words for bucket in made] == [
        *("0", "1\N{EN DASH}5", "6\N{EN DASH}20", "> 2,000")
    ]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.5, 1.00005])
@pytest.mark.parametrize("form", ["probabilities", "ranked"])
def test_what_is_no_probability_is_refused(bad: float, form: str) -> None:
    values = np.full((3, 2), 0.5, np.float32)
    values[1] = bad
    ranked = np.array([[0, 1]] * 3) if form == "ranked" else None
    with pytest.raises(RunError, match=r"best probability of 'y' is .*1 of 3 images"):
        reduced(list("xyz"), np.zeros(3, int), values, ranked)


def test_a_nan_anywhere_in_a_row_is_seen() -> None:
    values = np.float32([[0.1, 0.8, np.nan]])
    with pytest.raises(RunError, match="'x' is nan"):
        reduced(["x"], np.array([0]), values)
