"""Shards of a store on a local disk: whole, bounded, shared."""

import hashlib
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.dataset import shard_cache
from pipeline.dataset.manifest import Shard
from pipeline.dataset.shard_cache import ShardCache
from pipeline.storage.object_paths import AnyPath, ObjectPath
from pipeline.system.errors import RunError
from tests.support.files import REPOSITORY
from tests.support.object_servers import Proxy

SIZE = 1000


def make(folder: AnyPath, count: int, scratch: Path) -> list[tuple[AnyPath, Shard]]:
    """Shards of some bytes each, and what is promised of them."""
    made = []
    for index in range(count):
        content = bytes([index]) * SIZE
        name = f"train-{index:05d}-of-{count:05d}.tfrecord"
        (scratch / name).write_bytes(content)
        if isinstance(folder, ObjectPath):
            (folder / name).upload(scratch / name)
        sha256 = hashlib.sha256(content).hexdigest()
        made.append((folder / name, Shard(name, 1, SIZE, sha256)))
    return made


def own(parent: Path) -> Path:
    """The folder that a cache makes in another."""
    return parent / f"vgg16-shards-{os.getuid()}"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_shard_is_fetched_once(
    bucket: ObjectPath, proxy: Proxy, tmp_path: Path
) -> None:
    ((source, shard),) = make(bucket, 1, tmp_path)
    cache = ShardCache(tmp_path / "cache", 10 * SIZE)
    path = cache.local(source, shard)
    assert path.read_bytes() == bytes(SIZE)
    assert names(own(tmp_path / "cache")) == {f"{shard.sha256}.tfrecord"}
    proxy.requests.clear()
    assert cache.local(source, shard) == path
    assert ShardCache(tmp_path / "cache", 10 * SIZE).local(source, shard) == path
    assert proxy.requests == []


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    """Old documents, a folder, and names that are nearly those of shards."""
    parent = tmp_path / "scratch"
    for folder in (parent, own(parent)):
        (folder / "photos").mkdir(parents=True)
        (folder / f"{'a' * 64}.tfrecord").mkdir()
        for name in (
            *(f"thesis-{number}.doc" for number in range(50)),
            *("train-00000-of-00001.tfrecord", f"{'b' * 63}.tfrecord"),
            *(f"{'C' * 64}.tfrecord", f"{'c' * 64}.tfrecord.bak", ".scratch-notes"),
        ):
            (folder / name).write_bytes(bytes(SIZE))
            os.utime(folder / name, ns=(1, 1))
    before = names(parent), names(own(parent))
    cache = ShardCache(parent, 3 * SIZE)
    for one in make(tmp_path, shard_cache._KEPT + 8, tmp_path):
        cache.local(*one)
    assert names(parent) == before[0]
    assert names(own(parent)) >= before[1]
    assert len(names(own(parent)) - before[1]) == shard_cache._KEPT + 1


def test_an_unfinished_file_of_a_living_process_stays(
    few: None, tmp_path: Path
) -> None:
    cache = ShardCache(tmp_path / "cache", SIZE)
    left = own(tmp_path / "cache") / f".scratch-0-{'0' * 64}.tfrecord"
    left.write_bytes(bytes(SIZE))
    for one in make(tmp_path, 4, tmp_path):
        cache.local(*one)
    assert left.exists()


def test_the_folder_is_private(tmp_path: Path) -> None:
    own(tmp_path).mkdir(mode=0o777)
    own(tmp_path).chmod(0o777)
    for parent in (tmp_path, tmp_path / "new"):
        ShardCache(parent, SIZE)
        assert own(parent).stat().st_mode & 0o777 == 0o700


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    own(tmp_path).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match=f"{own(tmp_path)}, and that is a link.*remove"):
        ShardCache(tmp_path, SIZE)
    own(tmp_path).unlink()
    own(tmp_path).touch()
    with pytest.raises(RunError, match="that is a file"):
        ShardCache(tmp_path, SIZE)


@pytest.mark.skipif(os.getuid() != 0, reason="giving a folder away needs root")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    own(tmp_path).mkdir()
    os.chown(own(tmp_path), 12345, 12345)
    with pytest.raises(RunError, match=r"another user \(uid 12345\).*--shard_cache"):
        ShardCache(tmp_path, SIZE)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_cache, "_KEPT", 2)


def test_the_oldest_make_room(few: None, tmp_path: Path) -> None:
    shards = make(tmp_path, 5, tmp_path)
    cache = ShardCache(tmp_path / "cache", 3 * SIZE)
    for number in (0, 1, 2, 0, 3, 4):
        cache.local(*shards[number])
    kept = {f"{shards[number][1].sha256}.tfrecord" for number in (0, 3, 4)}
    assert names(own(tmp_path / "cache")) == kept
    assert cache.local(*shards[1]).read_bytes() == bytes([1]) * SIZE


def test_the_newest_are_kept_whatever_the_limit(few: None, tmp_path: Path) -> None:
    shards = make(tmp_path, 4, tmp_path)
    cache = ShardCache(tmp_path / "cache", 1)
    paths = [cache.local(*one) for one in shards]
    assert [path.exists() for path in paths] == [False, True, True, True]


def test_what_is_open_may_go(few: None, tmp_path: Path) -> None:
    shards = make(tmp_path, 5, tmp_path)
    cache = ShardCache(tmp_path / "cache", SIZE)
    with cache.local(*shards[0]).open("rb") as file:
        for one in shards[1:]:
            cache.local(*one)
        assert len(names(own(tmp_path / "cache"))) <= 3
        assert file.read() == bytes(SIZE)


def test_a_shard_that_is_not_the_promised_one(tmp_path: Path) -> None:
    ((source, shard),) = make(tmp_path, 1, tmp_path)
    source.write_bytes(b"other")  # type: ignore[union-attr]
    cache = ShardCache(tmp_path / "cache", SIZE)
    with pytest.raises(RunError, match=f"shard {source} is not the one .* promises"):
        cache.local(source, shard)
    assert names(own(tmp_path / "cache")) == set()


def test_a_shard_that_is_missing(bucket: ObjectPath, tmp_path: Path) -> None:
    shard = Shard("no", 1, SIZE, "0" * 64)
    with pytest.raises(RunError, match=f"shard {bucket}/no is missing"):
        ShardCache(tmp_path / "cache", SIZE).local(bucket / "no", shard)


def test_what_was_damaged_on_the_disk_is_fetched_again(tmp_path: Path) -> None:
    ((source, shard),) = make(tmp_path, 1, tmp_path)
    path = ShardCache(tmp_path / "cache", SIZE).local(source, shard)
    path.write_bytes(b"damaged")
    ShardCache(tmp_path / "cache", SIZE).local(source, shard)
    assert path.read_bytes() == bytes(SIZE)


def test_what_a_killed_process_left_makes_room(few: None, tmp_path: Path) -> None:
    shards = make(tmp_path, 4, tmp_path)
    cache = ShardCache(tmp_path / "cache", 3 * SIZE)
    left = own(tmp_path / "cache") / f".scratch-0-{'0' * 64}.tfrecord"
    left.write_bytes(bytes(SIZE))
    os.utime(left, ns=(1, 1))
    for one in shards:
        cache.local(*one)
    assert not left.exists()


def _use(folder: Path, shards: Sequence[tuple[AnyPath, Shard]], turn: int) -> None:
    cache = ShardCache(folder, 4 * SIZE)
    for _ in range(5):
        for source, shard in [*shards[turn:], *shards[:turn]]:
            content = cache.local(source, shard).read_bytes()
            assert hashlib.sha256(content).hexdigest() == shard.sha256


def test_many_processes_share_a_folder(tmp_path: Path) -> None:
    shards = make(tmp_path, 40, tmp_path)
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(3) as pool:
        tasks = [(tmp_path / "cache", shards, turn) for turn in (0, 13, 26)]
        pool.starmap(_use, tasks)
    assert not [n for n in names(own(tmp_path / "cache")) if n.startswith(".")]


def test_many_threads_share_a_cache(
    bucket: ObjectPath, proxy: Proxy, tmp_path: Path
) -> None:
    ((source, shard),) = make(bucket, 1, tmp_path)
    cache = ShardCache(tmp_path / "cache", SIZE)
    proxy.requests.clear()
    threads = [
        threading.Thread(target=cache.local, args=(source, shard)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sought = [line for line in proxy.requests if "tfrecord" in line]
    assert len(sought) == 2  # its size, and its content
    assert names(own(tmp_path / "cache")) == {f"{shard.sha256}.tfrecord"}


def test_the_place_is_as_flags_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shard_cache.cache_at(tmp_path / "cache", 5_000_000)
    shard_cache._cache()
    assert (
        f"to {own(tmp_path / 'cache')}, which holds 5 MB at most"
        in capsys.readouterr().out
    )
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    script = "from pipeline.dataset import shard_cache; shard_cache._cache()"
    said = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
    )
    assert f"{tmp_path}/vgg16-shards-" in said.stdout
    shard_cache.cache_at(None, None)
