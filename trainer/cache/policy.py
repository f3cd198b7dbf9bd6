"""--cache: what is kept of a dataset from epoch to epoch, where, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.dataset.manifest import Dataset
from pipeline.system import resources
from pipeline.system.console import in_bytes
from pipeline.system.errors import RunError, UsageError

if TYPE_CHECKING:
    from trainer.cache.features import Features
    from trainer.data.input_pipeline import Store

# How an epoch is ordered: a shuffle of a window of records, or a full permutation.
WINDOW, PERMUTATION = "window", "permutation"

_SPLITS = ("train", "validation")  # every epoch reads both
_SHARE = 0.7  # of the free memory; the rest is for the model and its batches


@dataclass(frozen=True)
class CacheChoice:
    """What was decided.

    Attributes:
        kind: `none`, `encoded` (JPEGs), `decoded` (pixels) or `features` (of the frozen
            layers).
        why: in words.
        on_disk: in a file that is mapped into memory, instead of memory.
        features: of that kind, what is kept.
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
    wanted: str,
    dataset: Dataset,
    *,
    earlier: Mapping[str, Any] | None = None,
    features: Features | str = "",
    disk: int = 0,
    seeded: bool = False,
) -> CacheChoice:
    """Decides by the sizes of the dataset, and by the memory that is free now.

    A seeded run must have the same numbers on every machine. `encoded`, `decoded` and
    float32 features give the same; `none`, whose order is another, and features that
    are rounded are not taken or left for want of room, but on request.

    Args:
        wanted: one of trainer.options.CACHES.
        dataset: its train and validation splits count.
        earlier: the `CacheChoice.key` of the run that goes on: `auto` keeps
            to it.
        features: what could be kept of the frozen layers, or why nothing can.
        disk: bytes that are free for features.
        seeded: whether the run has a --seed.

    Raises:
        RunError: `encoded` does not fit into memory.
        UsageError: there are no features to keep, or a seeded run would have other
            numbers on a machine with more room.
    """
    earlier = earlier or {}
    room = int(_SHARE * resources.free_memory())
    jpegs, pixels = _sizes(dataset)
    sizes = f"pixels take {in_bytes(pixels)}, JPEGs {in_bytes(jpegs)}"
    free = f"{in_bytes(room)} of memory may be used"
    if wanted == "none":
        return CacheChoice("none", "as asked for")
    if wanted == "decoded":
        return CacheChoice("decoded", f"{sizes}; {free}", on_disk=pixels > room)
    if wanted == "encoded":
        if jpegs > room:
            raise RunError(
                f"--cache=encoded needs {in_bytes(jpegs)} of memory, and "
                f"{in_bytes(room)} may be used ({_SHARE:.0%} of what is free). Use "
                "--cache=none, or --cache=decoded, which takes local disk where "
                "memory is short."
            )
        return CacheChoice("encoded", f"{sizes}; {free}")
    if seeded and wanted == "auto" and not earlier:
        _refuse_rounded(features)
    if kept := _features(wanted, dataset, earlier, features, min(room, disk)):
        return kept
    if earlier.get("order") == WINDOW:
        return CacheChoice("none", "as this run began")
    for kind, needed in (("decoded", pixels), ("encoded", jpegs)):
        if needed <= room:
            return CacheChoice(kind, f"{sizes}; {free}")
    if earlier.get("order") == PERMUTATION:
        return CacheChoice(
            "decoded", f"as this run began; {sizes}; {free}", on_disk=True
        )
    if seeded:
        raise UsageError(
            f"--seed: {sizes}; {free}. From memory an epoch has another order than "
            "from shards, and which it is must not depend on this machine. Use "
            "--cache=decoded, which takes local disk where memory is short, or "
            "--cache=none, on every machine."
        )
    return CacheChoice(
        "none", f"{sizes}; {free}. --cache=decoded would take local disk"
    )


def after_features(choice: CacheChoice, dataset: Dataset) -> CacheChoice:
    """Chooses what follows features in a phase that trains all layers."""
    return choose("auto", dataset, earlier={"order": choice.order})


def refuse_short_disk(later: CacheChoice, dataset: Dataset, free: int) -> None:
    """Refuses a later phase that a disk has no room for, before the first begins.

    Args:
        later: of `after_features`.
        dataset: its pixels are kept.
        free: bytes beside the features.

    Raises:
        RunError: with the sizes, and what to use.
    """
    _, pixels = _sizes(dataset)
    if later.on_disk and pixels > free:
        raise RunError(
            "--cache=features: the phase that trains all layers keeps pixels on disk, "
            f"which take {in_bytes(pixels)}, and {in_bytes(max(0, free))} will be free "
            "beside the features. Free some, name another --cache_dir, or use "
            "--cache=none."
        )


def _refuse_rounded(features: Features | str) -> None:
    """Refuses to let free memory decide whether features are rounded.

    Raises:
        UsageError: with the flags that decide it.
    """
    if not isinstance(features, str) and features.dtype != "float32":
        raise UsageError(
            f"--seed: features of --feature_dtype={features.dtype} are rounded, and "
            "whether --cache=auto takes them depends on the room of this machine. Use "
            "--cache=features, or --feature_dtype=float32."
        )


def _features(
    wanted: str,
    dataset: Dataset,
    earlier: Mapping[str, Any],
    features: Features | str,
    room: int,
) -> CacheChoice | None:
    """Returns the choice of features, if `wanted` and the sizes lead to it.

    The extraction costs what each epoch then saves: all images once through the frozen
    layers. So two epochs are the least that pay.
    """
    if isinstance(features, str):
        if wanted == "features":
            raise UsageError(f"--cache=features: {features}")
        return None
    needed = features.bytes(dataset)
    pays = features.epochs > 1 and needed <= room
    begun = bool(earlier.get("features"))
    if wanted == "auto" and not begun and (earlier or not pays):
        return None
    words = (
        f"{features.layer} as {features.dtype}, {in_bytes(needed)}; ahead from epoch 2 "
        "on"
    )
    if begun:
        words += "; as this run began"
    return CacheChoice("features", words, on_disk=True, features=features)


def stores(choice: CacheChoice, dataset: Dataset, folder: Path) -> Mapping[str, Store]:
    """Fills the cache: a store for each split that every epoch reads, or none.

    Args:
        choice: of `choose`.
        dataset: what to keep.
        folder: for what is kept on disk.
    """
    if choice.kind == "none":
        return {}
    # Here: choosing a cache need not wait for TensorFlow.
    from trainer.cache.in_memory import Encoded, in_memory, on_disk

    made: dict[str, Store] = {}
    for split in _SPLITS:
        if split in dataset.splits and dataset.splits[split].examples:
            if choice.kind == "encoded":
                made[split] = Encoded(dataset, split)
            elif choice.on_disk:
                made[split] = on_disk(dataset, split, folder / split)
            else:
                made[split] = in_memory(dataset, split)
    return made


def _sizes(dataset: Dataset) -> tuple[int, int]:
    """Returns the bytes of all records, and of all pixels."""
    splits = [dataset.splits[name] for name in _SPLITS if name in dataset.splits]
    jpegs = sum(shard.bytes for split in splits for shard in split.shards)
    each = dataset.image.height * dataset.image.width * 3
    return jpegs, sum(split.examples for split in splits) * each
