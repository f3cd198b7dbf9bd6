"""The figures of an evaluation of MODEL, which `make evaluate` has written."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from pipeline.storage import atomic
from pipeline.system.errors import RunError

_FIGURES, _PAGE = "evaluation.json", "evaluation.html"


class Evaluated(NamedTuple):
    """An evaluation.

    Attributes:
        metrics: by name; None where one is not known.
        labelled: images that were evaluated.
        link: to its page, relative to MODEL; "" where it has none.
    """

    metrics: Mapping[str, float | None]
    labelled: int
    link: str


def read(folder: Path, model: Path, result: Mapping[str, Any]) -> Evaluated:
    """Reads an evaluation, and holds it to the model.

    Args:
        folder: of the evaluation.
        model: MODEL, which the link is relative to.
        result: model.json; {} where the run is not complete.

    Raises:
        RunError: there is no evaluation, or it is one of another model.
    """
    path = folder / _FIGURES
    if not path.is_file():
        raise RunError(
            f"--evaluation={folder} has no {_FIGURES}. `make evaluate` writes it."
        )
    value = atomic.read_json(path)
    evaluated, mine = value["source"].get("model"), result.get("sha256")
    if evaluated != mine:
        raise RunError(
            f"--evaluation={folder} is not of MODEL {model}: it evaluated the model "
            f"of sha256 {evaluated}, and this one has {mine}. Name an evaluation of "
            "this model, or make one: `make evaluate`."
        )
    link = ""
    if (folder / _PAGE).is_file():
        link = quote(os.path.relpath(folder / _PAGE, model))
    return Evaluated(value["metrics"], value["images"]["labelled"], link)
