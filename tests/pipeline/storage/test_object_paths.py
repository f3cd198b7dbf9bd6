"""Paths of objects, against servers that speak S3 and Google Cloud Storage."""

import hashlib
import itertools
import multiprocessing
import os
import pickle
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.storage import atomic, flag_paths, object_paths, object_store
from pipeline.storage.object_paths import ObjectPath
from pipeline.storage.object_store import StoreError
from pipeline.system.errors import RunError, UsageError
from tests.support import object_servers
from tests.support.object_servers import Proxy, put_raw

DATA = random.Random(0).randbytes(3_000_000) + b"\r\n\n\r"


def test_the_parts_of_a_path() -> None:
    path = ObjectPath("s3://bucket/a/b.tar.gz")
    assert (path.name, path.stem, path.suffix) == ("b.tar.gz", "b.tar", ".gz")
    assert str(path.parent) == "s3://bucket/a"
    assert [str(one) for one in path.parents] == ["s3://bucket/a", "s3://bucket"]
    assert str(path.with_name("c")) == "s3://bucket/a/c"
    assert str(ObjectPath("gs://bucket/a/") / "b" / "c") == "gs://bucket/a/b/c"


def test_a_whole_bucket() -> None:
    path = ObjectPath("gs://bucket/")
    assert (str(path), path.name, path.parent) == ("gs://bucket", "bucket", path)
    assert path.parents == []
    assert str(path / "a") == "gs://bucket/a"


def test_paths_compare_and_travel() -> None:
    one, other = ObjectPath("s3://bucket/a/"), ObjectPath("s3://bucket/a")
    assert one == other
    assert len({one, other}) == 1
    assert one < ObjectPath("s3://bucket/b")
    assert one != Path("s3://bucket/a")
    assert pickle.loads(pickle.dumps(one / "b")) == other / "b"
    assert one.resolve() in (other / "b" / "c").resolve().parents


def test_an_object_is_no_file_of_this_machine() -> None:
    with pytest.raises(TypeError):
        os.stat(ObjectPath("s3://bucket/a"))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["s3://bucket/a", "gs://bucket"])
def test_flags_name_objects(text: str) -> None:
    assert flag_paths.path(text) == ObjectPath(text)
    with pytest.raises(UsageError, match=f"--model={text} must be on this machine"):
        flag_paths.local_path(text, "model")


def test_flags_name_files() -> None:
    assert flag_paths.path("~/a") == Path.home() / "a"
    assert flag_paths.local_path("a", "model") == Path("a")


def test_roots_of_both_kinds() -> None:
    found = flag_paths.paths(["s3://bucket/a,/tmp/b", "gs://c"], "images")
    assert found == [ObjectPath("s3://bucket/a"), Path("/tmp/b"), ObjectPath("gs://c")]


def test_an_unknown_scheme() -> None:
    with pytest.raises(
        UsageError, match="abfs:// is not known; there are s3://, gs://"
    ):
        flag_paths.path("abfs://bucket/a")


def test_no_bucket() -> None:
    with pytest.raises(UsageError, match="s3:///a names no bucket"):
        flag_paths.path("s3:///a")


def write(path: ObjectPath, data: bytes = b"x") -> ObjectPath:
    with atomic.commit(path) as file:
        file.write(data)
    return path


@pytest.mark.parametrize("data", [b"", b"x", DATA], ids=["empty", "small", "large"])
def test_what_is_written_is_read(bucket: ObjectPath, data: bytes) -> None:
    path = write(bucket / "a folder" / "naïve [1]*?.bin", data)
    assert path.read_bytes() == data
    assert path.stat().st_size == ObjectPath(str(path)).stat().st_size == len(data)
    assert atomic.sha256(path) == hashlib.sha256(data).hexdigest()


def test_an_object_in_parts(bucket: ObjectPath, proxy: Proxy) -> None:
    path = write(bucket / "a", DATA)
    with path.open("rb") as file:
        assert file.read(10) == DATA[:10]
        assert file.seek(-5, os.SEEK_END) == len(DATA) - 5
        assert file.read() == DATA[-5:]
        assert file.read() == b""
        file.seek(1_000_000)
        assert file.read(7) == DATA[1_000_000:1_000_007]
    assert path.read_part(len(DATA) - 2, 10) == DATA[-2:]
    assert path.read_part(len(DATA), 10) == b""
    assert path.read_part(3, 0) == b""


def test_an_object_as_text(bucket: ObjectPath) -> None:
    atomic.write_text(bucket / "a", "é\nb\n")
    assert list((bucket / "a").open(encoding="utf-8")) == ["é\n", "b\n"]
    assert (bucket / "a").read_text() == "é\nb\n"
    with pytest.raises(ValueError, match="cannot be opened with mode 'wb'"):
        (bucket / "a").open("wb")  # type: ignore[call-overload]


def test_what_is_not_there(bucket: ObjectPath) -> None:
    path = bucket / "nothing"
    assert not path.exists()
    assert not path.is_file()
    assert not path.is_dir()
    assert list(path.iterdir()) == []
    path.unlink(missing_ok=True)
    for read in (path.read_bytes, path.stat, lambda: path.open("rb")):
        with pytest.raises(FileNotFoundError):
            read()


def test_folders_are_what_keys_begin_with(bucket: ObjectPath) -> None:
    for name in ("b/two", "b/one", "b/c/deep", "beside"):
        write(bucket / name)
    folder = bucket / "b"
    assert folder.is_dir()
    assert folder.exists()
    assert not folder.is_file()
    assert not (bucket / "be").is_dir()
    assert [path.name for path in folder.iterdir()] == ["c", "one", "two"]
    assert [path.is_dir() for path in folder.iterdir()] == [True, False, False]
    assert [path.name for path in folder.glob("*o*")] == ["one", "two"]
    assert atomic.sizes(folder) == {"one": 1, "two": 1}
    assert [str(path) for path in folder.walk_files()] == [
        f"{folder}/{name}" for name in ("c/deep", "one", "two")
    ]
    atomic.remove_tree(folder)
    assert [path.name for path in bucket.iterdir()] == ["beside"]


def test_an_empty_bucket_is_a_folder(bucket: ObjectPath) -> None:
    assert bucket.is_dir()
    assert list(bucket.iterdir()) == []


@pytest.fixture
def pages_of_ten(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The store tells ten keys by a request.

    A key of Azure signs how many are asked for; a token, whose secret is in the query,
    does not.
    """
    monkeypatch.setattr(object_store, "_PAGE", 10)
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY", raising=False)
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", object_servers.sas_token())
    object_store.bucket.cache_clear()
    proxy.page = 10
    yield
    proxy.page = 0
    object_store.bucket.cache_clear()


def test_a_listing_of_many_pages(
    bucket: ObjectPath, proxy: Proxy, pages_of_ten: None
) -> None:
    names = [f"{number:02d}" for number in range(25)]
    object_paths.at_once(bucket, lambda name: write(bucket / "many" / name), names)
    proxy.requests.clear()
    assert [path.name for path in (bucket / "many").iterdir()] == names
    assert len(proxy.requests) == 3
    assert sum(path.stat().st_size for path in bucket.walk_files()) == 25
    assert len(proxy.requests) == 6  # and none for the sizes
    if str(bucket).startswith("az:"):
        return  # Azurite answers a bulk deletion with a token by an empty 500
    atomic.remove_tree(bucket / "many")
    assert not (bucket / "many").is_dir()


@pytest.mark.parametrize("what", ["reset", "cut_down"])
def test_a_listing_goes_on_where_it_failed(
    bucket: ObjectPath, proxy: Proxy, pages_of_ten: None, what: str
) -> None:
    names = [f"{number:02d}" for number in range(25)]
    object_paths.at_once(bucket, lambda name: write(bucket / name), names)
    listing, found = bucket.walk_files(), list[str]()
    found += [next(listing).name for _ in range(5)]
    with proxy.failing(what, times=2) as fault:
        found += [path.name for path in listing]
    assert fault.seen == 2
    assert found == names


def test_what_a_console_makes_of_a_folder(bucket: ObjectPath, proxy: Proxy) -> None:
    write(bucket / "a" / "x")
    write(bucket / "a" / "y" / "z")
    for marker in ("a/", "a/y/"):
        put_raw(f"{bucket}/{marker}", proxy.upstream)
    assert [path.name for path in bucket.iterdir()] == ["a"]
    assert [path.name for path in (bucket / "a").iterdir()] == ["x", "y"]
    assert [path.name for path in bucket.walk_files()] == ["x", "z"]
    assert [path.name for path in (bucket / "a").walk_files()] == ["x", "z"]


def test_a_key_that_no_path_can_name(bucket: ObjectPath, proxy: Proxy) -> None:
    """A store tells keys a page at a time; with such a key the page is not readable."""
    write(bucket / "a" / "x")
    put_raw(f"{bucket}/a//y", proxy.upstream)
    for read in (bucket.walk_files, (bucket / "a").iterdir):
        with pytest.raises(
            StoreError, match=r'list .*"a//.*" contained empty .* Rename'
        ):
            list(read())
    assert (bucket / "a" / "x").read_bytes() == b"x"
    assert not (bucket / "a" / "" / "y").is_file()


@pytest.mark.parametrize("count", [1, 5])
def test_deletion_does_not_mind_what_is_gone(bucket: ObjectPath, count: int) -> None:
    paths = [bucket / f"naïve {number}.bin" for number in range(count)]
    for path in paths[1:]:
        write(path)
    bucket.delete([*paths, bucket / "gone"])
    assert list(bucket.walk_files()) == []


def test_an_upload_may_take_long(bucket: ObjectPath, proxy: Proxy) -> None:
    """As on a slow line: the store is silent until it has all."""
    proxy.requests.clear()
    with proxy.failing("late", times=1, method="P") as fault:
        write(bucket / "a", DATA)
    assert fault.seen == 1
    assert len(proxy.requests) == 2  # and a look at its size
    assert (bucket / "a").read_bytes() == DATA


def test_a_large_object_is_sent_in_parts(
    bucket: ObjectPath, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "_PART", 5 << 20)
    data = DATA * 4  # 12 MB
    proxy.requests.clear()
    write(bucket / "a", data)
    assert sum(line.startswith("PUT") for line in proxy.requests) >= 3
    assert (bucket / "a").read_bytes() == data
    assert [path.name for path in bucket.walk_files()] == ["a"]


def test_an_exception_publishes_nothing(bucket: ObjectPath) -> None:
    def write_half() -> None:
        with atomic.commit(bucket / "a") as file:
            file.write(b"half")
            raise KeyError("the other half")

    with pytest.raises(KeyError):
        write_half()
    assert not (bucket / "a").exists()


FAULTS = ["reset", "error", "slow"]
LASTING = ["reset", "error", pytest.param("slow", marks=pytest.mark.slow)]


@pytest.mark.parametrize("what", [*FAULTS, "cut_up"])
def test_an_upload_that_fails_twice(
    bucket: ObjectPath, proxy: Proxy, what: str
) -> None:
    with proxy.failing(what, times=2, method="P") as fault:  # PUT or POST
        write(bucket / "a", DATA)
    assert fault.seen == 2
    assert (bucket / "a").read_bytes() == DATA


@pytest.mark.parametrize("what", [*LASTING, "cut_up"])
def test_an_upload_that_fails_for_ever(
    bucket: ObjectPath, proxy: Proxy, what: str
) -> None:
    with (
        proxy.failing(what, method="P") as fault,
        pytest.raises(StoreError, match=rf"cannot write {bucket}/a: .* tried \d times"),
    ):
        write(bucket / "a", DATA)
    assert fault.seen > 2
    assert not (bucket / "a").exists()
    assert list(bucket.iterdir()) == []


def test_a_long_upload_is_tried_as_often_as_a_short_one(
    bucket: ObjectPath, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of its tries may take longer than a reader has patience."""
    monkeypatch.setattr(object_store, "_PATIENCE", 0.0)
    with proxy.failing("cut_up", times=3, method="P") as fault:
        write(bucket / "a", DATA)
    assert fault.seen == 3
    assert (bucket / "a").read_bytes() == DATA


def test_an_upload_that_is_cut_leaves_what_was_there(
    bucket: ObjectPath, proxy: Proxy
) -> None:
    write(bucket / "a", b"before")
    with proxy.failing("cut_up", method="P"), pytest.raises(StoreError):
        write(bucket / "a", DATA)
    assert (bucket / "a").read_bytes() == b"before"


@pytest.mark.parametrize("what", [*FAULTS, "cut_down"])
def test_a_read_that_fails_twice(bucket: ObjectPath, proxy: Proxy, what: str) -> None:
    write(bucket / "a", DATA)
    with proxy.failing(what, times=2, method="GET") as fault:
        assert (bucket / "a").read_bytes() == DATA
    assert fault.seen == 2


@pytest.mark.parametrize("what", [*LASTING, "cut_down"])
def test_a_read_that_fails_for_ever(
    bucket: ObjectPath, proxy: Proxy, what: str
) -> None:
    write(bucket / "a", DATA)
    with (
        proxy.failing(what, method="GET") as fault,
        pytest.raises(StoreError, match=rf"cannot read {bucket}/a: .* tried \d times"),
    ):
        (bucket / "a").read_bytes()
    assert fault.seen > 2


@pytest.mark.parametrize("what", FAULTS)
def test_a_listing_that_fails_twice(
    bucket: ObjectPath, proxy: Proxy, what: str
) -> None:
    write(bucket / "a")
    with proxy.failing(what, times=2) as fault:
        assert [path.name for path in bucket.iterdir()] == ["a"]
    assert fault.seen == 2


def test_a_deletion_that_fails_twice(bucket: ObjectPath, proxy: Proxy) -> None:
    write(bucket / "a")
    with proxy.failing("reset", times=2):
        (bucket / "a").unlink()
    assert not (bucket / "a").exists()


def test_another_size_than_was_written(
    bucket: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of two writers; the second is here between the upload and the look."""
    monkeypatch.setattr(object_store.Bucket, "size", lambda *_: 3)
    with pytest.raises(StoreError, match="/a has 3 bytes after 4 were written"):
        write(bucket / "a", b"four")


def test_a_bucket_that_is_not_there(bucket: ObjectPath) -> None:
    missing = ObjectPath(str(bucket).replace(bucket.name, "no-such-bucket") + "/a")
    with pytest.raises(RunError, match="there is no bucket 'no-such-bucket'"):
        missing.is_dir()
    with pytest.raises(RunError, match=r"cannot write .*: there is no bucket"):
        write(missing)


def test_no_permission(bucket: ObjectPath, proxy: Proxy) -> None:
    """Neither a missing object nor a missing bucket, and not tried again."""
    path, deep = write(bucket / "a"), bucket / "deep"
    actions = {
        "look at": ObjectPath(str(path)).stat,
        "read": path.read_bytes,
        "write": lambda: write(path),
        "delete": path.unlink,
        "list": deep.is_dir,
    }
    for what, action in actions.items():
        with (
            proxy.failing("refused") as fault,
            pytest.raises(StoreError, match=rf"cannot {what} {bucket}/.*store refuses"),
        ):
            action()
        assert fault.seen == 1


def test_a_bucket_of_another_region(bucket: ObjectPath, proxy: Proxy) -> None:
    path = write(bucket / "a")
    with (
        proxy.failing("moved") as fault,
        pytest.raises(StoreError, match=r"redirect .* or the region \(AWS_REGION\)"),
    ):
        path.read_bytes()
    assert fault.seen == 1


def test_a_forked_process_is_refused(bucket: ObjectPath) -> None:
    """It would hang: obstore's threads are in its parent."""
    path = write(bucket / "a")
    with multiprocessing.get_context("fork").Pool(1) as pool:
        result = pool.apply_async(_refusal, (path,))
        assert "was forked from one" in result.get(timeout=60)


def _refusal(path: ObjectPath) -> str:
    try:
        return str(path.read_bytes())
    except StoreError as error:
        return str(error)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was waited, in place of waiting."""
    waited: list[float] = []
    monkeypatch.setattr(object_store.time, "sleep", waited.append)
    return waited


def test_waits_grow_and_differ(
    bucket: ObjectPath, proxy: Proxy, waits: list[float]
) -> None:
    times = f"It was tried {object_store._TRIES} times"
    with (
        proxy.failing("error"),
        pytest.raises(StoreError, match=f"cannot look at {bucket}/a: .*503.*{times}"),
    ):
        (bucket / "a").stat()
    most = [
        object_store._FIRST_WAIT * 2**number
        for number in range(object_store._TRIES - 1)
    ]
    assert all(m / 2 <= w <= m for w, m in zip(waits, most, strict=True))
    assert len(set(waits)) == len(waits)


def test_at_once_keeps_the_order() -> None:
    for where in (Path("a"), ObjectPath("s3://bucket")):
        assert object_paths.at_once(where, str, range(40)) == list(map(str, range(40)))


def test_paths_are_compared_with_total_order() -> None:
    paths = [ObjectPath(f"s3://bucket/{name}") for name in "abc"]
    for one, other in itertools.pairwise(paths):
        assert one < other
        assert other >= one
