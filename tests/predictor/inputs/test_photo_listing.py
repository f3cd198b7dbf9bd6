"""What is listed to be predicted: a folder, a CSV, an archive."""

import os
import tarfile
from pathlib import Path

import pytest

from pipeline.images import image_bytes
from pipeline.system.errors import RunError
from predictor.inputs import photo_listing
from predictor.inputs.photo_listing import PhotoListing, list_photos
from tests.support.image_folders import grow, header, pack, tar
from tests.support.photos import jpeg, photo

FILES = {"b.jpg": b"b", "a/2.jpg": b"two", "a/1.jpg": b"", "é/x y.jpg": b"xyz"}


def fill(folder: Path, content: dict[str, bytes] = FILES) -> Path:
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def ids(listed: PhotoListing) -> list[str]:
    return [image.id for image in listed.images]


def content(listed: PhotoListing) -> dict[str, bytes]:
    """What every image leads to; its length is held to the promised size."""
    read = {image.id: image_bytes.read(image.uri) for image in listed.images}
    assert {i.id: i.size for i in listed.images} == {k: len(v) for k, v in read.items()}
    return read


# ------------------------------------------------------------------------ a folder


def test_a_folder_in_the_order_of_its_ids(tmp_path: Path) -> None:
    listed = list_photos(fill(tmp_path), split="test")
    assert ids(listed) == sorted(FILES)
    assert content(listed) == FILES
    assert (listed.rejects, len(listed.ignored)) == ([], 0)


@pytest.mark.parametrize("packed", [False, True])
def test_of_a_root_of_splits_one_is_read(tmp_path: Path, packed: bool) -> None:
    """As a folder, or as the archive that stands for it."""
    fill(tmp_path / "test")
    grow(tmp_path, ["train/a/1.jpg", "LICENSE", "test/.DS_Store", "test/a/._1.jpg"])
    if packed:
        tar(tmp_path / "test.tar", tmp_path / "test")
    listed = list_photos(tmp_path, split="test")
    assert content(listed) == FILES
    assert len(listed.ignored) == 3
    assert ids(list_photos(tmp_path, split="train")) == ["a/1.jpg"]
    with pytest.raises(RunError, match=r"no validation/; it has train, test. Choose"):
        list_photos(tmp_path, split="validation")


def test_what_cannot_be_read_is_rejected(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "dangling.jpg").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / os.fsdecode(b"\xff.jpg")).touch()
    listed = list_photos(tmp_path, split="test")
    assert [reject[:4] for reject in listed.rejects] == [
        (r"\xff.jpg", "test", "", "bad_name"),
        ("dangling.jpg", "test", "", "unreadable"),
        ("pipe.jpg", "test", "", "unreadable"),
    ]
    assert ids(listed) == sorted(FILES)


def test_an_archive_in_a_folder_stands_for_a_folder(tmp_path: Path) -> None:
    fill(tmp_path)
    tar(tmp_path / "a.tar", tmp_path / "a")
    fill(tmp_path, {"x.tar.gz": b"no image"})  # a reject, once it is read
    assert content(list_photos(tmp_path, split="test")) == {
        **FILES,
        "x.tar.gz": b"no image",
    }
    fill(tmp_path, {"a/3.jpg": b"3"})
    with pytest.raises(RunError, match="stand for the same folder"):
        list_photos(tmp_path, split="test")


def test_a_folder_may_be_called_like_anything(tmp_path: Path) -> None:
    for name in ("x.csv", "x.tar", "x.tar.gz"):
        assert content(list_photos(fill(tmp_path / name), split="test")) == FILES


# ------------------------------------------------------------------------- an archive


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_an_archive_in_its_order(tmp_path: Path, form: int) -> None:
    """Of the names in it: reading goes through it once, and not to and fro."""
    members = [(f"./{name}", data) for name, data in FILES.items()]
    path = pack(tmp_path / "photos.tar", members, format=form)
    listed = list_photos(path, split="test")
    assert ids(listed) == list(FILES)
    assert content(listed) == FILES


def test_of_an_archive_of_splits_one_is_read(tmp_path: Path) -> None:
    """With or without a folder around them."""
    for around in ("", "photos/", "./2024/photos/"):
        members = [(f"{around}test/{name}", data) for name, data in FILES.items()]
        members += [(f"{around}train/a/1.jpg", b"1"), (f"{around}LICENSE", b"l")]
        listed = list_photos(pack(tmp_path / "x.tar", members), split="test")
        assert content(listed) == FILES
        assert len(listed.ignored) == 1


def test_names_in_an_archive_without_splits_are_ids(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.tar", [("photos/a/1.jpg", b"1"), ("photos/b/2.jpg", b"")])
    assert ids(list_photos(path, split="test")) == ["photos/a/1.jpg", "photos/b/2.jpg"]


def test_of_an_archive_only_files_are_read(tmp_path: Path) -> None:
    members = [
        ("1.jpg", b"old"),
        ("../1.jpg", b"out"),
        ("/1.jpg", b"out"),
        header("link.jpg", tarfile.SYMTYPE, "1.jpg"),
        header("hard.jpg", tarfile.LNKTYPE, "1.jpg"),
        header("folder", tarfile.DIRTYPE),
        ("._1.jpg", b"litter"),
        ("1.jpg", b"newest"),
    ]
    listed = list_photos(pack(tmp_path / "x.tar", members), split="validation")
    assert content(listed) == {"1.jpg": b"newest", "hard.jpg": b"old"}
    assert {reject[:4] for reject in listed.rejects} == {
        ("../1.jpg", "validation", "", "bad_name"),
        ("/1.jpg", "validation", "", "bad_name"),
        ("link.jpg", "validation", "", "unreadable"),
    }
    assert len(listed.ignored) == 1


def test_a_photo_in_an_archive_is_a_photo(tmp_path: Path) -> None:
    data = jpeg(photo(0, 0))
    path = pack(tmp_path / "x.tar", [("0.jpg", b"#" * 777), ("1.jpg", data)])
    assert content(list_photos(path, split="test"))["1.jpg"] == data


# ----------------------------------------------------------------------------- a CSV


def test_a_csv_in_its_order(tmp_path: Path) -> None:
    fill(tmp_path, {**FILES, "v.2.jpg": b"v"})
    (tmp_path / "list.csv").write_text("usage,id\nx,b\nx,a/2.jpg\nx,é/x y\nx,v.2\n")
    listed = list_photos(tmp_path / "list.csv", split="test")
    assert content(listed) == {
        "b": b"b",
        "a/2.jpg": b"two",
        "é/x y": b"xyz",
        "v.2": b"v",
    }
    assert ids(listed) == ["b", "a/2.jpg", "é/x y", "v.2"]


@pytest.mark.parametrize(
    ("image_id", "reason"),
    [
        ("gone.jpg", "no_file"),
        ("a", "no_file"),  # a folder
        ("x" * 300, "no_file"),
        ("../secret", "bad_name"),
        ("a/../b.jpg", "bad_name"),
        ("/etc/passwd", "bad_name"),
    ],
)
def test_ids_that_lead_to_no_file_are_rejected(
    tmp_path: Path, image_id: str, reason: str
) -> None:
    fill(tmp_path, {"secret.jpg": b"s"})
    fill(tmp_path / "photos")
    (tmp_path / "photos" / "list.csv").write_text(f"id\nb\n{image_id}\n")
    listed = list_photos(tmp_path / "photos" / "list.csv", split="test")
    assert ids(listed) == ["b"]
    ((shown, split, label, found, _),) = listed.rejects
    assert (shown, split, label, found) == (image_id, "test", "", reason)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "list.csv is empty"),
        (b"id\n", "has a header and no row"),
        (b"name\nb\n", "has no column id; its header is 'name'"),
        (b"id\nb\n\xff\n", "is not UTF-8: line 3 is"),
        (b"id\nb\nc\nb\n", r"names 'b' more than once \(1 ids in all\)"),
        (b"id,x\nb,\n,y\n", "line 3 has no id"),
    ],
)
def test_a_csv_that_is_refused(tmp_path: Path, text: bytes, message: str) -> None:
    path = fill(tmp_path) / "list.csv"
    path.write_bytes(text)
    with pytest.raises(RunError, match=f"IMAGES .*{message}"):
        list_photos(path, split="test")


# -------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "nothing does not exist. Name a folder of photos, a CSV"),
        ("empty", "empty holds no file. Put the photos there"),
        ("empty.tar", r"empty\.tar holds no file"),
        ("html.tar", r"html\.tar is no whole tar archive"),
        ("x.tar.gz", r"x\.tar\.gz is compressed, and cannot be read in parts"),
        ("x.zip", r"x\.zip is not a folder.*or a \.tar archive"),
    ],
)
def test_images_that_are_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty" / ".git").mkdir(parents=True)
    pack(tmp_path / "empty.tar", [])
    fill(tmp_path, {"html.tar": b"<html>" * 99, "x.tar.gz": b"", "x.zip": b""})
    with pytest.raises(RunError, match=message):
        list_photos(tmp_path / name, split="test")


# ----------------------------------------------------------------------- fingerprints


def test_the_fingerprint_is_of_ids_and_sizes(tmp_path: Path) -> None:
    """Not of where they are: the same in a folder that was moved."""
    first = list_photos(fill(tmp_path / "one"), split="test").fingerprint()
    assert list_photos(fill(tmp_path / "two"), split="test").fingerprint() == first
    for change in ({"b.jpg": b"bb"}, {"c.jpg": b""}):
        fill(tmp_path / "two", change)
        listed = list_photos(tmp_path / "two", split="test")
        assert listed.fingerprint() != first
        fill(tmp_path / "two")


def test_the_fingerprint_tells_rejects_apart() -> None:
    reject = photo_listing.Reject
    lists = [
        PhotoListing(rejects=[reject("a", "test", "", "x", "y")]),
        PhotoListing(rejects=[reject("a", "test", "", "x", "")]),
        PhotoListing(rejects=[reject("a", "test", "", "x", "y")] * 2),
        PhotoListing(rejects=[reject("a", "test", "", "xy", "")]),
        PhotoListing(),
    ]
    assert len({listed.fingerprint() for listed in lists}) == len(lists)
