"""--cache: what is kept of a dataset from epoch to epoch, where, and why."""

import contextlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pipeline.dataset.manifest import Dataset
from pipeline.system import resources
from pipeline.system.console import in_bytes
from pipeline.system.errors import RunError, UsageError
from trainer.cache import features
from trainer.cache.features import Features
from trainer.options import CacheOptions
from trainer.recipe import Phase, Recipe

# How an epoch is ordered: a shuffle of a window of records, or a full permutation.
WINDOW, PERMUTATION = "window", "permutation"

_SHARE = 0.7  # of the free memory; the rest is for the model and its batches


@dataclass(frozen=True)
class CacheChoice:
    """What was decided.

    Attributes:
        kind: `none`, `encoded` (JPEGs), `decoded` (pixels) or `features` (of the frozen
            layers).
        why: in words.
        on_disk: in files that are mapped into memory, instead of memory.
        features: of that kind, which.
    """

    kind: str
    why: str
    on_disk: bool = False
    features: Features | None = None

    @property
    def order(self) -> str:
        """Returns how epochs are ordered."""
        return WINDOW if self.kind == "none" else PERMUTATION

    def key(self) -> dict[str, Any]:
        """Returns what decides the numbers of a run, and must match on resume."""
        features = self.features.key() if self.features else None
        return {"order": self.order, "features": features}

    def __str__(self) -> str:
        where = ", on disk" if self.on_disk else ", in memory"
        return f"cache: {self.kind}{'' if self.kind == 'none' else where}: {self.why}"


def choose(
    dataset: Dataset,
    recipe: Recipe,
    options: CacheOptions,
    *,
    folder: Path,
    earlier: Mapping[str, Any] | None = None,
    seeded: bool = False,
) -> CacheChoice:
    """Decides by the sizes of the dataset, and by what is free now.

    A seeded run must have the same numbers on every machine. `encoded`, `decoded` and
    float32 features give the same; `none`, whose order is another, and features that
    are rounded are not taken or left for want of room, but on request.

    Args:
        dataset, recipe, options: of the run.
        folder: for what is kept on disk.
        earlier: the `CacheChoice.key` of the run that goes on: `auto` keeps to it.
        seeded: whether the run has a --seed.

    Raises:
        RunError: `encoded` does not fit into memory, or the disk has no room for what
            a later phase keeps there.
        UsageError: there are no features to keep, or a seeded run would have other
            numbers on a machine with more room.
    """
    earlier, sizes = earlier or {}, _Sizes.of(dataset)
    if options.cache == "none":
        return CacheChoice("none", "as asked for")
    if options.cache == "decoded":
        on_disk = sizes.pixels > sizes.memory
        return CacheChoice("decoded", str(sizes), on_disk=on_disk)
    if options.cache == "encoded":
        _refuse_large_jpegs(sizes)
        return CacheChoice("encoded", str(sizes))
    try:
        planned = features.plan(recipe, dataset.image, dtype=options.feature_dtype)
    except ValueError as error:
        if options.cache == "features":
            raise UsageError(f"--cache=features: {error}") from error
        planned = None
    if planned and (options.cache == "features" or earlier.get("features")):
        begun = bool(earlier.get("features"))
        return _of_features(planned, dataset, recipe, folder, begun=begun)
    # From here on it is `auto`. A run that goes on keeps to its order.
    if earlier:
        if earlier.get("order") == WINDOW:
            return CacheChoice("none", "as this run began")
        return _permuted(sizes)
    if planned:
        if seeded:
            _refuse_rounded(planned)
        # The extraction costs what each epoch then saves: all images once through the
        # frozen layers. So two epochs are the least that pay.
        needed = planned.bytes(dataset)
        disk = _free_disk(folder, "features")
        if planned.epochs > 1 and needed <= min(sizes.memory, disk):
            return _of_features(planned, dataset, recipe, folder)
    if chosen := _in_memory(sizes):
        return chosen
    if seeded:
        raise UsageError(
            f"--seed: {sizes}. From memory an epoch has another order than from "
            "shards, and which it is must not depend on this machine. Use "
            "--cache=decoded, which takes local disk where memory is short, or "
            "--cache=none, on every machine."
        )
    return CacheChoice("none", f"{sizes}. --cache=decoded would take local disk")


def for_phase(choice: CacheChoice, phase: Phase, dataset: Dataset) -> CacheChoice:
    """Returns the choice of a run, or what follows features where all layers train."""
    if choice.features and phase.trainable == "all":
        return _permuted(_Sizes.of(dataset))
    return choice


def splits(dataset: Dataset) -> list[str]:
    """Returns the splits that every epoch reads."""
    return [
        name
        for name in ("train", "validation")
        if name in dataset.splits and dataset.splits[name].examples
    ]


def folder_of(kind: str, split: str, folder: Path) -> Path:
    """Returns where a split is kept on disk, in the folder of the caches."""
    return folder / (f"{split}-features" if kind == "features" else split)


@dataclass(frozen=True)
class _Sizes:
    """Bytes of what both splits take, and of the memory that they may take."""

    jpegs: int
    pixels: int
    memory: int

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        found = [dataset.splits[name] for name in splits(dataset)]
        image = dataset.image.height * dataset.image.width * 3
        return cls(
            jpegs=sum(shard.bytes for split in found for shard in split.shards),
            pixels=image * sum(split.examples for split in found),
            memory=int(_SHARE * resources.free_memory()),
        )

    def __str__(self) -> str:
        return (
            f"pixels take {in_bytes(self.pixels)}, JPEGs {in_bytes(self.jpegs)}; "
            f"{in_bytes(self.memory)} of memory may be used"
        )


def _in_memory(sizes: _Sizes) -> CacheChoice | None:
    """Chooses pixels or JPEGs in memory, if they fit."""
    for kind, needed in (("decoded", sizes.pixels), ("encoded", sizes.jpegs)):
        if needed <= sizes.memory:
            return CacheChoice(kind, str(sizes))
    return None


def _permuted(sizes: _Sizes) -> CacheChoice:
    """Chooses what has the order of permutations, wherever there is room."""
    why = f"as this run began; {sizes}"
    return _in_memory(sizes) or CacheChoice("decoded", why, on_disk=True)


def _of_features(
    planned: Features,
    dataset: Dataset,
    recipe: Recipe,
    folder: Path,
    *,
    begun: bool = False,
) -> CacheChoice:
    """Chooses features.

    Raises:
        RunError: a phase that trains all layers will find no room for pixels. It is
            told now, not at the end of the epochs before, which may take days.
    """
    needed = planned.bytes(dataset)
    words = (
        f"{planned.layer} as {planned.dtype}, {in_bytes(needed)}; ahead from epoch 2 "
        f"on{'; as this run began' if begun else ''}"
    )
    sizes = _Sizes.of(dataset)
    free = _free_disk(folder, "features", "decoded") - needed
    leaves_them = any(phase.trainable == "all" for phase in recipe.phases())
    if leaves_them and _permuted(sizes).on_disk and sizes.pixels > free:
        raise RunError(
            "--cache=features: the phase that trains all layers keeps pixels on disk, "
            f"which take {in_bytes(sizes.pixels)}, and {in_bytes(max(0, free))} will "
            "be free beside the features. Free some, name another --cache_dir, or use "
            "--cache=none."
        )
    return CacheChoice("features", words, on_disk=True, features=planned)


def _refuse_large_jpegs(sizes: _Sizes) -> None:
    if sizes.jpegs > sizes.memory:
        raise RunError(
            f"--cache=encoded needs {in_bytes(sizes.jpegs)} of memory, and "
            f"{in_bytes(sizes.memory)} may be used ({_SHARE:.0%} of what is free). Use "
            "--cache=none, or --cache=decoded, which takes local disk where memory is "
            "short."
        )


def _refuse_rounded(planned: Features) -> None:
    """Refuses to let free memory decide whether features are rounded.

    Raises:
        UsageError: with the flags that decide it.
    """
    if planned.dtype != "float32":
        raise UsageError(
            f"--seed: features of --feature_dtype={planned.dtype} are rounded, and "
            "whether --cache=auto takes them depends on the room of this machine. Use "
            "--cache=features, or --feature_dtype=float32."
        )


def _free_disk(folder: Path, *kinds: str) -> int:
    """Returns the free bytes, with those of earlier caches, which are used or replaced.

    Args:
        folder: of the caches.
        kinds: of these caches.
    """
    free = resources.free_disk(folder)
    for kind, split in itertools.product(kinds, ("train", "validation")):
        for path in folder_of(kind, split, folder).rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # a run that fills it goes on
                free += path.stat().st_size
    return free
