"""Shards in a worker of a job; see test_remote for crashes and hangs."""

from pathlib import Path

import pytest

from pipeline.dataset import sidecar
from pipeline.dataset.manifest import MANIFEST, ImageContract
from pipeline.images import conversion
from pipeline.runners import remote_shards
from pipeline.shards import plan
from pipeline.sources.listing import ImageRef
from pipeline.storage import atomic
from pipeline.storage.resumable_folder import WORK, ResumableFolder
from tests.support.photos import HEIGHT, WIDTH, jpeg, photo

CONTRACT = ImageContract(height=HEIGHT, width=WIDTH)


@pytest.fixture
def planned(tmp_path: Path) -> tuple[Path, str]:
    """A dataset that was started, and the name of its one shard."""
    folder = tmp_path / "dataset"
    (tmp_path / "photo.jpg").write_bytes(jpeg(photo(0, 0)))
    ResumableFolder(folder, manifest=MANIFEST).start(
        {"versions": conversion.versions()}
    )
    refs = [ImageRef("photo.jpg", str(tmp_path / "photo.jpg"), "a", "train")]
    (name,) = plan.write_plan(folder, {"train": [refs]}, ["a"])
    return folder, name


def write(folder: Path, name: str) -> None:
    remote_shards.write_in_worker(
        name, folder=str(folder), contract=CONTRACT, image_timeout=60
    )


def test_it_announces_the_worker_and_writes(planned: tuple[Path, str]) -> None:
    folder, name = planned
    write(folder, name)
    assert sidecar.read_note(folder, name).shard.examples == 1
    assert len(list((folder / WORK / "workers").iterdir())) == 1


def test_what_is_committed_is_not_made_again(planned: tuple[Path, str]) -> None:
    """As where a worker is lost just afterwards, and its shard is given to another."""
    folder, name = planned
    write(folder, name)
    before = (folder / name).stat()
    write(folder, name)
    assert (folder / name).stat() == before


def test_a_dataset_that_is_complete_is_left_alone(planned: tuple[Path, str]) -> None:
    """As where a runner tries a shard again, after the last step."""
    folder, name = planned
    ResumableFolder(folder, manifest=MANIFEST).finish({})
    write(folder, name)
    assert [path.name for path in folder.iterdir()] == [MANIFEST]


def test_a_worker_with_another_decoder_is_refused(planned: tuple[Path, str]) -> None:
    folder, name = planned
    versions = conversion.versions() | {"simplejpeg": "0.1"}
    begun = {"form": 2, "key": {"versions": versions}}
    atomic.write_json(folder / WORK / "run.json", begun)
    message = "versions.simplejpeg is 0.1 there and .* here.*constraints.txt"
    with pytest.raises(RuntimeError, match=message):
        write(folder, name)
    assert not (folder / name).exists()
