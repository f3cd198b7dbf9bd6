"""The output shards of a run, one for every input shard: which of them are there."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from pipeline.dataset.ledger import Reject
from pipeline.storage.resumable_folder import ResumableFolder
from pipeline.system.errors import RunError
from predictor.format import predictions_manifest
from predictor.format.file_format import Format
from predictor.format.predictions_manifest import Entry

_PARTS = "parts"  # in the work folder: of a submission, which is one file in the end


class OutputNote(NamedTuple):
    """The sidecar of a committed shard."""

    entry: Entry
    rejects: list[Reject]

    def to_json(self) -> dict[str, Any]:
        """Returns what ResumableFolder.done takes."""
        return {"entry": self.entry._asdict(), "rejects": self.rejects}


class OutputShards:
    """The output shards.

    Args:
        output: PREDICTIONS, started.
        key: of the run.
        format: of PREDICTIONS.
        sizes: images of every input shard.
        alone: nobody else writes there now.

    Attributes:
        work: where they are committed.
        folder: of that.
        format: of the shards.
        names: of the shards.
    """

    def __init__(
        self,
        output: ResumableFolder,
        key: Mapping[str, Any],
        format: Format,
        sizes: Sequence[int],
        *,
        alone: bool = True,
    ) -> None:
        self.work, self.format, self._sizes = output, format, sizes
        if format.kind == "submission":
            self.format = replace(format, compression="none")
            inner = output.work / _PARTS
            self.work = ResumableFolder(inner, manifest=predictions_manifest.MANIFEST)
            self.work.start(key, alone=alone)
        self.folder = self.work.folder
        count, extension = len(sizes), self.format.extension
        self.names = [
            predictions_manifest.shard_name(position, count, extension)
            for position in range(count)
        ]
        self.images = sum(sizes)

    def missing(self) -> list[int]:
        """The positions of those that are not committed yet."""
        notes = self.work.notes(self.names)
        return [
            position for position, name in enumerate(self.names) if notes[name] is None
        ]

    def done(self) -> int:
        """Images of those that are."""
        return self.images - sum(self._sizes[position] for position in self.missing())

    def balance(self, rejects: Sequence[Reject]) -> tuple[list[Entry], list[Reject]]:
        """Returns what is to be known of all shards.

        Args:
            rejects: images that are in no shard.

        Returns:
            Their entries, in order, and all rejects, sorted.

        Raises:
            RunError: rows and rejects of a shard are not its images.
        """
        entries, rejected = [], list(rejects)
        notes = self.work.notes(self.names)
        for name, images in zip(self.names, self._sizes, strict=True):
            note = notes[name]
            found = note["entry"]["rows"] + len(note["rejects"]) if note else 0
            if note is None or found != images:
                raise RunError(
                    f"{self.folder / name} accounts for {found} of {images} images. "
                    "Did something else write there? Run the same command again; it "
                    "makes what is missing."
                )
            entries.append(Entry(**note["entry"]))
            rejected += [Reject(*row) for row in note["rejects"]]
        return entries, sorted(rejected)
