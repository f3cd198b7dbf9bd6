"""evaluation.html: an evaluation for people, in one file."""

from collections.abc import Iterator, Mapping
from itertools import chain

import numpy as np

from predictor.evaluation import tables
from predictor.evaluation.results import CURVE, DEFINITIONS, Evaluation
from predictor.page import charts, html_page
from predictor.page.html_page import named
from predictor.page.markup import Html, join, tag

FILE = "evaluation.html"
PICTURES = 48
_ROWS = 30  # of a table
_NAMES = 100  # of classes in a list
_MATRIX = 24  # classes that a matrix has room for
_UNKNOWN = "not known"


def html(evaluation: Evaluation, pictures: Mapping[str, bytes]) -> str:
    """The page.

    Args:
        evaluation: what was measured.
        pictures: JPEGs of images by id, as many as there are.
    """
    return html_page.page(
        evaluation.title,
        *_counted(evaluation),
        _headline(evaluation),
        *_plots(evaluation),
        *_mistakes(evaluation, pictures),
        *_confusions(evaluation),
        _classes(evaluation),
        _never_predicted(evaluation),
        _definitions(evaluation),
    )


def _counted(evaluation: Evaluation) -> Iterator[Html]:
    """What the figures are of, and what is odd about it."""
    counts, classes = evaluation.counts, evaluation.classes
    yield html_page.quiet(
        f"{_count(counts['labelled'])} labelled images of "
        f"{_count(int((evaluation.per_class.images > 0).sum()))} classes, out of "
        f"{_count(len(classes))}; {_count(counts['distractors'])} distractors"
    )
    for name, ids, what in (
        (
            "without_prediction",
            evaluation.matched.without_prediction,
            "labelled images have no prediction, and count as wrong",
        ),
        (
            "without_label",
            evaluation.matched.without_label,
            "predictions have no label, and count nowhere",
        ),
    ):
        if counts[name]:
            yield _warning(f"{_count(counts[name])} {what}: ", *_list(ids, 3))
    if counts["unknown_class"]:
        yield _warning(
            f"{_count(counts['unknown_class'])} images show a class that the model "
            "does not have. They count as wrong, except in the log-loss, where they "
            "are left out: ",
            *_list(classes[evaluation.known :], 3),
        )


def _headline(evaluation: Evaluation) -> Html:
    totals = evaluation.totals
    baseline = f"always the commonest class: {_share(totals['commonest_class'])}"
    figures = (
        ("top_1", _share, "Top-1 accuracy", baseline),
        ("top_5", _share, "Top-5 accuracy", "label among the five best"),
        ("gap", _four, "GAP", "Kaggle's micro average precision"),
        (
            "log_loss",
            _four,
            "Log-loss",
            f"of a uniform guess: {_guess(evaluation):.4f}",
        ),
        ("macro_recall", _share, "Mean recall", "every class weighs the same"),
        ("macro_precision", _share, "Mean precision", "of the classes predicted"),
        ("macro_f1", _share, "Mean F1", "of the classes seen or predicted"),
        ("calibration_error", _share, "Calibration error", "confidence against truth"),
    )
    cards = (
        html_page.card(form(totals[name]), title, about)
        for name, form, title, about in figures
    )
    return html_page.grid("cards", cards)


def _guess(evaluation: Evaluation) -> float:
    """The log-loss of who knows nothing but the number of classes."""
    return float(np.log(evaluation.known or len(evaluation.classes)))


def _plots(evaluation: Evaluation) -> Iterator[Html]:
    """Plots, and the numbers of the first as a table."""
    of = "training" if evaluation.frequency is not None else "evaluated"
    by_frequency = f"Accuracy by {of} images of the class"
    drawn = (
        (
            charts.by_frequency(evaluation.buckets),
            by_frequency,
            "In brackets, how many images were evaluated.",
        ),
        (
            charts.reliability(evaluation.calibration),
            "Reliability",
            "How often an answer of some confidence is right: on the dashed line, as "
            "often as it says; below it, the model is too sure.",
        ),
        (
            charts.recalls(evaluation.per_class.recall),
            "Classes by recall",
            "How many classes have which share of their images recognized.",
        ),
        (
            charts.coverage(CURVE, evaluation.coverage),
            "Accuracy by coverage",
            "When only the most confident predictions are used.",
        ),
    )
    yield html_page.section(
        "At a glance", html_page.grid("plots", (html_page.plot(*one) for one in drawn))
    )
    yield html_page.section(
        by_frequency,
        html_page.table(
            ("images of a class", "classes", "evaluated images", "top 1", "top 5"),
            (
                (
                    tag("span", charts.in_words(bucket)),
                    _count(bucket.classes),
                    _count(bucket.images),
                    _share(bucket.top_1, nothing=not bucket.images),
                    _share(bucket.top_5, nothing=not bucket.images),
                )
                for bucket in evaluation.buckets
            ),
            "",
        ),
    )


def worst(evaluation: Evaluation) -> list[str]:
    """Ids of the images that the page shows."""
    shown = evaluation.mistakes[:PICTURES]
    return [evaluation.outcomes.ids[at] for at in shown]


def _mistakes(evaluation: Evaluation, pictures: Mapping[str, bytes]) -> Iterator[Html]:
    outcomes, names = evaluation.outcomes, evaluation.classes
    count = len(evaluation.mistakes)
    if not count:
        yield html_page.section("Worst mistakes", html_page.quiet("There is none."))
        return
    photos = []
    for at in evaluation.mistakes[:PICTURES]:
        image_id = outcomes.ids[at]
        label, predicted = names[outcomes.labels[at]], names[outcomes.predicted[at]]
        own = _share(_known(outcomes.probability[at]))
        photos.append(
            html_page.photo(
                pictures.get(image_id),
                image_id,
                tag("b", named(predicted), f" {_share(outcomes.confidence[at])}"),
                join(["is ", tag("b", named(label)), f" {own}"]),
                named(image_id),
            )
        )
    note = (
        f"The most confident of {_count(count)} mistakes: what the model said, what "
        f"the label says, and the probability of each. {tables.MISTAKES} lists more."
    )
    if not pictures:
        note += " There are no pictures without the DATASET that was predicted."
    yield html_page.section(
        "Worst mistakes", html_page.quiet(note), html_page.grid("photos", photos)
    )


def _confusions(evaluation: Evaluation) -> Iterator[Html]:
    """The pairs, and for few classes all of them as a matrix."""
    pairs, images = evaluation.confusions, evaluation.per_class.images
    names = evaluation.classes
    if not len(pairs):
        return
    rows = (
        (
            named(names[label]),
            named(names[predicted]),
            _count(count),
            _share(count / images[label]),
        )
        for label, predicted, count in pairs[:_ROWS]
    )
    note = _more(len(pairs), _ROWS, "pairs", tables.CONFUSIONS)
    header = ("label", "predicted", "images", "share of the label")
    content = [html_page.table(header, rows, note)]
    if len(names) <= _MATRIX:
        counts = np.diag(evaluation.per_class.hits)
        counts[pairs[:, 0], pairs[:, 1]] = pairs[:, 2]
        about = "Rows are labels, columns predictions, in the same order."
        content += [html_page.quiet(about), html_page.matrix(names, counts.tolist())]
    yield html_page.section("Most confused", *content)


def _classes(evaluation: Evaluation) -> Html:
    """The classes of the lowest recall; of equal ones those of the most images."""
    found, frequency = evaluation.per_class, evaluation.frequency
    (shown,) = np.nonzero(found.images)
    shown = shown[np.lexsort((-found.images[shown], found.recall[shown]))]
    rows = (
        (
            named(evaluation.classes[at]),
            "" if frequency is None else _count(int(frequency[at])),
            *(_count(int(column[at])) for column in found),
            _share(_known(found.precision[at]), nothing=True),
            _share(found.recall[at]),
        )
        for at in shown[:_ROWS]
    )
    header = (
        *("class", "training images", "images", "predicted", "right"),
        *("precision", "recall"),
    )
    note = _more(len(evaluation.classes), _ROWS, "classes", tables.CLASSES)
    return html_page.section(
        "Classes of the lowest recall", html_page.table(header, rows, note)
    )


def _never_predicted(evaluation: Evaluation) -> Html:
    never, images = evaluation.never_predicted, evaluation.per_class.images
    if not len(never):
        return html_page.section(
            "Classes never predicted", html_page.quiet("Every class was predicted.")
        )
    missed = never[images[never] > 0]
    about = html_page.quiet(
        f"{_count(len(never))} of {_count(len(evaluation.classes))} classes; "
        f"{_count(len(missed))} of them have images here, "
        f"{_count(int(images[missed].sum()))} in all. Those with the most come first."
    )
    names = [evaluation.classes[at] for at in never[:_NAMES]]
    shown = tag("p", *_list(names, _NAMES), class_="names")
    note = _more(len(never), _NAMES, "classes", tables.CLASSES)
    return html_page.section(
        "Classes never predicted", about, shown, html_page.quiet(note)
    )


def _definitions(evaluation: Evaluation) -> Html:
    words = ((word.replace("_", " "), text) for word, text in DEFINITIONS.items())
    source = ((what.replace("_", " "), x) for what, x in evaluation.source.items() if x)
    return html_page.section(
        "What the words mean",
        html_page.terms(words),
        tag("details", tag("summary", "What was evaluated"), html_page.terms(source)),
    )


def _warning(*content: object) -> Html:
    return tag("p", *content, class_="warning")


def _list(names: list[str] | tuple[str, ...], most: int) -> list[object]:
    """The first names, and dots where there are more."""
    shown = chain.from_iterable((named(name), " ") for name in names[:most])
    return [*shown, *(["…"] if len(names) > most else [])]


def _more(count: int, shown: int, what: str, file: str) -> str:
    if count <= shown:
        return ""
    return f"The first {shown} of {_count(count)} {what}; {file} has the rest."


def _known(value: np.floating) -> float | None:
    return None if np.isnan(value) else float(value)


def _share(value: float | None, *, nothing: bool = False) -> str:
    """A share in percent; where there is none, a dash if there can be none."""
    if value is None:
        return "\N{EN DASH}" if nothing else _UNKNOWN
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def _four(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.4f}"


def _count(value: int | None) -> str:
    return _UNKNOWN if value is None else f"{value:,}"
