"""Write one shard: everything that a worker does."""

import functools
import hashlib
from collections.abc import Mapping

from pipeline.dataset import originals, record
from pipeline.dataset.manifest import (
    MANIFEST,
    ImageContract,
    Shard,
)
from pipeline.dataset.sidecar import ShardCounts, ShardResult
from pipeline.images import conversion, image_bytes, isolation
from pipeline.images.isolation import Why
from pipeline.shards import duplicates
from pipeline.shards.plan import PlannedImage, planned_image, read_plan
from pipeline.storage import atomic, object_paths
from pipeline.storage.resumable_folder import ResumableFolder
from pipeline.system import child_process, io_errors
from pipeline.system.child_process import ChildPool


def write_isolated(
    name: str,
    *,
    folder: str,
    contract: ImageContract,
    image_timeout: float,
    pool: ChildPool,
) -> None:
    """Does what `write` does, in a child process, whatever the decoder does to that.

    Args:
        name: of the shard.
        folder: the dataset.
        contract: of the stored images.
        image_timeout: seconds that one image may take; a commit may take any time.
        pool: of isolation.new_pool.

    Raises:
        RunError: children are lost, and no image is to blame.
        Exception: what `write` raises.
    """

    def image(position: int) -> tuple[str, str]:
        planned = planned_image(object_paths.at(folder), name, position)
        return planned.id, planned.uri

    work = functools.partial(_write_for, atomic.run_id(), name, folder, contract)
    isolation.run(pool, work, image, contract, seconds=image_timeout)


def _write_for(
    run: str,
    name: str,
    folder: str,
    contract: ImageContract,
    rejected: Mapping[int, Why],
) -> None:
    """Child entry point: writes a shard for a run, which its scratch files name."""
    atomic.write_for(run)
    write(name, folder, contract, rejected)


def write(
    name: str,
    folder: str,
    contract: ImageContract,
    rejected: Mapping[int, Why] | None = None,
) -> None:
    """Writes the shard `name` of a dataset folder, then its sidecars.

    One image is in memory at a time, whatever the size of the shard; of a store a few
    encoded ones more.

    Args:
        name: of the shard.
        folder: the dataset.
        contract: of the stored images.
        rejected: reason and detail of images that are not to be tried, by position.

    Raises:
        UnavailableError: something cannot be read or written now.
    """
    output = ResumableFolder(object_paths.at(folder), manifest=MANIFEST)
    with io_errors.explained(output.folder / name):
        _write(name, output, contract, rejected or {})


def _write(
    name: str,
    output: ResumableFolder,
    contract: ImageContract,
    rejected: Mapping[int, Why],
) -> None:
    images = list(read_plan(output.folder, name))
    # First: a photo that changes while the shard is made is seen to differ later.
    seen = image_bytes.fingerprint([ref.uri for ref in images])
    tally, sources = ShardCounts(), [duplicates.UNREAD] * len(images)
    digest, length = hashlib.sha256(), 0
    with output.commit(name) as file:
        contents = image_bytes.read_ahead(
            ref.uri for index, ref in enumerate(images) if index not in rejected
        )
        for index, ref in enumerate(images):
            child_process.at(index)
            try:
                if index in rejected:
                    raise conversion.BadImage(*rejected[index])
                source = next(contents)()
                tally.bytes_read += len(source)
                with io_errors.explained(image_bytes.path(ref.uri)):
                    encoded, original = conversion.convert_described(source, contract)
                    framed = _frame(ref, encoded, contract)
                sources[index] = hashlib.sha256(source).digest()
            except conversion.BadImage as bad:
                tally.rejects.append([ref.id, ref.text, bad.reason, bad.detail])
                continue
            file.write(framed)
            digest.update(framed)
            length += len(framed)
            tally.written[ref.text] = tally.written.get(ref.text, 0) + 1
            originals.count(tally.originals, original, len(source))
        # Nobody watches the commit: bringing the shard to disk, or uploading it, may
        # take longer than --image_timeout.
        child_process.at(None)
    duplicates.note_sources(output.folder, name, sources)
    entry = Shard(name, sum(tally.written.values()), length, digest.hexdigest())
    output.done(name, ShardResult(entry, tally, seen).to_json())


def _frame(ref: PlannedImage, encoded: bytes, contract: ImageContract) -> bytes:
    payload = record.encode(
        ref.id,
        encoded,
        height=contract.height,
        width=contract.width,
        label=ref.label,
        text=ref.text,
    )
    return record.frame(payload)
