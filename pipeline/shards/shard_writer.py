"""Write one shard: everything that a worker does."""

import contextlib
import hashlib

from pipeline.dataset import originals, record
from pipeline.dataset.manifest import (
    MANIFEST,
    ImageContract,
    Shard,
)
from pipeline.dataset.sidecar import ShardCounts, ShardResult
from pipeline.images import conversion, image_bytes
from pipeline.shards import duplicates
from pipeline.shards.image_in_progress import ImageInProgress
from pipeline.shards.plan import PlannedImage, read_plan
from pipeline.storage import object_paths
from pipeline.storage.noted_error import noting_error
from pipeline.storage.resumable_folder import ResumableFolder
from pipeline.system import io_errors
from pipeline.system.errors import UnavailableError


def write(name: str, folder: str, contract: ImageContract) -> None:
    """Writes the shard `name` of a dataset folder, then its sidecars.

    One image is in memory at a time, whatever the size of the shard; of a store a few
    encoded ones more.

    Raises:
        UnavailableError: something cannot be read or written now. The launcher finds
            the message in the work folder, wherever this runs.
    """
    output = ResumableFolder(object_paths.at(folder), manifest=MANIFEST)
    with noting_error(output.folder), io_errors.explained(output.folder / name):
        _write(name, output, contract)


def _write(name: str, output: ResumableFolder, contract: ImageContract) -> None:
    images = list(read_plan(output.folder, name))
    # First: a photo that changes while the shard is made is seen to differ later.
    seen = image_bytes.fingerprint([ref.uri for ref in images])
    tally, sources = ShardCounts(), [duplicates.UNREAD] * len(images)
    digest, length = hashlib.sha256(), 0
    # Innermost, so that no image is marked while the shard is committed: bringing it to
    # disk, or uploading it, may take longer than --image_timeout.
    with (
        output.commit(name) as file,
        ImageInProgress(output.folder, name) as in_progress,
    ):
        quarantined = in_progress.quarantined()
        contents = image_bytes.read_ahead(
            ref.uri for index, ref in enumerate(images) if index not in quarantined
        )
        for index, ref in enumerate(images):
            in_progress.at(index)
            try:
                if index in quarantined:
                    raise conversion.BadImage(*quarantined[index])
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
    duplicates.note_sources(output.folder, name, sources)
    entry = Shard(name, sum(tally.written.values()), length, digest.hexdigest())
    output.done(name, ShardResult(entry, tally, seen).to_json())


def try_alone(uri: str, contract: ImageContract) -> None:
    """What `write` does to one image, for a process that may crash or hang.

    An image that cannot be read now is not to blame; `write` meets the error again.
    """
    with contextlib.suppress(conversion.BadImage, UnavailableError):
        conversion.convert(image_bytes.read(uri), contract)


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
