"""What MODEL holds of its run, finished or not; read without TensorFlow."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from pipeline.storage import atomic
from pipeline.system.errors import RunError
from trainer import contract
from trainer.recipe import Augmentation, Recipe
from trainer.training import history, starts
from trainer.training.history import Row


class Snapshot(NamedTuple):
    """A model of the epoch, its accuracy on the validation split, its bytes."""

    epoch: int
    accuracy: float
    bytes: int


class Replaced(NamedTuple):
    """A field of the recipe that the run has otherwise, and both values in words."""

    field: str
    usual: str
    chosen: str


@dataclass(frozen=True)
class RunFacts:
    """A run.

    Attributes:
        folder: MODEL.
        result: model.json; {} where the run is not complete.
        rows: of history.csv.
        run: what a run must have in common with the run that it resumes.
        recipe: what it does.
        starts: see starts.add; none where an earlier release trained it.
    """

    folder: Path
    result: Mapping[str, Any]
    rows: Sequence[Row]
    run: Mapping[str, Any]
    recipe: Recipe
    starts: Sequence[Mapping[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads a run.

        Raises:
            RunError: no run has begun there, or one of an earlier release that is
                not complete.
        """
        path = folder / contract.MANIFEST
        result = atomic.read_json(path) if path.is_file() else {}
        noted = starts.read(folder)
        value = noted or result
        if not value:
            raise RunError(
                f"MODEL {folder} has neither {contract.MANIFEST} nor {starts.FILE}: no "
                "run has begun there, or one of an earlier release that is not "
                "complete. Begin it, or go on with it: `make train`."
            )
        return cls(
            folder=folder,
            result=result,
            rows=history.read(folder / history.FILE),
            run=value["run"],
            recipe=_recipe(value["recipe"]),
            starts=noted.get("starts", []),
        )

    @property
    def complete(self) -> bool:
        """Returns whether there is a result of as many epochs as the run has."""
        return self.result.get("epochs", 0) >= self.recipe.epochs

    @property
    def replaced(self) -> list[Replaced]:
        """The fields of the recipe that flags have replaced."""
        return [
            Replaced(name, _in_words(usual), _in_words(chosen))
            for name, (usual, chosen) in self.recipe.replaced().items()
        ]

    @property
    def recipe_in_words(self) -> list[str]:
        """What the run does; what flags have replaced has a table of its own."""
        lines = [line.strip() for line in self.recipe.in_words()]
        return lines[:-1] if self.replaced else lines

    @property
    def snapshots(self) -> list[Snapshot]:
        """Those that are there, by epoch."""
        from trainer.training import snapshots  # here: Keras takes seconds

        return sorted(
            Snapshot(epoch, accuracy, path.stat().st_size)
            for epoch, accuracy, path in snapshots.found(self.folder)
        )

    @property
    def seconds(self) -> float:
        """Of all epochs, training and validation, without saving."""
        return float(sum(row["seconds"] for row in self.rows))


def _recipe(value: Mapping[str, Any]) -> Recipe:
    """Returns a recipe of its JSON, of this release or an earlier one."""
    known = {field.name for field in dataclasses.fields(Recipe)}
    values = {name: value[name] for name in value.keys() & known}
    return Recipe(**values | {"augmentation": Augmentation(**value["augmentation"])})


def _in_words(value: Any) -> str:
    if isinstance(value, Augmentation):
        on = (f"{x} {y}" for x, y in vars(value).items() if y != getattr(_NONE, x))
        return ", ".join(on) or "none"
    return str(value)


_NONE = Augmentation()
