"""Options of the verbs of `python -m benchmarks`: what has a help text is a flag."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.dataset.manifest import SPLITS, ImageContract
from pipeline.options import WorkersOption
from pipeline.storage.flag_paths import local_path_option, path_option
from pipeline.storage.object_paths import AnyPath
from pipeline.system.command_line import group, option, passed_on
from trainer.options import DeviceOptions, RecipeOptions
from trainer.recipe import Recipe


def _repeats(count: int) -> Any:
    return option("Sets the repetitions of each measurement.", count, lower_bound=1)


@dataclass(frozen=True, kw_only=True)
class OutputOption:
    """Where the results go."""

    output: Path = local_path_option(
        "Names the folder for JSON and charts; it is made.", Path("bench")
    )


@dataclass(frozen=True, kw_only=True)
class InputOptions(DeviceOptions, OutputOption):
    """What `input` measures.

    Attributes:
        seconds: that a measurement takes.
        epochs: over which the memory is watched.
    """

    dataset: AnyPath = path_option("Names DATASET, as `make shards` makes it.")
    images: Path | None = local_path_option(
        "Names the root of the original photos, for what people read without shards; "
        "by default that is not measured.",
        None,
    )
    recipe: Recipe = group(RecipeOptions, convert=RecipeOptions.chosen)
    repeats: int = _repeats(5)
    seconds: float = 1.0
    epochs: int = 50


@dataclass(frozen=True, kw_only=True)
class FeaturesOptions(DeviceOptions, OutputOption):
    """What `features` measures.

    Attributes:
        epochs: from pixels and from float32, at least `repeats`; of the other dtypes
            there are as many as repeats.
        seconds: that the frozen layers alone are measured.
    """

    dataset: AnyPath = path_option("Names DATASET, as `make shards` makes it.")
    recipe: Recipe = group(RecipeOptions, convert=RecipeOptions.chosen)
    repeats: int = _repeats(3)
    epochs: int = 10
    seconds: float = 10.0


@dataclass(frozen=True, kw_only=True)
class ShardsOptions(WorkersOption, OutputOption):
    """What `shards` measures.

    Attributes:
        seconds: that decoding is measured.
    """

    images: Path = local_path_option(
        "Names the root of the photos; 256 JPEGs among them are used at most."
    )
    contract: ImageContract = group(ImageContract, height=150, width=200)
    bench_images: int = option(
        "Sets the images of the large job, for which the photos are repeated. A "
        "baseline converts as many in all repeats together.",
        3000,
        lower_bound=2,
    )
    repeats: int = _repeats(3)
    seed: int = option("Seeds the choice among more photos.", 0)
    beam_arguments: Sequence[str] = passed_on()
    seconds: float = 1.0

    @property
    def small(self) -> int:
        """Returns the images of the small job, an eighth."""
        return max(1, self.bench_images // 8)


@dataclass(frozen=True, kw_only=True)
class PredictionsOptions(OutputOption):
    """What `predictions` measures.

    Attributes:
        seconds: that writing is measured.
        rows: few and many, of which the memory is compared.
    """

    dataset: AnyPath = path_option("Names DATASET, as `make shards` makes it.")
    split: str = option(
        "Chooses the split that is predicted; its first shards, until they suffice.",
        "test",
        choices=SPLITS,
    )
    repeats: int = _repeats(3)
    seconds: float = 2.0
    rows: tuple[int, int] = (1_000, 20_000)
