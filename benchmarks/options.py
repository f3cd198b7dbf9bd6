"""What each benchmark is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.dataset.manifest import ImageContract
from pipeline.storage.object_paths import AnyPath
from trainer.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class ShardsOptions:
    """Of the shard job.

    Attributes:
        images: a root of photos; the JPEGs among them are used, up to 256.
        output: folder to make, for the results.
        contract: of the stored images.
        bench_images: of the large job, by repeating the photos; at least two. A
            baseline converts as many in all repeats together.
        workers: processes, on both sides.
        repeats: of every measurement.
        seconds: that decoding is measured.
        seed: chooses among more photos.
        beam_arguments: options for Beam.
    """

    images: Path
    output: Path
    contract: ImageContract
    bench_images: int
    workers: int
    repeats: int = 3
    seconds: float = 1.0
    seed: int = 0
    beam_arguments: Sequence[str] = ()

    @property
    def small(self) -> int:
        """Returns the images of the small job, an eighth."""
        return max(1, self.bench_images // 8)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Of what trains.

    Attributes:
        dataset: DATASET.
        output: folder to make, for the results.
        recipe: of the model, in its last phase.
        repeats: of every measurement.
        virtual_devices, cpu: see distribution.strategy.
    """

    dataset: AnyPath
    output: Path
    recipe: Recipe
    repeats: int = 3
    virtual_devices: int | None = None
    cpu: bool = False


@dataclass(frozen=True, kw_only=True)
class InputOptions(TrainingOptions):
    """Of the input pipeline.

    Attributes:
        images: originals, for what people read without shards.
        seconds: that a measurement takes.
        epochs: over which the memory is watched.
    """

    images: Path | None = None
    repeats: int = 5
    seconds: float = 1.0
    epochs: int = 50


@dataclass(frozen=True, kw_only=True)
class FeaturesOptions(TrainingOptions):
    """Of training from features.

    Attributes:
        epochs: from pixels and from float32, at least `repeats`; of the other dtypes
            there are as many as repeats.
        seconds: that the frozen layers alone are measured.
    """

    epochs: int = 10
    seconds: float = 10.0


@dataclass(frozen=True, kw_only=True)
class PredictionsOptions:
    """Of the writing of predictions.

    Attributes:
        dataset: DATASET.
        output: folder to make, for the results.
        split: whose images are predicted; its first shards, until they are enough.
        repeats: of every measurement.
        seconds: that writing is measured.
        rows: few and many, of which the memory is compared.
    """

    dataset: AnyPath
    output: Path
    split: str = "test"
    repeats: int = 3
    seconds: float = 2.0
    rows: tuple[int, int] = (1_000, 20_000)
