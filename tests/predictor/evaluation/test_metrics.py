"""Metrics against computations that were written another way, and by hand."""

import math
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from pipeline.system.errors import RunError
from predictor.evaluation import metrics, per_image
from predictor.evaluation.label_join import match
from predictor.evaluation.labels import ClassIndex, Labels
from predictor.evaluation.per_image import NONE, PerImageResults
from predictor.format import top_classes
from predictor.format.row_batch import RowBatch

SEEDS = range(20)


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


def found(seed: int, missing: int = 0) -> PerImageResults:
    ids, labels, probabilities = random_case(seed)
    lost = [f"lost {number}" for number in range(missing)]
    return per_image.join(
        [
            per_image.of_probabilities(ids, labels, probabilities),
            per_image.without_prediction(lost, np.zeros(missing, int)),
        ]
    )


def of_confidences(pairs: list[tuple[float, bool | None]]) -> PerImageResults:
    """Images in the order of their ids: confidence, and right, wrong or distractor."""
    labels = [NONE if right is None else 0 if right else 1 for _, right in pairs]
    return per_image.of_ranked(
        [f"{number:03d}" for number in range(len(pairs))],
        np.array(labels),
        np.zeros((len(pairs), 1), int),
        np.array([[confidence] for confidence, _ in pairs], np.float32),
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
    assert metrics.gap(of_confidences(pairs)) == pytest.approx(expected)


def test_gap_by_hand_with_images_that_have_no_prediction() -> None:
    lost = per_image.without_prediction(["x", "y"], np.array([0, 1]))
    case = per_image.join([of_confidences([(0.9, True), (0.5, True)]), lost])
    assert metrics.gap(case) == pytest.approx((1 + 1) / 4)


def gap_by_definition(
    rows: list[tuple[str, float, bool, bool]],
) -> float:
    """The sum over pairs: for every right one, the right ones among those not behind.

    Args:
        rows: id, confidence, whether it is right, whether it shows a class.
    """
    total = 0.0
    for image_id, confidence, right, _ in rows:
        if right:
            before = [
                other
                for other in rows
                if other[1] > confidence
                or (other[1] == confidence and other[0] <= image_id)
            ]
            total += sum(other[2] for other in before) / len(before)
    return total / sum(row[3] for row in rows)


@pytest.mark.parametrize("seed", SEEDS)
def test_gap_against_its_definition(seed: int) -> None:
    ids, labels, probabilities = random_case(seed)
    rows = [
        (image_id, max(row), int(np.argmax(row)) == label, label >= 0)
        for image_id, label, row in zip(
            ids, labels, probabilities.tolist(), strict=True
        )
    ]
    assert metrics.gap(found(seed)) == pytest.approx(gap_by_definition(rows))


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
def test_images_without_prediction_are_wrong(seed: int) -> None:
    whole, less = found(seed), found(seed, missing=3)
    images = int(whole.labelled.sum())
    for value in (lambda x: metrics.accuracy(x, 1), lambda x: metrics.accuracy(x, 5)):
        assert value(less) == pytest.approx(value(whole) * images / (images + 3))
    assert metrics.gap(less) == pytest.approx(
        metrics.gap(whole) * images / (images + 3)
    )
    assert metrics.log_loss(less) == metrics.log_loss(whole)
    assert metrics.calibration(less).error == metrics.calibration(whole).error


@pytest.mark.parametrize("seed", SEEDS)
def test_log_loss_against_a_loop(seed: int) -> None:
    _, labels, probabilities = random_case(seed)
    losses = [
        -math.log(max(float(row[label]), 1e-7))
        for label, row in zip(labels, probabilities, strict=True)
        if label >= 0
    ]
    assert metrics.log_loss(found(seed)) == pytest.approx(sum(losses) / len(losses))


def test_log_loss_of_what_was_thought_impossible() -> None:
    case = per_image.of_probabilities(["x"], np.array([1]), np.float32([[1, 0]]))
    assert metrics.log_loss(case) == pytest.approx(math.log(1e7))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_best_classes_tell_the_same_or_nothing(seed: int, k: int) -> None:
    """Whatever is known from k classes is what all probabilities say."""
    ids, labels, probabilities = random_case(seed)
    k = min(k, probabilities.shape[1])
    ranked = top_classes.best(probabilities, k)
    values = np.take_along_axis(probabilities, ranked, axis=1)
    few = per_image.join([per_image.of_ranked(ids, labels, ranked, values)])
    whole = found(seed)
    for n in range(1, k + 1):
        assert metrics.accuracy(few, n) == metrics.accuracy(whole, n)
    assert metrics.gap(few) == metrics.gap(whole)
    assert metrics.calibration(few).error == metrics.calibration(whole).error
    all_there = ((whole.rank <= k) | ~whole.labelled).all()
    for value in (metrics.log_loss, lambda x: metrics.accuracy(x, k + 1)):
        assert value(few) == (value(whole) if all_there else None)


@pytest.mark.parametrize("seed", SEEDS)
def test_classes_and_pairs_against_pandas(seed: int) -> None:
    _, labels, probabilities = random_case(seed)
    classes = probabilities.shape[1]
    frame = pd.DataFrame({"label": labels, "predicted": probabilities.argmax(axis=1)})
    frame = frame[frame.label >= 0]
    every = range(classes)
    table = pd.crosstab(frame.label, frame.predicted).reindex(
        index=every, columns=every, fill_value=0
    )
    right = np.diag(table)
    made = metrics.per_class(found(seed), classes)
    np.testing.assert_array_equal(made.images, table.sum(axis=1))
    np.testing.assert_array_equal(made.predicted, table.sum(axis=0))
    np.testing.assert_array_equal(made.hits, right)
    with np.errstate(invalid="ignore"):
        precision = right / table.sum(axis=0).to_numpy()
        recall = right / table.sum(axis=1).to_numpy()
        np.testing.assert_allclose(made.precision, precision)
        np.testing.assert_allclose(made.recall, recall)
        both = (made.hits > 0).nonzero()
        f1 = 2 * precision * recall / (precision + recall)
        np.testing.assert_allclose(made.f1[both], f1[both])
    pairs = [
        (-int(table.loc[a, b]), a, b)
        for a in every
        for b in every
        if a != b and table.loc[a, b]
    ]
    expected = [[a, b, -count] for count, a, b in sorted(pairs)]
    assert metrics.confusions(found(seed)).tolist() == expected


def test_f1_of_what_is_neither_there_nor_predicted() -> None:
    case = per_image.of_probabilities(["x"], np.array([0]), np.float32([[1, 0, 0]]))
    made = metrics.per_class(case, 3)
    np.testing.assert_array_equal(made.f1, [1, np.nan, np.nan])
    np.testing.assert_array_equal(made.recall, [1, np.nan, np.nan])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_worst_mistakes_come_first(seed: int) -> None:
    case = found(seed, missing=2)
    rows = [
        (-case.confidence[at], case.probability[at], case.ids[at], at)
        for at in range(len(case.ids))
        if case.labels[at] >= 0
        and case.predicted[at] >= 0
        and case.labels[at] != case.predicted[at]
    ]
    assert metrics.mistakes(case).tolist() == [row[-1] for row in sorted(rows)]


@pytest.mark.parametrize("seed", SEEDS)
def test_calibration_against_a_loop(seed: int) -> None:
    case = found(seed, missing=1)
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(15)]
    for at in range(len(case.ids)):
        if case.labels[at] >= 0 and case.predicted[at] >= 0:
            confidence = float(case.confidence[at])
            here = next(m for m in range(15) if confidence <= (m + 1) / 15)
            bins[here].append((confidence, case.labels[at] == case.predicted[at]))
    total = sum(map(len, bins))
    error = sum(
        abs(sum(right for _, right in rows) - sum(x for x, _ in rows)) for rows in bins
    )
    made = metrics.calibration(case)
    assert made.images.tolist() == list(map(len, bins))
    assert made.error == pytest.approx(error / total)


def test_calibration_by_hand() -> None:
    """Four answers at 0.95, three of them right; one at 0.3 that is wrong."""
    pairs = [(0.95, True), (0.95, True), (0.95, True), (0.95, False), (0.3, False)]
    made = metrics.calibration(of_confidences(pairs))
    assert made.images.tolist() == [0, 0, 0, 0, 1] + [0] * 9 + [4]
    assert made.accuracy[14] == 0.75
    assert made.confidence[14] == pytest.approx(0.95)
    assert np.isnan(made.accuracy[3])
    assert made.error == pytest.approx((4 * 0.2 + 0.3) / 5)


def test_buckets_by_hand() -> None:
    """Classes of 0, 5, 6 and 3,000 training images; none between 7 and 2,000."""
    probabilities = np.float32(
        [[0.7, 0.1, 0.1, 0.1], [0.6, 0.2, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1]]
    )
    case = per_image.of_probabilities(list("xyz"), np.array([0, 1, 2]), probabilities)
    made = metrics.buckets(case, np.array([0, 5, 6, 3000]))
    assert made == [
        (0, 0, 1, 1, 1, 1),
        (1, 5, 1, 1, 0, 1),
        (6, 20, 1, 1, 1, 1),
        (2001, None, 1, 0, None, None),
    ]


def test_coverage_by_hand() -> None:
    case = of_confidences([(0.9, True), (0.8, False), (0.7, True), (0.6, False)])
    made = metrics.coverage(case, (0.25, 0.5, 0.75, 1))
    assert made.tolist() == [1, 1 / 2, pytest.approx(2 / 3), 1 / 2]


@pytest.mark.parametrize("seed", SEEDS)
def test_parts_and_their_order_do_not_matter(seed: int) -> None:
    ids, labels, probabilities = random_case(seed)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(ids))
    cuts = np.sort(rng.integers(0, len(ids) + 1, 3))
    parts = [
        per_image.of_probabilities(
            [ids[at] for at in part], labels[part], probabilities[part]
        )
        for part in np.split(order, cuts)
    ]
    whole, joined = found(seed), per_image.join(parts)
    assert joined.ids == whole.ids == sorted(ids)
    for name in ("labels", "predicted", "confidence", "probability", "rank"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.5])
@pytest.mark.parametrize("form", ["probabilities", "ranked"])
def test_what_is_no_probability_is_refused(bad: float, form: str) -> None:
    values = np.full((3, 2), 0.5, np.float32)
    values[1] = bad
    ids, labels = list("xyz"), np.zeros(3, int)
    if form == "ranked":
        reduce, rest = per_image.of_ranked, (np.array([[0, 1]] * 3), values)
    else:
        reduce, rest = per_image.of_probabilities, (values,)
    with pytest.raises(RunError, match=r"best probability of 'y' is .*1 of 3 images"):
        reduce(ids, labels, *rest)


def test_a_nan_anywhere_in_a_row_is_seen() -> None:
    values = np.float32([[0.1, 0.8, np.nan]])
    with pytest.raises(RunError, match="'x' is nan"):
        per_image.of_probabilities(["x"], np.array([0]), values)


def test_memory_is_that_of_a_part() -> None:
    """80 parts of 4 MB; numpy tells tracemalloc what it allocates."""
    part, classes = 200, 5000

    def parts() -> Iterator[RowBatch]:
        rng = np.random.default_rng(0)
        for number in range(80):
            values = rng.random((part, classes), np.float32)
            yield RowBatch([f"{number} {row}" for row in range(part)], None, values)

    labels = {f"{number} {row}": row for number in range(80) for row in range(part)}
    numbers = ClassIndex(tuple(map(str, range(classes))))
    tracemalloc.start()
    made = match(parts(), Labels(labels, stems=False), numbers)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(made.outcomes.ids) == 80 * part
    assert peak < 6 * part * classes * 4
