"""The message of a failed step, left in the folder for the launcher.

_work/verdict.json      why a step failed: no disk to write to, too many rejects, …
"""

import contextlib
from collections.abc import Iterator

from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import WORK, ResumableFolder
from pipeline.system.errors import RunError, UnavailableError


@contextlib.contextmanager
def noting_error(folder: AnyPath) -> Iterator[None]:
    """Leaves the message of a RunError for the launcher, which may be far away."""
    try:
        yield
    except RunError as error:
        value = {"error": str(error)}
        # A full disk may have no room for it; the runner then has the message, too.
        with contextlib.suppress(OSError, UnavailableError):
            atomic.write_json(_verdict(folder), value, scratch=folder / WORK)
        raise


@contextlib.contextmanager
def raising_noted_error(output: ResumableFolder) -> Iterator[None]:
    """Raises what a step has noted, in place of what a runner made of it.

    And nothing where the folder is complete all the same: a job that was cancelled may
    go on, and be faster than the run that took its place.
    """
    verdict = _verdict(output.folder)
    verdict.unlink(missing_ok=True)
    try:
        yield
    except RunError as error:
        if output.complete():
            return
        if not verdict.is_file():
            raise
        raise RunError(atomic.read_json(verdict)["error"]) from error


def _verdict(folder: AnyPath) -> AnyPath:
    return folder / WORK / "verdict.json"
