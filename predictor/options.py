"""Options of the verbs of `python -m predictor`: each field is a flag."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.dataset.manifest import SPLITS
from pipeline.dataset.shard_cache import ShardCacheOptions
from pipeline.options import WorkersOption
from pipeline.storage.flag_paths import local_path_option, path_option
from pipeline.storage.object_paths import AnyPath
from pipeline.system.command_line import group, option, passed_on
from pipeline.system.errors import UsageError
from predictor.format.file_format import Format
from trainer.options import DeviceOptions


@dataclass(frozen=True, kw_only=True)
class PredictionRequest:
    """What is predicted, and where it goes."""

    model: AnyPath = path_option("Names MODEL, as `make train` makes it.")
    folder: AnyPath = path_option(
        "Names the folder to make, PREDICTIONS, here or in a store.", name="predictions"
    )
    format: Format = group(Format)
    dataset: AnyPath | None = path_option(
        "Names DATASET, whose split is predicted; by default --images says what is.",
        None,
    )
    images: AnyPath | None = path_option(
        "Names photos to predict: a folder, a CSV of ids, or a .tar; by default those "
        "of --dataset are.",
        None,
    )
    split: str = option(
        "Chooses the split that is predicted; it need not be labelled.",
        "test",
        choices=SPLITS,
    )
    sample_submission: AnyPath | None = path_option(
        "Names a CSV whose ids a submission has to have, in its order; by default a "
        "submission has the ids of the images.",
        None,
    )
    max_reject_fraction: float = option(
        "Fails the run if a larger share of --images cannot be used.",
        0.01,
        lower_bound=0,
        upper_bound=1,
    )

    def __post_init__(self) -> None:
        if bool(self.dataset) == bool(self.images):
            raise UsageError(
                "give one of --dataset and --images: what is to be predicted"
            )
        if self.sample_submission and self.format.kind != "submission":
            raise UsageError("--sample_submission goes with --format=submission")

    def source_in_words(self) -> str:
        """Returns what is predicted, and with what."""
        of = f"IMAGES {self.images}"
        if self.dataset:
            of = f"{self.split} of DATASET {self.dataset}"
        return f"{of}, by MODEL {self.model}"


@dataclass(frozen=True, kw_only=True)
class BatchOption:
    """How many images are predicted at once."""

    batch_size: int = option(
        "Sets the batch size over all replicas.", 64, lower_bound=1
    )


@dataclass(frozen=True, kw_only=True)
class PredictOptions(BatchOption, DeviceOptions, ShardCacheOptions, WorkersOption):
    """What `predict` does."""

    request: PredictionRequest = group(PredictionRequest)
    writers: int | None = option(
        "Sets the number of processes that write, with --runner=local; by default 2 "
        "for each GPU, else 1.",
        None,
        lower_bound=1,
    )
    runner: str = option(
        "Says where predictions are made: local, dask, flink, spark, dataflow, or any "
        "runner of Beam, which takes --workers.",
        "local",
    )
    beam_arguments: Sequence[str] = passed_on()

    def __post_init__(self) -> None:
        if self.runner == "local" and self.beam_arguments:
            raise UsageError(
                "nothing takes what follows `--` without another --runner: "
                f"{' '.join(self.beam_arguments)}"
            )
        if self.runner != "local" and self.writers:
            raise UsageError(
                "--writers is for --runner=local: a worker of another runner writes "
                "its shards itself. Leave it out, and use --workers"
            )


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(BatchOption, DeviceOptions, ShardCacheOptions):
    """What `evaluate` judges."""

    evaluation: Path = local_path_option(
        "Names the folder to make.", Path("evaluation")
    )
    model: AnyPath | None = path_option(
        "Names MODEL, which predicts a split of DATASET; by default --predictions are "
        "judged.",
        None,
    )
    dataset: AnyPath | None = path_option(
        "Names DATASET, which has the labels; by default --labels has them.", None
    )
    split: str = option(
        "Chooses the split of DATASET, which must be labelled.", "test", choices=SPLITS
    )
    predictions: AnyPath | None = path_option(
        "Names PREDICTIONS that were made; by default MODEL predicts.", None
    )
    labels: AnyPath | None = path_option(
        "Names a CSV `id,label`, or Kaggle's `id,landmarks`; by default DATASET has "
        "the labels.",
        None,
    )


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(ShardCacheOptions, WorkersOption):
    """What `verify` reads."""

    predictions: AnyPath = path_option("Names PREDICTIONS.")
    dataset: AnyPath | None = path_option(
        "Names DATASET that was predicted, whose ids are compared; by default the "
        "checksum of the ids is.",
        None,
    )
    model: AnyPath | None = path_option(
        "Names MODEL that predicted, to be compared; by default it is not.", None
    )
