"""The workers that write the shards on other machines, or that others start here."""

import functools
import math
from collections.abc import Mapping, Sequence

from pipeline.beam_job import Job
from pipeline.dataset import sidecar
from pipeline.dataset.manifest import MANIFEST, ImageContract
from pipeline.images import conversion, isolation
from pipeline.runners.progress import ShardProgress
from pipeline.runners.remote import RemoteRunner
from pipeline.shards import finalize, shard_writer
from pipeline.storage import object_paths, worker_signs
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import ResumableFolder, difference
from pipeline.system import resources
from pipeline.system.child_process import ChildPool


class RemoteShardRunner:
    """Has a runner of Beam write the shards of a dataset; see local.LocalRunner.

    Args:
        runner, workers, folders, beam_arguments: see remote.RemoteRunner; for what is
            raised.
        image_timeout: seconds that one image may take; 0 for any time.
    """

    def __init__(
        self,
        runner: str,
        *,
        workers: int,
        folders: Mapping[str, Sequence[AnyPath]],
        image_timeout: float = 60,
        beam_arguments: Sequence[str] = (),
    ) -> None:
        self._image_timeout = image_timeout or math.inf
        self._engine = RemoteRunner(
            runner, workers=workers, folders=folders, beam_arguments=beam_arguments
        )

    def write(
        self, dataset: AnyPath, planned: Mapping[str, int], contract: ImageContract
    ) -> bool:
        """Has what is not committed yet written, and shows progress.

        Args:
            dataset: a folder that the workers can reach under the same name.
            planned: images by shard name.
            contract: of the stored images.

        Returns:
            Whether the dataset is complete; False where Beam only built the job.

        Raises:
            RunError: the runner failed, or the dataset cannot be completed. What was
                committed is kept.
        """
        with ShardProgress(dataset, planned) as watch:
            if not watch.missing:
                finalize.complete(dataset)
                return True
            write = functools.partial(
                write_in_worker,
                folder=str(dataset),
                contract=contract,
                image_timeout=self._image_timeout,
            )
            complete = functools.partial(finalize.complete, dataset)
            job = Job(list(watch.missing), write, complete)
            return self._engine.run(job, watch, dataset)


def write_in_worker(
    name: str, *, folder: str, contract: ImageContract, image_timeout: float
) -> None:
    """Writes a shard, in a worker of the job.

    Raises:
        RuntimeError: the worker has other packages than the launcher.
        Exception: what shard_writer.write_isolated raises.
    """
    dataset = object_paths.at(folder)
    if ResumableFolder(dataset, manifest=MANIFEST).complete():  # a runner tries again
        return
    worker_signs.announce_worker(dataset)
    _check_versions(dataset)
    if sidecar.read_note(dataset, name):  # by a worker that was lost afterwards
        return
    shard_writer.write_isolated(
        name,
        folder=folder,
        contract=contract,
        image_timeout=image_timeout,
        pool=pool(),
    )


@functools.cache
def pool() -> ChildPool:
    """Returns the children of this worker, for all of its threads and jobs."""
    return isolation.new_pool(resources.cores())


@functools.cache
def _check_versions(dataset: AnyPath) -> None:
    """Refuses a worker whose decoder would make other bytes than the launcher's."""
    planned = ResumableFolder(dataset, manifest=MANIFEST).key()["versions"]
    if other := difference(planned, conversion.versions(), "versions"):
        raise RuntimeError(
            f"a worker has other packages than the plan of {dataset} (there) asks for: "
            f"{other}. Let workers install constraints.txt, or use an image that has"
        )
