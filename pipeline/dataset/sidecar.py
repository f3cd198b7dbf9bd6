"""The sidecar of a committed shard: its entry in dataset.json, and its counts."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self

from pipeline.dataset.manifest import MANIFEST, Shard
from pipeline.dataset.originals import Histograms
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import ResumableFolder


@dataclass
class ShardCounts:
    """What became of the images of one shard.

    Attributes:
        written: records by class name ("" where unlabelled).
        rejects: [id, class name, reason, detail] of every other image.
        bytes_read: of the source files.
        originals: see `originals.Histograms`, of the images that were written.
    """

    written: dict[str, int] = field(default_factory=dict)
    rejects: list[list[str]] = field(default_factory=list)
    bytes_read: int = 0
    originals: Histograms = field(default_factory=dict)


class ShardResult(NamedTuple):
    """The sidecar of a committed shard.

    Attributes:
        shard: its entry in dataset.json.
        tally: what became of its images.
        seen: image_bytes.fingerprint of the sources, from before they were read.
    """

    shard: Shard
    tally: ShardCounts
    seen: str = ""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Returns what `to_json` made a value of."""
        tally = ShardCounts(**value["tally"])
        return cls(Shard(**value["shard"]), tally, value["seen"])

    def to_json(self) -> dict[str, Any]:
        """Returns what ResumableFolder.done takes."""
        tally = asdict(self.tally)
        return {"shard": asdict(self.shard), "tally": tally, "seen": self.seen}


def read_note(folder: AnyPath, name: str) -> ShardResult | None:
    """Returns what is known of a shard; None where it is missing or cut short."""
    value = ResumableFolder(folder, manifest=MANIFEST).note(name)
    return ShardResult.from_json(value) if value else None


def read_notes(
    folder: AnyPath, names: Collection[str]
) -> dict[str, ShardResult | None]:
    """Does as `read_note` for many shards; asks a store for two listings before."""
    notes = ResumableFolder(folder, manifest=MANIFEST).notes(names)
    return {
        name: ShardResult.from_json(value) if value else None
        for name, value in notes.items()
    }
