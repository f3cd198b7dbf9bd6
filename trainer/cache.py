"""--cache: what is kept of a dataset from epoch to epoch, where, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import resources
from pipeline.console import RunError, in_bytes
from pipeline.manifest import Dataset

if TYPE_CHECKING:
    from trainer.dataset import Store

KINDS = ("auto", "none", "encoded", "decoded")

# How an epoch is ordered: a shuffle of a window of records, or a full permutation.
WINDOW, PERMUTATION = "window", "permutation"

_SPLITS = ("train", "validation")  # every epoch reads both
_SHARE = 0.7  # of the free memory; the rest is for the model and its batches


@dataclass(frozen=True)
class Choice:
    """What was decided.

    Attributes:
        kind: `none`, `encoded` (JPEGs) or `decoded` (pixels).
        on_disk: in a file that is mapped into memory, instead of memory.
        why: in words.
    """

    kind: str
    why: str
    on_disk: bool = False

    @property
    def order(self) -> str:
        """How epochs are ordered."""
        return WINDOW if self.kind == "none" else PERMUTATION

    def __str__(self) -> str:
        where = ", on disk" if self.on_disk else ", in memory"
        return f"cache: {self.kind}{'' if self.kind == 'none' else where}: {self.why}"


def choose(wanted: str, dataset: Dataset, *, order: str | None = None) -> Choice:
    """Decides by the sizes of the dataset, and by the memory that is free now.

    Args:
        wanted: one of KINDS.
        dataset: its train and validation splits count.
        order: of the run that this one goes on with: `auto` keeps to it.

    Raises:
        RunError: `encoded` does not fit into memory.
    """
    room = int(_SHARE * resources.free_memory())
    jpegs, pixels = _sizes(dataset)
    sizes = f"pixels take {in_bytes(pixels)}, JPEGs {in_bytes(jpegs)}"
    free = f"{in_bytes(room)} of memory may be used"
    if wanted == "none":
        return Choice("none", "as asked for")
    if wanted == "decoded":
        return Choice("decoded", f"{sizes}; {free}", on_disk=pixels > room)
    if wanted == "encoded":
        if jpegs > room:
            raise RunError(
                f"--cache=encoded needs {in_bytes(jpegs)} of memory, and "
                f"{in_bytes(room)} may be used ({_SHARE:.0%} of what is free). Use "
                "--cache=none, or --cache=decoded, which takes local disk where "
                "memory is short."
            )
        return Choice("encoded", f"{sizes}; {free}")
    if order == WINDOW:
        return Choice("none", "as this run began")
    for kind, needed in (("decoded", pixels), ("encoded", jpegs)):
        if needed <= room:
            return Choice(kind, f"{sizes}; {free}")
    if order == PERMUTATION:
        return Choice("decoded", f"as this run began; {sizes}; {free}", on_disk=True)
    return Choice("none", f"{sizes}; {free}. --cache=decoded would take local disk")


def stores(choice: Choice, dataset: Dataset, folder: Path) -> Mapping[str, Store]:
    """Fills the cache: a store for each split that every epoch reads, or none.

    Args:
        choice: of `choose`.
        dataset: what to keep.
        folder: for what is kept on disk.
    """
    if choice.kind == "none":
        return {}
    # Here: the flags take KINDS from this module, and --help need not wait.
    from trainer.stores import Encoded, in_memory, on_disk

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
    """Bytes of all records, and of all pixels."""
    splits = [dataset.splits[name] for name in _SPLITS if name in dataset.splits]
    jpegs = sum(shard.bytes for split in splits for shard in split.shards)
    each = dataset.image.height * dataset.image.width * 3
    return jpegs, sum(split.examples for split in splits) * each
