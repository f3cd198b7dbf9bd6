"""One shard in a process of its own, for workers that others start and watch.

A decoder that crashes or hangs ends that process, not the worker, and costs one image.
And processes decode side by side where a worker has but threads.
"""

import functools
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from typing import NamedTuple

from pipeline.dataset import sidecar
from pipeline.dataset.manifest import MANIFEST, ImageContract
from pipeline.images import conversion
from pipeline.shards import image_in_progress, retry_alone, shard_writer
from pipeline.storage import object_paths, worker_signs
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import ResumableFolder, difference

_LOOK_SECONDS = 0.2
_TRIES = 3


class Task(NamedTuple):
    """A planned shard of a dataset folder; see `shard_writer.write`."""

    name: str
    folder: str
    contract: ImageContract


def write(
    name: str, *, folder: str, contract: ImageContract, image_timeout: float
) -> None:
    """Does what `shard_writer.write` does, whatever the decoder does.

    Args:
        name: of the shard.
        folder: the dataset.
        contract: of the stored images.
        image_timeout: seconds that one image may take.

    Raises:
        RuntimeError: what `shard_writer.write` raised; or its process was lost several
            times, and no image is to blame.
    """
    dataset, fruitless = object_paths.at(folder), 0
    if ResumableFolder(dataset, manifest=MANIFEST).complete():  # a runner tries again
        return
    worker_signs.announce_worker(dataset)
    _check_versions(dataset)
    if sidecar.read_note(dataset, name):  # by a worker that was lost afterwards
        return
    while lost := _try(Task(name, folder, contract), image_timeout):
        quarantined = retry_alone.retry_suspects(
            dataset, contract, image_timeout, only=name
        )
        fruitless = 0 if quarantined else fruitless + 1
        if fruitless == _TRIES:
            raise RuntimeError(
                f"{lost} at shard {name}, {_TRIES} times in a row, and no image is to "
                "blame. Is there enough memory for the workers of this machine?"
            )


@functools.cache
def _check_versions(dataset: AnyPath) -> None:
    """Refuses a worker whose decoder would make other bytes than the launcher's."""
    planned = ResumableFolder(dataset, manifest=MANIFEST).key()["versions"]
    if other := difference(planned, conversion.versions(), "versions"):
        raise RuntimeError(
            f"a worker has other packages than the plan of {dataset} (there) asks for: "
            f"{other}. Let workers install constraints.txt, or use an image that has"
        )


def _try(task: Task, image_timeout: float) -> str | None:
    """Writes the shard; or why its process was lost."""
    with tempfile.TemporaryFile() as said:  # a pipe would be full some day
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stderr=said,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert process.stdin
        try:
            process.stdin.write(pickle.dumps(task))
            process.stdin.flush()  # and not closed: it ends when this process does
            while process.poll() is None:
                time.sleep(_LOOK_SECONDS)
                in_progress = image_in_progress.suspects(
                    object_paths.at(task.folder), only=task.name
                )
                if any(one.seconds > image_timeout for one in in_progress):
                    return f"no result in {image_timeout:g} s for an image"
        finally:
            process.kill()
            process.wait()
            process.stdin.close()
        if process.returncode > 0:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            raise RuntimeError(lines[-1] if lines else "it said nothing")
    return "a process died" if process.returncode else None


def _main() -> int:
    """In the process: writes the shard of stdin, and ends with who asked for it."""
    task = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        shard_writer.write(*task)
    except Exception:  # noqa: BLE001 (handed on, as text)
        traceback.print_exc()
        return 1
    return 0


def _end_with_the_parent() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(_main())
