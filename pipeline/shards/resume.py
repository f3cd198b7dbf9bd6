"""What an earlier run of a job committed, and whether its photos are still the same."""

from collections.abc import Mapping, Sequence

from pipeline.dataset import sidecar
from pipeline.dataset.manifest import MANIFEST
from pipeline.dataset.sidecar import ShardResult
from pipeline.images import image_bytes
from pipeline.sources.listing import ImageRef
from pipeline.storage import object_paths
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import ResumableFolder
from pipeline.system import console

_NAMED = 3  # shards, in a message


def committed(
    dataset: AnyPath, planned: Mapping[str, Sequence[ImageRef]]
) -> list[ShardResult]:
    """Returns the sidecars of the shards that are committed.

    Shards with a photo whose size or time has changed since, or that came or went, are
    made again.

    Args:
        dataset: the folder.
        planned: the images of every shard, by its name, as they are listed now.
    """
    notes = sidecar.read_notes(dataset, planned)
    kept, changed = [], []
    for name, note in notes.items():
        if note is None:
            continue
        if note.seen == image_bytes.fingerprint([ref.uri for ref in planned[name]]):
            kept.append(note)
        else:
            changed.append(name)
    if changed:
        folder = ResumableFolder(dataset, manifest=MANIFEST)
        object_paths.at_once(dataset, folder.forget, changed)
        named = ", ".join(changed[:_NAMED]) + (", …" if changed[_NAMED:] else "")
        console.say(
            f"{len(changed)} committed shards hold photos that have changed since, and "
            f"are made again: {named}"
        )
    return kept
