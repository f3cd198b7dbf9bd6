"""MODEL → MODEL/report.html: what was trained, how, and what came of it."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from pipeline.dataset import manifest
from pipeline.dataset.manifest import Dataset
from pipeline.dataset.record import BadRecordError
from pipeline.page import charts, rendering
from pipeline.page.charts import Chart
from pipeline.storage import object_paths
from pipeline.storage.object_paths import AnyPath
from pipeline.system import console, startup_log
from pipeline.system.errors import RunError
from trainer import curves
from trainer.options import ReportOptions
from trainer.recipe import LAYERS
from trainer.report import evaluated
from trainer.report.facts import RunFacts
from trainer.training import history
from trainer.training.history import Row

FILE = "report.html"
_MADE_BY = "make report"
_TEMPLATE = Path(__file__).with_name("page.html.j2")
_ROWS = 100  # of a table: the last ones
_SHARES = {"gap", "log_loss"}  # of the metrics, those that are none


def run(options: ReportOptions) -> None:
    """Writes the page of a run, complete or not, and says where it is.

    Raises:
        RunError: there is no run; the dataset or the evaluation are not its own; or a
            file of others is where the page is to be.
    """
    folder = options.model
    facts = RunFacts.read(folder)
    rendering.refuse_other_file(
        folder / FILE, made_by=_MADE_BY, advice="move it elsewhere, or remove it"
    )
    evaluation = None
    if options.evaluation:
        evaluation = evaluated.read(options.evaluation, folder, facts.result)
    dataset = _dataset(facts, options.dataset)
    pictures = []
    if dataset and facts.recipe.augmentation.changes:
        try:
            with startup_log.kept():
                from trainer.report import augmented  # here: it takes TensorFlow

                pictures = augmented.read(
                    dataset, facts.recipe, seed=facts.run.get("seed") or 0
                )
        except BadRecordError as error:
            raise RunError(
                f"DATASET {dataset.folder} is damaged: {error}. `make verify` says all "
                "that is wrong."
            ) from error
    rows = facts.rows
    stands = history.in_words(rows) if rows else "no epoch is done yet"
    page = rendering.render(
        _TEMPLATE,
        made_by=_MADE_BY,
        title=f"MODEL {folder.resolve().name}",
        facts=facts,
        stands=stands,
        best=history.best(rows),
        layers=LAYERS,
        mean_rate=_mean(rows, "images_per_second"),
        mean_wait=_mean(rows, "input_wait"),
        charts=_charts(rows),
        dataset=dataset,
        pictures=pictures,
        evaluation=evaluation,
        no_shares=_SHARES,
        rows_shown=_ROWS,
    )
    rendering.write(folder / FILE, page)
    console.conclude(f"{folder / FILE}: {stands}")


def _dataset(facts: RunFacts, given: AnyPath | None) -> Dataset | None:
    """Returns the dataset of the run, where it is at hand.

    Raises:
        RunError: the one that was given is another one.
    """
    if given is None:
        noted = facts.starts[-1]["dataset"] if facts.starts else ""
        if not noted or object_paths.is_remote(
            noted
        ):  # a store is asked if it is named
            return None
        try:
            found = manifest.load(Path(noted))
        except (RunError, OSError):  # it was moved, or is not mounted here
            return None
        return found if found.fingerprint == facts.run["dataset"] else None
    dataset = manifest.load(given)
    if dataset.fingerprint != facts.run["dataset"]:
        raise RunError(
            f"DATASET {given} is not the one that MODEL {facts.folder} is trained on: "
            f"its dataset.json has sha256 {dataset.fingerprint}, and that of the run "
            f"{facts.run['dataset']}. Name that one, or leave the flag out."
        )
    return dataset


def _mean(rows: Sequence[Row], name: str) -> float | None:
    """Returns the mean of a column over the epochs; None without one."""
    return sum(row[name] for row in rows) / len(rows) if rows else None


def _charts(rows: Sequence[Row]) -> dict[str, Chart]:
    """Returns a chart of each kind, by its title."""
    if not rows:
        return {}
    made = {}
    for title, draw in {**curves.CHARTS, "input wait, %": curves.draw_wait}.items():
        with charts.style():
            figure, axes = charts.new_axes()
            draw(axes, rows)
            if axes.get_legend():
                charts.legend(axes, columns=2)
            axes.set_xlabel("epoch")
            made[title] = charts.finish(figure, f"{title}, by epoch", _shown(axes))
    return made


def _shown(axes: Axes) -> Iterable[str]:
    """Yields the first, the last and the extreme values of each line in words."""
    for line in axes.lines:
        epochs, values = (
            np.asarray(data).tolist() for data in (line.get_xdata(), line.get_ydata())
        )
        if len(values) < 2 and str(line.get_label()).startswith("_"):
            continue  # the ring around the best epoch
        last = len(values) - 1
        places = sorted({0, values.index(min(values)), values.index(max(values)), last})
        points = ", ".join(f"{values[n]:.4g} in epoch {epochs[n]}" for n in places)
        yield f"{line.get_label()}: {points}"
