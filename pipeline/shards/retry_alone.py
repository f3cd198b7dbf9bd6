"""Which image ended a worker: every image that a worker was at is tried alone."""

import math
import multiprocessing
import signal
import sys

from pipeline.dataset.manifest import ImageContract
from pipeline.shards import image_in_progress, plan, shard_writer
from pipeline.storage.object_paths import AnyPath
from pipeline.system import process_pool

_SPAWN_SECONDS = 10.0  # for a process to start and import, on a busy machine
_SPAWN = multiprocessing.get_context("spawn")


def retry_suspects(
    dataset: AnyPath,
    contract: ImageContract,
    image_timeout: float,
    *,
    only: str | None = None,
) -> int:
    """Tries each suspect image alone, and quarantines those that crash or hang.

    Args:
        dataset: the folder; whoever was at one of its shards is gone.
        contract: of the stored images.
        image_timeout: seconds that one image may take.
        only: a shard, where others still have their workers.

    Returns:
        How many were quarantined.
    """
    quarantined = 0
    for suspect in image_in_progress.suspects(dataset, only=only):
        image = plan.planned_image(dataset, suspect.shard, suspect.position)
        why = _try_alone(image.uri, contract, image_timeout)
        if why:
            image_in_progress.quarantine(dataset, suspect, *why)
            print(f"rejected: {image.id}: {why[0]} ({why[1]})", file=sys.stderr)
            quarantined += 1
    image_in_progress.clear(dataset, only=only)
    return quarantined


def _try_alone(
    uri: str, contract: ImageContract, seconds: float
) -> tuple[str, str] | None:
    """(reason, detail) of an image that crashes or hangs in a process of its own."""
    process = _SPAWN.Process(target=_alone, args=(uri, contract))
    process.start()
    process.join(None if seconds == math.inf else seconds + _SPAWN_SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()
        return "timeout", f"no result in {seconds:g} s"
    if process.exitcode < 0:
        return "decoder_crash", signal.Signals(-process.exitcode).name
    return None


def _alone(uri: str, contract: ImageContract) -> None:
    """Child entry point: tries one image, which may hang, and ends with its parent."""
    process_pool.end_with_the_parent()
    shard_writer.try_alone(uri, contract)
