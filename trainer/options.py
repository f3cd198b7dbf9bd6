"""Options of the verbs of `python -m trainer`: each field is a flag."""

from dataclasses import dataclass, fields, replace
from pathlib import Path

from pipeline.dataset.shard_cache import ShardCacheOptions
from pipeline.storage.flag_paths import local_path, local_path_option, path_option
from pipeline.storage.object_paths import AnyPath
from pipeline.system.command_line import group, option
from trainer.recipe import CHOICES, NO_AUGMENTATION, RECIPES, Recipe

CHECKPOINT = "checkpoint"  # in MODEL: the state of the run, and who holds MODEL
CACHES = ("auto", "none", "encoded", "decoded", "features")
FEATURE_DTYPES = ("float32", "float16", "uint8")


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """A recipe by name, and what replaces fields of it; see recipe.Recipe."""

    recipe: str = option(
        "Chooses what to do and with which numbers.", "article", choices=sorted(RECIPES)
    )
    epochs: int | None = option(
        "Sets the number of epochs, which a later run may raise unless the schedule "
        "is a cosine over them; by default the recipe's.",
        None,
    )
    batch_size: int | None = option(
        "Sets the batch size over all replicas; by default the recipe's.", None
    )
    head_epochs: int | None = option(
        "Sets how many epochs come first and train the head alone; by default the "
        "recipe's.",
        None,
    )
    head_learning_rate: float | None = option(
        "Sets the learning rate of the head's epochs; by default the recipe's.", None
    )
    learning_rate: float | None = option(
        "Sets the learning rate of the epochs after the head's; by default the "
        "recipe's.",
        None,
    )
    warmup_epochs: float | None = option(
        "Sets the warm-up of the cosine schedule, in epochs; by default the recipe's.",
        None,
    )
    label_smoothing: float | None = option(
        "Sets the share of the target that is spread over all classes; by default the "
        "recipe's.",
        None,
    )
    class_weights: float | None = option(
        "Sets the power of the inverse frequency that a class is weighted with, 0 for "
        "none; by default the recipe's.",
        None,
    )
    trainable: str | None = option(
        "Chooses the layers that are trained; by default the recipe's.",
        None,
        choices=CHOICES["trainable"],
    )
    precision: str | None = option(
        "Chooses the types that layers compute in and keep variables in; by default "
        "the recipe's.",
        None,
        choices=CHOICES["precision"],
    )
    augmentation: str = option(
        "Says whether training images are augmented as the recipe says, or not at "
        "all. --cache=features needs a recipe without augmentation, or none.",
        "recipe",
        choices=("recipe", "none"),
    )
    tf32: bool | None = option(
        "Has GPUs since Ampere round the inputs of float32 convolutions and matrix "
        "products to 10 bits of mantissa, which is faster; by default as the recipe "
        "says.",
        None,
    )
    jit: bool | None = option(
        "Compiles the frozen layers with XLA; by default as the recipe says.", None
    )
    steps_per_execution: int | None = option(
        "Sets the number of training steps in one call of TensorFlow; by default the "
        "recipe's.",
        None,
    )
    accumulate: int | None = option(
        "Sets the number of micro-batches that a batch is split into; by default the "
        "recipe's.",
        None,
    )

    def chosen(self) -> Recipe:
        """Returns the recipe with the fields that were replaced.

        Raises:
            ValueError: they do not fit each other.
        """
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        recipe = RECIPES[given.pop("recipe")]
        given["augmentation"] = (
            NO_AUGMENTATION if self.augmentation == "none" else recipe.augmentation
        )
        return replace(
            recipe,
            **{name: value for name, value in given.items() if value is not None},
        )


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """What is kept of DATASET from epoch to epoch, and where."""

    cache: str = option(
        "Chooses what is kept from epoch to epoch: JPEGs (encoded), pixels (decoded), "
        "or what the frozen layers make of them (features); auto takes what fits and "
        "pays.",
        "auto",
        choices=CACHES,
    )
    cache_folder: Path | None = local_path_option(
        "Names a folder on a local disk, kept for later runs, for features and for "
        "pixels that memory cannot hold. By default it is MODEL/cache, which is "
        "removed when the run is complete.",
        None,
        name="cache_dir",
    )
    feature_dtype: str = option(
        "Chooses how --cache=features stores features. float32 is exact; float16 takes "
        "half of its space and uint8 a quarter, and both round.",
        "float32",
        choices=FEATURE_DTYPES,
    )

    def caches(self, model: Path) -> Path:
        """Returns the folder of what is kept on disk."""
        return self.cache_folder or model / "cache"


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """What computes; see distribution.strategy."""

    virtual_devices: int | None = option(
        "Splits the CPU into so many devices; by default it is one.",
        None,
        lower_bound=1,
    )
    cpu: bool = option("Uses the CPU, even where there are GPUs.", False)


@dataclass(frozen=True, kw_only=True)
class TrainOptions(CacheOptions, DeviceOptions, ShardCacheOptions):
    """What `train` does."""

    dataset: AnyPath = path_option("Names DATASET, as `make shards` makes it.")
    model: Path = local_path_option("Names the folder to make: MODEL.")
    recipe: Recipe = group(RecipeOptions, convert=RecipeOptions.chosen)
    weights: str | None = option(
        "Says where the weights of the convolutions come from: imagenet, none (random "
        "ones), the path of a file, or a MODEL of any classes; by default imagenet.",
        None,
        read=lambda text, flag: str(local_path(text, flag)),
    )
    extend: Path | None = local_path_option(
        "Names a finished MODEL to start from, head and all, whose classes are the "
        "first of DATASET's. It stays as it is. By default the head is new.",
        None,
    )
    seed: int | None = option(
        "Makes the run deterministic, with this seed; by default it is not.",
        None,
        lower_bound=0,
        upper_bound=2**31 - 1,
    )
    all_reduce: str = option(
        "Chooses how GPUs sum gradients.",
        "nccl",
        choices=("nccl", "hierarchical_copy", "reduce_to_one"),
    )
    save_minutes: float = option(
        "Sets the minutes between two saves of the state inside an epoch.", 15
    )
    keep_snapshots: int | None = option(
        "Keeps so many snapshots, the best; by default all.", None, lower_bound=1
    )
    hang_minutes: float = option(
        "Ends the run after so many minutes without any progress, in steps or in "
        "filling or checking a cache.",
        30,
    )

    @property
    def start(self) -> str:
        """Returns where the weights of the convolutions come from."""
        return self.weights or "imagenet"

    def __post_init__(self) -> None:
        if self.extend and self.weights:
            raise ValueError(
                f"--extend={self.extend} takes all weights from that MODEL, and "
                f"--weights={self.weights} others; give one of them"
            )
        if self.extend and self.extend.resolve() in (
            self.model.resolve(),
            *self.model.resolve().parents,
        ):
            raise ValueError(
                f"--extend={self.extend} stays as it is, so --model={self.model} must "
                "be another folder, outside it"
            )
        if not self.save_minutes >= 0:
            raise ValueError(
                f"--save_minutes is {self.save_minutes}; it must be 0 or more"
            )
        if not self.hang_minutes > 0:
            raise ValueError(
                f"--hang_minutes is {self.hang_minutes}; it must be above 0"
            )


@dataclass(frozen=True, kw_only=True)
class DoctorOptions(CacheOptions, ShardCacheOptions):
    """What `doctor` tries out."""

    dataset: AnyPath | None = path_option(
        "Names DATASET to be trained on; by default none is looked at.", None
    )
    model: Path | None = local_path_option(
        "Names MODEL to be made; by default the disk of the current folder is looked "
        "at. Complete caches in it, or in --cache_dir, are compared with their "
        "checksums.",
        None,
    )
    recipe: Recipe = group(RecipeOptions, convert=RecipeOptions.chosen)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What `curves` draws and `export` writes."""

    model: Path = local_path_option("Names MODEL, as `make train` makes it.")


@dataclass(frozen=True, kw_only=True)
class ReportOptions(ModelOptions):
    """What `report` tells of."""

    evaluation: Path | None = local_path_option(
        "Names a folder that `make evaluate` has made of MODEL, to show its figures; "
        "by default none.",
        None,
    )
    dataset: AnyPath | None = path_option(
        "Names the DATASET that MODEL is trained on, to show its pictures as training "
        "changes them. By default it is looked for where the run found it.",
        None,
    )
