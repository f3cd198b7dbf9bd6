"""Options of the verbs of `python -m pipeline`: each field is a flag."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.dataset.manifest import ImageContract
from pipeline.storage.flag_paths import (
    local_path_option,
    path_option,
    paths_option,
)
from pipeline.storage.object_paths import AnyPath
from pipeline.system import resources
from pipeline.system.command_line import group, option, passed_on


@dataclass(frozen=True, kw_only=True)
class WorkersOption:
    """How many processes work."""

    workers: int = option(
        "Sets the number of processes; by default one for each core.",
        resources.cores(),
        lower_bound=1,
    )


@dataclass(frozen=True, kw_only=True)
class JobOptions(WorkersOption):
    """How a job that writes shards is run."""

    image_timeout: float = option(
        "Rejects an image after so many seconds; 0 waits for ever.", 60, lower_bound=0
    )
    runner: str = option(
        "Says where the job runs: local, dask, flink, spark, dataflow, or any runner "
        "of Beam.",
        "local",
    )
    beam_arguments: Sequence[str] = passed_on()


@dataclass(frozen=True, kw_only=True)
class PlanOptions(JobOptions):
    """What `plan` predicts: those of `shards`, of which DATASET may be left out."""

    images: AnyPath | Sequence[AnyPath] = paths_option(
        "Names the root of the photos, which has train/, validation/ and test/, or a "
        "folder for each class, or tars of these; here, or in a store "
        "(s3://BUCKET/PREFIX, gs://…, az://…). Several roots are separated by "
        "commas, or the flag is repeated."
    )
    dataset: AnyPath | None = path_option(
        "Names the folder to make, here or in a store. By default the disk of the "
        "current folder is looked at.",
        None,
    )
    manifest: AnyPath | None = path_option(
        "Names a CSV `id,label[,split]` of the photos; IMAGES/id is the file of an id. "
        "By default folders say what is there.",
        None,
    )
    classes: AnyPath | None = path_option(
        "Names classes.txt of another dataset, to give the same labels. By default the "
        "classes of IMAGES are sorted by name.",
        None,
    )
    layout: str = option(
        "Says what folders called train, validation and test are: auto takes them for "
        "splits and refuses photos beside them, splits leaves those out, classes takes "
        "every folder for a class.",
        "auto",
        choices=("auto", "splits", "classes"),
    )
    id_column: str = option("Names the column of the ids in --manifest.", "id")
    label_column: str = option(
        "Names the column of the labels in --manifest; without a column `label`, "
        "Kaggle's `landmark_id` is taken.",
        "label",
    )
    contract: ImageContract = group(ImageContract, height=150, width=200)
    shards: int | None = option(
        "Sets the number of shards of each split; by default a shard has about 1,024 "
        "images.",
        None,
        lower_bound=1,
    )
    validation_fraction: float = option(
        "Sets the share of each class that validates, where IMAGES has no splits.",
        0.1,
        lower_bound=0,
        upper_bound=0.9,
    )
    labelled_test: bool = option(
        "Says that test/ holds a folder for each class, as train/ does.", False
    )
    seed: int = option(
        "Seeds the order of the images and the choice of those that validate.",
        0,
        lower_bound=0,
        upper_bound=2**31 - 1,
    )
    max_reject_fraction: float = option(
        "Fails the run if a larger share of the images cannot be used: at once where "
        "the listing tells, else once everything is tried.",
        0.01,
        lower_bound=0,
        upper_bound=1,
    )
    overwrite: bool = option(
        "Removes what an earlier run left in DATASET, also an unfinished one of the "
        "same images and flags.",
        False,
    )
    append: bool = option(
        "Adds the images that a finished DATASET does not have yet; its shards stay as "
        "they are, and new classes follow the old ones.",
        False,
    )

    def __post_init__(self) -> None:
        if self.append and self.overwrite:
            raise ValueError("--append keeps what --overwrite removes: give one")
        if self.append and self.dataset is None:
            raise ValueError("--append needs --dataset: what is there already")


@dataclass(frozen=True, kw_only=True)
class ShardsOptions(PlanOptions):
    """What `shards` makes."""

    dataset: AnyPath = path_option(
        "Names the folder to make, here or in a store; it gets TFRecord shards."
    )


@dataclass(frozen=True, kw_only=True)
class RetryOptions(JobOptions):
    """What `retry` tries again."""

    dataset: AnyPath = path_option("Names DATASET, as `make shards` makes it.")
    images: AnyPath | Sequence[AnyPath] | None = paths_option(
        "Names the root of the photos, or several, as for `shards`. By default "
        "DATASET.source.json says where they are.",
        None,
    )
    max_pixels: int | None = option(
        "Raises the limit of pixels, for DATASET from then on. By default it stays.",
        None,
        lower_bound=1,
    )


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(WorkersOption):
    """What `verify` reads."""

    dataset: AnyPath = path_option("Names DATASET, as `make shards` makes it.")


@dataclass(frozen=True, kw_only=True)
class InspectOptions(WorkersOption):
    """What `inspect` shows."""

    dataset: AnyPath = path_option("Names DATASET, as `make shards` makes it.")
    page: Path | None = local_path_option(
        "Names the page to write; by default it is DATASET.inspect.html, beside "
        "DATASET, or in the current folder where DATASET is in a store.",
        None,
        name="inspect",
    )
    id: str | None = option(
        "Prints what DATASET has of the image of this id, in place of a page; by "
        "default of none.",
        None,
    )
    near_copies: bool = option(
        "Reads all shards, and also shows pictures that look the same: resized, "
        "encoded again, a little brighter.",
        False,
    )
    images: AnyPath | Sequence[AnyPath] | None = paths_option(
        "Names the root of the photos, or several, to show originals beside what is "
        "stored. By default DATASET.source.json says where they are.",
        None,
    )

    def __post_init__(self) -> None:
        if self.id and (self.page or self.near_copies):
            raise ValueError(
                "--id prints what there is of one image and writes no page: leave out "
                "--inspect and --near_copies"
            )
