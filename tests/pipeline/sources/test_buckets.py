"""IMAGES in a store are listed as the same files are on a disk."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.images import image_bytes
from pipeline.images.conversion import BadImage
from pipeline.sources import layout
from pipeline.sources.buckets import BucketFolder
from pipeline.sources.listing import Ignored, Listing
from pipeline.storage.object_paths import AnyPath, ObjectPath
from pipeline.system.errors import RunError
from predictor.inputs import photo_listing
from tests.support.object_servers import Proxy, put_raw, put_tree


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def pack(path: Path, *names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))


def splits(root: Path) -> None:
    put(root, "train/red/1.jpg", "train/red/deep/2.jpg", "train/blue/ü [3]*?.jpg")
    put(root, "train/beside.jpg", "validation/red/4.jpg", "test/a/5.jpg", "test/6.jpg")
    put(root, "LICENSE", ".git/config", "train/red/.hidden/7.jpg", "train/Thumbs.db")


def class_folders(root: Path) -> None:
    put(root, *(f"{name}/{index}.jpg" for name in "ab" for index in range(9)), "c.txt")


def tars(root: Path) -> None:
    put(root, "train/a/1.jpg")
    pack(root / "train" / "b.tar", "1.jpg", "deep/2.jpg")
    pack(root / "test.tar", "x.jpg", "../out.jpg")


def listed(found: Listing) -> tuple[object, ...]:
    """What decides a dataset, and what is counted."""
    refs = sorted(
        (r.split, r.label or "", r.id, image_bytes.read(r.uri)) for r in found.refs
    )
    return refs, sorted(found.rejects), len(found.ignored), found.classes


@pytest.mark.parametrize("make", [splits, class_folders, tars])
def test_a_store_is_listed_as_a_disk(
    bucket: ObjectPath, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path)
    remote = put_tree(tmp_path, bucket / "photos")
    expected, found = layout.list_images(tmp_path), layout.list_images(remote)
    assert listed(found) == listed(expected)


def test_a_listing_takes_no_request_per_image(
    bucket: ObjectPath, proxy: Proxy, tmp_path: Path
) -> None:
    class_folders(tmp_path)
    remote = put_tree(tmp_path, bucket / "photos")
    proxy.requests.clear()
    assert len(layout.list_images(remote)) == 18
    assert len(photo_listing.list_photos(remote, split="test").images) == 18
    assert len(proxy.requests) < 8


def test_an_archive_that_is_all_of_images(bucket: ObjectPath, tmp_path: Path) -> None:
    pack(tmp_path / "photos.tar", "photos/a/1.jpg", "photos/b/2.jpg")
    remote = put_tree(tmp_path, bucket) / "photos.tar"
    local = layout.list_images(tmp_path / "photos.tar")
    assert listed(layout.list_images(remote)) == listed(local)


def test_a_manifest_names_objects(bucket: ObjectPath, tmp_path: Path) -> None:
    put(tmp_path, "photos/1.jpg", "photos/deep/2.png", "photos/unnamed.jpg")
    (tmp_path / "list.csv").write_text("id,label\n1,a\ndeep/2.png,b\nno,a\n")
    put_tree(tmp_path, bucket)

    def found(root: AnyPath, csv: AnyPath) -> tuple[object, ...]:
        return listed(layout.list_images(root, csv=csv))

    expected = found(tmp_path / "photos", tmp_path / "list.csv")
    assert found(bucket / "photos", tmp_path / "list.csv") == expected
    assert found(bucket / "photos", bucket / "list.csv") == expected


def test_photos_to_predict(bucket: ObjectPath, tmp_path: Path) -> None:
    put(tmp_path, "b.jpg", "a/1.jpg", "a/0.jpg")
    (tmp_path / "list.csv").write_text("id\na/1\nb.jpg\nno\n../out\n")
    put_tree(tmp_path, bucket)
    for name in ("list.csv", "a"):
        local = photo_listing.list_photos(tmp_path / name, split="test")
        remote = photo_listing.list_photos(bucket / name, split="test")
        assert [i.id for i in remote.images] == [i.id for i in local.images]
        assert remote.fingerprint() == local.fingerprint()


def test_a_key_with_an_empty_part(
    bucket: ObjectPath, proxy: Proxy, tmp_path: Path
) -> None:
    """It cannot be listed, and is named: nothing is left out silently."""
    put(tmp_path, "x")
    (bucket / "photos" / "a" / "1.jpg").upload(tmp_path / "x")
    put_raw(f"{bucket}/photos/a//2.jpg", proxy.upstream)
    with pytest.raises(RunError, match=r'list .*/photos: .*"photos/a//2.jpg".* Rename'):
        layout.list_images(bucket / "photos")


def test_a_key_with_a_zero_byte() -> None:
    place = BucketFolder("s3://bucket/photos", [("a/1.jpg", 3), ("a/2\0.jpg", 3)])
    good, bad = place.files(Ignored())
    assert (good.problem, bad.problem) == (
        None,
        ("bad_name", "the name has a zero byte"),
    )


def test_no_such_folder(bucket: ObjectPath) -> None:
    with pytest.raises(RunError, match=f"IMAGES {bucket}/no is not a folder"):
        layout.list_images(bucket / "no")


def test_an_image_that_is_gone(bucket: ObjectPath, tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "a/2.jpg")
    remote = put_tree(tmp_path, bucket / "photos")
    refs = sorted(layout.list_images(remote).refs)
    (remote / "a" / "1.jpg").unlink()
    (remote / "a" / "2.jpg").upload(tmp_path / "a" / "1.jpg")
    contents = list(image_bytes.read_ahead(ref.uri for ref in refs))
    with pytest.raises(BadImage, match="unreadable"):
        contents[0]()
    assert contents[1]() == b"a/1.jpg"


def test_a_failing_store_rejects_no_image(
    bucket: ObjectPath, proxy: Proxy, tmp_path: Path
) -> None:
    put(tmp_path, "a/1.jpg")
    (ref,) = layout.list_images(put_tree(tmp_path, bucket / "photos")).refs
    with proxy.failing("error"), pytest.raises(RunError, match="cannot read"):
        image_bytes.read(ref.uri)
