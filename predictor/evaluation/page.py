"""evaluation.html: an evaluation for people, in one file, by page.html.j2."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.page import rendering
from predictor.evaluation import charts, results
from predictor.evaluation.image_table import PICTURES
from predictor.evaluation.results import DEFINITIONS, Evaluation

FILE = "evaluation.html"
_TEMPLATE = Path(__file__).with_name("page.html.j2")
_ROWS = 30  # of a table
_NAMES = 100  # of classes in a list
_MATRIX = 24  # classes that a matrix has room for


def html(evaluation: Evaluation, pictures: Mapping[str, bytes]) -> str:
    """Returns the page: one file that needs nothing else.

    Args:
        evaluation: what was measured.
        pictures: JPEGs of images by id, as many as there are.
    """
    found, totals = evaluation.per_class, evaluation.totals
    # The classes of the lowest recall; of equal ones those of the most images.
    seen = found[found["images"] > 0].sort_values(
        ["recall", "images"], ascending=[True, False], kind="stable"
    )
    return rendering.render(
        _TEMPLATE,
        made_by="make evaluate",
        evaluation=evaluation,
        totals=totals,
        counts=evaluation.counts,
        seen=len(seen),
        guess=float(np.log(evaluation.known or len(evaluation.classes))),
        of="evaluated" if evaluation.frequency is None else "training",
        charts={
            "frequency": charts.by_frequency(evaluation.buckets),
            "reliability": charts.reliability(evaluation.calibration),
            "recalls": charts.recalls(found["recall"]),
        },
        mistakes=_rows(evaluation.mistakes.head(PICTURES)),
        pictures=pictures,
        confusions=_rows(evaluation.confusions.head(_ROWS)),
        matrix=_matrix(evaluation),
        lowest=_rows(seen.head(_ROWS)),
        names_shown=_NAMES,
        rows_shown=_ROWS,
        files=results,
        definitions=DEFINITIONS,
    )


def _rows(found: pd.DataFrame) -> list[dict[str, object]]:
    """Returns rows for the template; what is not known is None."""
    return found.astype(object).where(found.notna(), None).to_dict("records")


def _matrix(evaluation: Evaluation) -> list[list[int]] | None:
    """Returns images by label (rows) and prediction; None of too many classes."""
    classes, pairs = list(evaluation.classes), evaluation.confusions
    if len(classes) > _MATRIX or not len(pairs):
        return None
    counts = np.diag(evaluation.per_class["true_positives"])
    labels, predicted = (pairs[x].map(classes.index) for x in ("label", "predicted"))
    counts[labels, predicted] = pairs["count"]
    found: list[list[int]] = counts.tolist()
    return found
