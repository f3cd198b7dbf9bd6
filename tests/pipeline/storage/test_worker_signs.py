"""Signs of life of workers."""

import shutil
from pathlib import Path

from pipeline.storage import atomic, worker_signs
from pipeline.storage.resumable_folder import WORK


def test_a_worker_announces_itself_in_every_run(tmp_path: Path) -> None:
    """Those of Dask live on, and the next run begins with an empty folder."""
    for _ in range(2):
        (tmp_path / WORK).mkdir()
        with atomic.new_run():
            worker_signs.announce_worker(tmp_path)
            assert worker_signs.worker_announced(tmp_path)
        shutil.rmtree(tmp_path / WORK)
