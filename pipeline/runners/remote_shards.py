"""The workers that write the shards on other machines, or that others start here."""

import functools
import math
from collections.abc import Mapping, Sequence

from pipeline.beam_job import Job
from pipeline.dataset.manifest import ImageContract
from pipeline.runners.progress import ShardProgress
from pipeline.runners.remote import RemoteRunner
from pipeline.shards import finalize, isolated_process
from pipeline.storage.atomic import log_path
from pipeline.storage.object_paths import AnyPath


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
                isolated_process.write,
                folder=str(dataset),
                contract=contract,
                image_timeout=self._image_timeout,
            )
            complete = functools.partial(finalize.complete, dataset)
            missing = functools.partial(finalize.missing, dataset)
            work = Job(missing, write, complete)
            return self._engine.run(work, watch, log_path(dataset))
