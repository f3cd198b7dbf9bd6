"""What is listed below IMAGES, and what is refused."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pipeline.dataset.manifest import SPLITS
from pipeline.sources import local_folders
from pipeline.sources.layout import list_images
from pipeline.sources.listing import BESIDE, KINDS, LITTER, NO_PHOTO, Listing
from pipeline.system.errors import RunError
from tests.support.image_folders import grow, labels, pack, rejected, tar

SPLIT_ROOT = (
    "train/b/1.jpg",
    "train/a/2.jpg",
    "train/a/deep/er/3.jpg",
    "validation/a/2.jpg",
    "test/4.jpg",
    "test/day 1/5.jpg",
)


# ------------------------------------------------------------------ split folders


def test_split_folders(tmp_path: Path) -> None:
    listing = list_images(grow(tmp_path, SPLIT_ROOT))
    assert listing.layout == "splits"
    assert labels(listing, "train") == {
        "a/2.jpg": "a",
        "a/deep/er/3.jpg": "a",  # the class is the first folder
        "b/1.jpg": "b",
    }
    assert labels(listing, "validation") == {"a/2.jpg": "a"}
    assert labels(listing, "test") == {"4.jpg": None, "day 1/5.jpg": None}
    assert listing.splits() == ["train", "validation", "test"]
    assert listing.classes == ("a", "b")
    assert (listing.rejects, len(listing.ignored)) == ([], 0)


def test_the_uri_leads_to_the_image(tmp_path: Path) -> None:
    grow(tmp_path, SPLIT_ROOT)
    (tmp_path / "test" / "day 1" / "5.jpg").write_text("five")
    listing = list_images(tmp_path)
    uris = {(ref.split, ref.id): ref.uri for ref in listing.refs}
    assert len(set(uris.values())) == len(SPLIT_ROOT)
    assert Path(uris["test", "day 1/5.jpg"]).read_text() == "five"


@pytest.mark.parametrize(
    "wanted",
    [
        ("train",),
        ("validation",),
        ("test",),
        ("train", "test"),
        ("train", "validation"),
    ],
)
def test_each_split_is_optional(tmp_path: Path, wanted: tuple[str, ...]) -> None:
    paths = [path for path in SPLIT_ROOT if path.startswith(wanted)]
    listing = list_images(grow(tmp_path, paths), validation_fraction=0.9)
    assert listing.splits() == list(wanted)
    assert len(listing.refs) == len(paths)


@pytest.mark.parametrize("fraction", [0, 0.9])
def test_no_split_is_carved_out_of_another(tmp_path: Path, fraction: float) -> None:
    grow(tmp_path, [f"train/a/{i}.jpg" for i in range(50)])
    listing = list_images(tmp_path, validation_fraction=fraction, seed=1)
    assert len(labels(listing, "train")) == 50


def test_what_stands_beside_the_splits_is_ignored_and_counted(tmp_path: Path) -> None:
    grow(tmp_path, [*SPLIT_ROOT, "LICENSE", "labels.csv", "boxes/a/6.xml", "1.jpg"])
    listing = list_images(tmp_path)
    assert len(listing.refs) == len(SPLIT_ROOT)
    assert listing.rejects == []
    assert listing.ignored.counts == {BESIDE: 4}
    assert str(listing.ignored) == (
        f"ignored: 4 files: 4 {KINDS[BESIDE]}, such as {tmp_path}/1.jpg"
    )


def test_a_file_outside_a_class_folder_is_rejected(tmp_path: Path) -> None:
    grow(tmp_path, [*SPLIT_ROOT, "train/x.jpg", "validation/y.jpg"])
    listing = list_images(tmp_path)
    assert {(r.split, r.id, r.label, r.reason) for r in listing.rejects} == {
        ("train", "x.jpg", "", "no_class"),
        ("validation", "y.jpg", "", "no_class"),
    }
    assert len(listing.refs) == len(SPLIT_ROOT)


def test_a_labelled_test_split_has_class_folders(tmp_path: Path) -> None:
    grow(tmp_path, ["train/a/1.jpg", "test/a/2.jpg", "test/a/b/3.jpg", "test/4.jpg"])
    listing = list_images(tmp_path, labelled_test=True)
    assert labels(listing, "test") == {"a/2.jpg": "a", "a/b/3.jpg": "a"}
    assert rejected(listing) == {"4.jpg": "no_class"}
    unlabelled = list_images(tmp_path)
    assert set(labels(unlabelled, "test").values()) == {None}
    assert unlabelled.rejects == []


@pytest.mark.parametrize(
    ("split", "labelled_test"), [("validation", False), ("test", True)]
)
def test_a_class_that_train_lacks_is_refused(
    tmp_path: Path, split: str, labelled_test: bool
) -> None:
    grow(tmp_path, ["train/a/1.jpg", f"{split}/a/2.jpg", f"{split}/zebra/3.jpg"])
    with pytest.raises(RunError, match=rf"{split} has .*: 'zebra' \(1 in"):
        list_images(tmp_path, labelled_test=labelled_test)


def test_a_class_list_is_used_as_it_is(tmp_path: Path) -> None:
    """Its order, and its classes without an image: labels agree with another run's."""
    (tmp_path / "classes.txt").write_text("zebra\nb\na\n")
    root = grow(tmp_path / "images", SPLIT_ROOT)
    listing = list_images(root, classes=tmp_path / "classes.txt")
    assert listing.classes == ("zebra", "b", "a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n", r"train has classes that --classes has not: 'b' \(1 in all\)"),
        ("a\nb\na\n", "repeats 'a', in lines 1 and 3"),
        ("a\n\nb\n", "line 2 is empty"),
        ("", r"classes\.txt is empty"),
        (None, r"classes\.txt is no file"),
    ],
)
def test_a_class_list_that_does_not_fit(
    tmp_path: Path, text: str | None, message: str
) -> None:
    path = tmp_path / "classes.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RunError, match=message):
        list_images(grow(tmp_path / "images", SPLIT_ROOT), classes=path)


# ------------------------------------------------------------------ class folders


def class_root(root: Path) -> Path:
    paths = [f"{name}/{i}.jpg" for name in ("a", "b", "c") for i in range(40)]
    return grow(root, [*paths, "rare/0.jpg"])


def test_class_folders(tmp_path: Path) -> None:
    listing = list_images(class_root(tmp_path), validation_fraction=0.25)
    assert listing.layout == "classes"
    train, validation = labels(listing, "train"), labels(listing, "validation")
    assert not train.keys() & validation.keys()
    assert train | validation == {
        f"{path.parent.name}/{path.name}": path.parent.name
        for path in tmp_path.rglob("*.jpg")
    }
    assert train["rare/0.jpg"] == "rare"
    assert set(validation.values()) == {"a", "b", "c"}
    assert 10 <= len(validation) <= 60
    assert listing.classes == ("a", "b", "c", "rare")


def test_a_validation_fraction_of_0_is_none(tmp_path: Path) -> None:
    listing = list_images(class_root(tmp_path), validation_fraction=0)
    assert listing.splits() == ["train"]


def test_the_seed_chooses_the_validation_images(tmp_path: Path) -> None:
    class_root(tmp_path)
    once, again, other = (list_images(tmp_path, seed=seed) for seed in (0, 0, 1))
    assert labels(once, "validation") == labels(again, "validation")
    assert labels(once, "validation") != labels(other, "validation")


def test_files_beside_the_class_folders_are_ignored(tmp_path: Path) -> None:
    grow(tmp_path, ["a/1.jpg", "README.txt", "loose.jpg"])
    listing = list_images(tmp_path)
    assert set(labels(listing, "train")) == {"a/1.jpg"}
    assert listing.rejects == []
    assert len(listing.ignored) == 2


def test_classes_are_sorted_strings(tmp_path: Path) -> None:
    names = ("10", "9", "007", "b", "B", "é", "a b", "a,b", "NA")
    listing = list_images(grow(tmp_path, [f"{name}/1.jpg" for name in names]))
    assert listing.classes == ("007", "10", "9", "B", "NA", "a b", "a,b", "b", "é")


# -------------------------------------------------------------- names and litter


@pytest.mark.parametrize(
    "name",
    [
        "a,b.jpg",
        'say "x".jpg',
        "two\nlines.jpg",
        "back\\slash.jpg",
        " blank .jpg",
        "grün 日本 🦓.jpg",
        "no extension",
        "x" * 251 + ".jpg",
        "é" * 125 + "x.jpg",  # 255 bytes, too
    ],
)
@pytest.mark.parametrize("folder", ["train/a", "test", "test/sub"])
def test_odd_names_are_images(tmp_path: Path, folder: str, name: str) -> None:
    listing = list_images(grow(tmp_path, ["train/a/1.jpg", f"{folder}/{name}"]))
    assert listing.rejects == []
    split, _, inner = folder.partition("/")
    assert f"{inner}/{name}".lstrip("/") in labels(listing, split)


@pytest.mark.parametrize(
    "litter",
    [".DS_Store", "._1.jpg", "Thumbs.db", "desktop.ini", "__MACOSX/1.jpg", ".git/x"],
)
@pytest.mark.parametrize("place", ["", "train/", "train/a/", "train/a/sub/", "test/"])
def test_litter_is_ignored(tmp_path: Path, place: str, litter: str) -> None:
    grow(tmp_path, [*SPLIT_ROOT, "train/a/sub/7.jpg", place + litter])
    listing = list_images(tmp_path)
    assert len(listing.refs) == len(SPLIT_ROOT) + 1
    assert listing.rejects == []
    assert listing.ignored.examples == {LITTER: [str(tmp_path / place / litter)]}


@pytest.mark.parametrize(
    ("path", "image_id", "label"),
    [
        (b"train/a/x\xff.jpg", r"a/x\xff.jpg", "a"),
        (b"train/\xe9/x.jpg", r"\xe9/x.jpg", ""),
        (b"test/x\xff.jpg", r"x\xff.jpg", ""),
    ],
)
def test_a_name_that_is_no_utf8_is_rejected(
    tmp_path: Path, path: bytes, image_id: str, label: str
) -> None:
    listing = list_images(grow(tmp_path, ["train/a/1.jpg", os.fsdecode(path)]))
    (reject,) = listing.rejects
    split = path.partition(b"/")[0].decode()
    assert reject[:4] == (image_id, split, label, "bad_name")
    assert listing.classes == ("a",)


def test_a_folder_of_litter_alone_may_be_printed(tmp_path: Path) -> None:
    """Whatever its bytes: the names end up in a log."""
    grow(tmp_path, ["a/1.jpg", os.fsdecode(b".\xff/1.jpg")])
    assert str(list_images(tmp_path).ignored).endswith(r".\xff/1.jpg")


def test_the_listing_does_not_depend_on_the_order_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_root(tmp_path)
    entries = local_folders._entries
    forward = list_images(tmp_path)
    monkeypatch.setattr(local_folders, "_entries", lambda folder: entries(folder)[::-1])
    backward = list_images(tmp_path)
    assert forward.refs != backward.refs  # the order did change
    assert set(forward.refs) == set(backward.refs)
    assert forward.classes == backward.classes


# ------------------------------------------------------------------------- links


def test_links_that_lead_nowhere_are_rejected(tmp_path: Path) -> None:
    grow(tmp_path, ["train/a/1.jpg", "test/1.jpg"])
    for folder in ("train/a", "test"):
        (tmp_path / folder / "dangling.jpg").symlink_to("nothing.jpg")
        (tmp_path / folder / "self.jpg").symlink_to("self.jpg")
    os.mkfifo(tmp_path / "test" / "pipe.jpg")
    listing = list_images(tmp_path)
    details = {reject.id: reject.detail for reject in listing.rejects}
    assert details.pop("a/dangling.jpg") == "a link to nothing"
    assert details.pop("dangling.jpg") == "a link to nothing"
    assert details.pop("pipe.jpg") == "not a regular file"
    assert "symbolic links" in details.pop("a/self.jpg")
    assert "symbolic links" in details.pop("self.jpg")
    assert not details
    assert set(rejected(listing).values()) == {"unreadable"}
    assert len(listing.refs) == 2


@pytest.mark.parametrize(
    ("link", "target", "image_id"),
    [
        ("train/a/again", ".", "a/again"),
        ("train/a/up", "..", "a/up"),
        ("train/a/deep/up", "..", "a/deep/up"),
        ("train/loop", ".", "loop"),
        ("test/again", ".", "again"),
        ("test/deep/up", "../..", "deep/up/test"),
    ],
)
def test_a_looping_folder_is_rejected_once(
    tmp_path: Path, link: str, target: str, image_id: str
) -> None:
    grow(tmp_path, ["train/a/1.jpg", "train/a/deep/2.jpg", "test/deep/3.jpg"])
    (tmp_path / link).symlink_to(target)
    listing = list_images(tmp_path)
    assert rejected(listing) == {image_id: "unreadable"}
    assert "holds it" in listing.rejects[0].detail


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """1,500 nested folders, which Python could not even remove."""
    root = tmp_path / "deep"
    root.mkdir()
    here = os.open(root, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("c", dir_fd=here)
        below = os.open("c", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("1.jpg", os.O_CREAT, dir_fd=here))
    os.close(here)
    yield root
    subprocess.run(["rm", "-rf", str(root)], check=True)


def test_folders_may_be_nested_deeply(deep: Path) -> None:
    listing = list_images(deep, validation_fraction=0)
    assert [ref.id for ref in listing.refs] == ["c/" * 1500 + "1.jpg"]


def test_links_that_lead_somewhere_are_followed(tmp_path: Path) -> None:
    images = grow(tmp_path / "images", ["a/1.jpg"])
    store = grow(tmp_path / "store", ["x.jpg", "sub/y.jpg"])
    (images / "a" / "linked.jpg").symlink_to(store / "x.jpg")
    (images / "b").symlink_to(store)
    listing = list_images(images, validation_fraction=0)
    assert labels(listing, "train") == {
        "a/1.jpg": "a",
        "a/linked.jpg": "a",
        "b/x.jpg": "b",
        "b/sub/y.jpg": "b",
    }
    assert listing.rejects == []


def test_images_may_itself_be_a_link(tmp_path: Path) -> None:
    grow(tmp_path / "images", SPLIT_ROOT)
    (tmp_path / "link").symlink_to("images")
    direct, linked = list_images(tmp_path / "images"), list_images(tmp_path / "link")
    assert {ref.id for ref in direct.refs} == {ref.id for ref in linked.refs}


# ---------------------------------------------------------------------- archives


def everything(listing: Listing) -> dict[str, object]:
    """All that decides DATASET: the uris do not."""
    return {
        "layout": listing.layout,
        "refs": sorted((ref.split, ref.id, ref.label or "") for ref in listing.refs),
        "rejects": sorted(listing.rejects),
        "ignored": len(listing.ignored),
        "classes": listing.classes,
    }


COLLECTION = (
    *SPLIT_ROOT,
    "train/b/Thumbs.db",
    "train/.git/x",
    "train/loose.jpg",
    "test/._4.jpg",
    "LICENSE",
)


@pytest.mark.parametrize("inside", ["{}", "", "./{}"])
@pytest.mark.parametrize("splits", [("train",), ("test",), SPLITS])
def test_an_archive_of_a_split_is_its_folder(
    tmp_path: Path, splits: Sequence[str], inside: str
) -> None:
    expected = everything(list_images(grow(tmp_path, COLLECTION)))
    for split in splits:
        tar(tmp_path / f"{split}.tar", tmp_path / split, inside.format(split))
    assert everything(list_images(tmp_path)) == expected


@pytest.mark.parametrize("root", ["", "train/", "test/"])
@pytest.mark.parametrize("inside", ["{}", ""])
def test_an_archive_of_a_class_is_its_folder(
    tmp_path: Path, root: str, inside: str
) -> None:
    """In a root of classes, in a labelled split, and in an unlabelled one."""
    names = [f"{root}{name}" for name in ("a/1.jpg", "a/deep/2.jpg", "b/1.jpg")]
    expected = everything(list_images(grow(tmp_path, names)))
    tar(tmp_path / root / "a.tar", tmp_path / root / "a", inside.format("a"))
    assert everything(list_images(tmp_path)) == expected  # beside a folder
    tar(tmp_path / root / "b.TAR", tmp_path / root / "b", inside.format("b"))
    assert everything(list_images(tmp_path)) == expected


@pytest.mark.parametrize("inside", ["", "photos", "elsewhere"])
@pytest.mark.parametrize("paths", [COLLECTION, ("a/1.jpg", "b/2.jpg", "b/.x")])
def test_images_may_be_an_archive(
    tmp_path: Path, paths: Sequence[str], inside: str
) -> None:
    expected = everything(list_images(grow(tmp_path / "photos", paths)))
    path = tar(tmp_path / "photos.tar", tmp_path / "photos", inside)
    assert everything(list_images(path)) == expected


def test_an_archive_may_have_an_empty_class(tmp_path: Path) -> None:
    """It is refused, as the folder is."""
    grow(tmp_path, ["train/a/1.jpg"])
    (tmp_path / "train" / "mauve").mkdir()
    tar(tmp_path / "train.tar", tmp_path / "train")
    with pytest.raises(RunError, match=r"train\.tar has class folders .*photo: mauve"):
        list_images(tmp_path)


def test_members_that_lead_out_are_counted(tmp_path: Path) -> None:
    """In a class, in a split and in a whole collection."""
    for folder, inner, split, label in (
        ("a", "", "train", "a"),
        ("train", "a/", "train", ""),
        ("photos", "train/a/", "train", ""),
    ):
        path = tmp_path / folder / f"{folder}.tar"
        path.parent.mkdir()
        pack(path, [(f"{inner}1.jpg", b""), ("../../x.jpg", b""), ("/y.jpg", b"")])
        listing = list_images(path if folder == "photos" else path.parent)
        found = {(r.id.rpartition("/")[2], *r[1:4]) for r in listing.rejects}
        names = ("x.jpg", "y.jpg")
        assert found == {(name, split, label, "bad_name") for name in names}
        assert len(listing.refs) == 1
        assert listing.classes == ("a",)


def test_a_folder_may_be_called_like_an_archive(tmp_path: Path) -> None:
    grow(tmp_path, ["train/a.tar/1.jpg", "train/b.tar.gz/2.jpg", "test.tar/x"])
    (tmp_path / "train" / "c.tar").symlink_to("nothing")
    listing = list_images(tmp_path)
    assert labels(listing, "train") == {
        "a.tar/1.jpg": "a.tar",
        "b.tar.gz/2.jpg": "b.tar.gz",
    }
    assert rejected(listing) == {"c.tar": "no_class"}
    assert listing.ignored.examples == {BESIDE: [str(tmp_path / "test.tar" / "x")]}


def test_archives_elsewhere_are_files(tmp_path: Path) -> None:
    """Below a class, and beside split folders; they are not even opened."""
    grow(tmp_path, ["train/a/x.tar", "test/sub/x.tar", "test/x.tar.gz", "backup.tar"])
    grow(tmp_path, ["train.tar.gz"])  # beside the folder that it was unpacked to
    listing = list_images(tmp_path)
    assert {ref.id for ref in listing.refs} == {"a/x.tar", "sub/x.tar", "x.tar.gz"}
    names = ("backup.tar", "train.tar.gz")
    assert listing.ignored.examples == {BESIDE: [str(tmp_path / x) for x in names]}


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (
            ["train/a/1.jpg", "train.tar"],
            r"/train and .*/train\.tar stand for the same",
        ),
        (["train.tar", "train.TAR"], r"train\.TAR and .*train\.tar stand for the same"),
        (["train/a/1.jpg", "train/a.tar"], r"/a and .*/a\.tar stand for the same"),
        (["a/1.jpg", "a.tar"], r"Move one of them out of IMAGES"),
        (["test/a/1.jpg", "test/a.tar"], r"/a and .*/a\.tar stand for the same"),
        (["train.tar.gz"], r"train\.tar\.gz is compressed, and .*\(gunzip, bunzip2"),
        (["train/a/1.jpg", "test.tgz"], r"test\.tgz is compressed"),
        (["train/a/1.jpg", "train/b.tar.zst"], r"b\.tar\.zst is compressed"),
        (["a/1.jpg", "b.tar.xz"], r"b\.tar\.xz is compressed, and .* or unpack it"),
    ],
)
def test_archives_that_are_refused(
    tmp_path: Path, paths: list[str], message: str
) -> None:
    with pytest.raises(RunError, match=message):
        list_images(grow(tmp_path, paths))


def test_a_compressed_archive_as_images(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.tar.gz", [("a/1.jpg", b"")], mode="w:gz")
    with pytest.raises(RunError, match=r"x\.tar\.gz is compressed"):
        list_images(path)


@pytest.mark.parametrize("inside", ["", "photos"])
def test_the_archive_of_the_folders_beside_it_is_no_class(
    tmp_path: Path, inside: str
) -> None:
    grow(tmp_path, ["a/1.jpg", "b/2.jpg", "copy/a/1.jpg", "copy/b/2.jpg"])
    tar(tmp_path / "photos.tar", tmp_path / "copy", inside)
    with pytest.raises(RunError, match=r"the class 'photos', and .*: a, b\. If it"):
        list_images(tmp_path)


# ----------------------------------------------------------------- several roots


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_several_roots_are_one_collection(tmp_path: Path, prefix: str) -> None:
    """Of folders and archives, with classes in common: as if moved together."""
    parts = {
        "one": ["a/1.jpg", "b/2.jpg", "a/Thumbs.db"],
        "two": ["a/3.jpg", "c/4.jpg"],
        "three": [f"b/{number}.jpg" for number in range(20, 40)],
    }
    for name, paths in parts.items():
        grow(tmp_path / name, [f"{prefix}{path}" for path in paths])
        grow(tmp_path / "all", [f"{prefix}{path}" for path in paths])
    expected = everything(list_images(tmp_path / "all", validation_fraction=0.4))
    tar(tmp_path / "three.tar", tmp_path / "three")
    roots = [tmp_path / name for name in ("two", "one", "three.tar")]
    listing = list_images(roots, validation_fraction=0.4)
    assert everything(listing) == expected


def test_roots_may_have_different_splits(tmp_path: Path) -> None:
    one = grow(tmp_path / "one", ["train/a/1.jpg"])
    two = grow(tmp_path / "two", ["validation/a/1.jpg", "test/2.jpg", "train/a/3.jpg"])
    listing = list_images([one, two])
    assert labels(listing, "train") == {"a/1.jpg": "a", "a/3.jpg": "a"}
    assert listing.splits() == list(SPLITS)


def test_an_id_of_two_roots_is_refused_with_both(tmp_path: Path) -> None:
    one = grow(tmp_path / "one", ["a/1.jpg", "a/2.jpg"])
    two = grow(tmp_path / "two", ["a/2.jpg"])
    tarred = tar(tmp_path / "two.tar", two)
    message = rf"have an image 'a/2\.jpg' of train: {one}/a/2\.jpg and {tarred}\. Ren"
    with pytest.raises(RunError, match=message):
        list_images([one, tarred], validation_fraction=0)
    with pytest.raises(RunError, match=r"two roots have an image 'a/"):
        list_images([one, one])


def test_roots_of_two_layouts_are_refused(tmp_path: Path) -> None:
    one = grow(tmp_path / "one", ["train/a/1.jpg"])
    two = grow(tmp_path / "two", ["a/2.jpg"])
    for roots in ([one, two], [two, one]):
        with pytest.raises(RunError, match=r"one has train/, .*two has none of them"):
            list_images(roots)


def test_every_root_must_be_there(tmp_path: Path) -> None:
    one = grow(tmp_path / "one", ["a/1.jpg"])
    with pytest.raises(RunError, match=r"IMAGES .*nothing is not a folder"):
        list_images([one, tmp_path / "nothing"])


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], r"IMAGES .* holds no image file .*\(0 rejected, 0 ignored\)"),
        (["1.jpg", "2.jpg"], r"\(0 rejected, 2 ignored\).*one folder per class"),
        (["train/1.jpg", "train/2.txt"], r"train has 1 photos, such as 1\.jpg, and no"),
        (["train/.DS_Store"], "/train holds no photo. Add some, or remove"),
        (["train/a/1.jpg", "test/.DS_Store"], "/test holds no photo"),
        (["train/a/1.jpg", "test/notes.txt"], "/test holds no photo"),
        (["train/a/1.jpg", "train/b/Thumbs.db"], "train has class .*photo: b. Add"),
        (["a/1.jpg", "c/.x", "b/sub/.x"], "class folders without a photo: b, c. Add"),
        (["a/1.jpg", "c/x.csv"], "class folders without a photo: c. Add"),
        (["train/a\nb/1.jpg"], r"train/a\\nb' has a line break.*Rename it"),
        (["a\rb/1.jpg"], r"/a\\rb' has a line break.*classes.txt"),
    ],
)
def test_refusals_name_the_folder(
    tmp_path: Path, paths: list[str], message: str
) -> None:
    with pytest.raises(RunError, match=message):
        list_images(grow(tmp_path, paths))


@pytest.mark.parametrize("name", ["nothing", "file"])
def test_images_must_be_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=f"{name} is not a folder. Name a folder with"):
        list_images(tmp_path / name)


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is asked by a stand-in: root, who may run this, can read any folder."""
    grow(tmp_path, SPLIT_ROOT)
    scandir = os.scandir

    def refuse(folder: str):
        if str(folder).endswith("deep"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(RunError, match=r"cannot list .*a/deep: Permission denied\. M"):
        list_images(tmp_path)


def test_a_folder_that_ends_with_a_slash_cuts_no_letter(tmp_path: Path) -> None:
    """As that of the whole disk does."""
    from pipeline.sources.local_folders import LocalFolder

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").touch()
    (found,) = LocalFolder(f"{tmp_path}/").files([])
    assert found.path == "a/1.jpg"


# ------------------------------------------------------ what may be meant otherwise


@pytest.mark.parametrize(
    ("beside", "advice"),
    [
        ("val/a/2.jpg", r"val/, such as val/a/2\.jpg\. .* rename val/ to validation/"),
        ("Valid/2.png", "rename Valid/ to validation/"),
        ("DEV/2.JPG", "rename DEV/ to validation/"),
        ("eval/deep/er/2.jpg", "rename eval/ to validation/"),
        ("Testing/2.jpg", "rename Testing/ to test/"),
        (
            "bus/2.jpg",
            r"bus/2\.jpg\. If all are classes: --layout=classes\. If the oth",
        ),
    ],
)
def test_photos_beside_splits_are_refused(
    tmp_path: Path, beside: str, advice: str
) -> None:
    grow(tmp_path, ["train/a/1.jpg", beside])
    with pytest.raises(RunError, match=f"has train/, and beside it .*{advice}"):
        list_images(tmp_path)
    splits = list_images(tmp_path, layout="splits")
    assert (splits.splits(), splits.ignored.counts) == (["train"], {BESIDE: 1})


@pytest.mark.parametrize("inside", ["", "val", "elsewhere"])
def test_an_archive_of_photos_beside_splits_is_refused(
    tmp_path: Path, inside: str
) -> None:
    grow(tmp_path, ["train/a/1.jpg", "val/a/2.jpg"])
    tar(tmp_path / "val.tar", tmp_path / "val", inside)
    with pytest.raises(RunError, match="rename val/ to validation/"):
        list_images(tmp_path)
    assert list_images(tmp_path, layout="splits").ignored.counts == {BESIDE: 1}


@pytest.mark.parametrize(
    ("names", "rename"),
    [
        (("Train", "Test"), "rename Test/ to test/, Train/ to train/"),
        (("training", "val"), "rename training/ to train/, val/ to validation/"),
        (("bus", "Train"), "rename Train/ to train/"),
        (("Val", "Testing"), "rename Testing/ to test/, Val/ to validation/"),
    ],
)
def test_folders_that_are_called_like_splits_are_refused(
    tmp_path: Path, names: tuple[str, ...], rename: str
) -> None:
    grow(tmp_path, [f"{name}/a/1.jpg" for name in names])
    with pytest.raises(RunError, match=f"called like splits.*{rename}"):
        list_images(tmp_path)
    assert list_images(tmp_path, layout="classes").classes == tuple(sorted(names))
    with pytest.raises(RunError, match="has no train/, validation/ or test/, and"):
        list_images(tmp_path, layout="splits")


@pytest.mark.parametrize(
    "names", [("valid", "invalid"), ("dev", "prod"), ("test1", "a")]
)
def test_classes_may_be_called_nearly_like_splits(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    grow(tmp_path, [f"{name}/1.jpg" for name in names])
    assert list_images(tmp_path).classes == tuple(sorted(names))


def test_classes_may_be_called_as_splits_are(tmp_path: Path) -> None:
    grow(tmp_path, [f"{name}/{i}.jpg" for name in ("bus", "test") for i in range(4)])
    with pytest.raises(RunError, match="--layout=classes"):
        list_images(tmp_path)
    listing = list_images(tmp_path, layout="classes", validation_fraction=0)
    assert (listing.layout, listing.classes) == ("classes", ("bus", "test"))


def test_photos_beside_splits_are_refused_before_anything_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(tmp_path, ["train/a/1.jpg", "val/a/2.jpg"])
    listed: list[str] = []
    entries = local_folders._entries
    monkeypatch.setattr(
        local_folders,
        "_entries",
        lambda folder: [listed.append(folder), entries(folder)][1],
    )
    with pytest.raises(RunError):
        list_images(tmp_path)
    assert f"{tmp_path}/train/a" not in listed


def test_a_flat_split_is_no_class(tmp_path: Path) -> None:
    grow(tmp_path, [f"train/{i}.jpg" for i in range(4)])
    with pytest.raises(
        RunError, match=r"train has 4 photos, .*: train/CLASS/photo\.jpg"
    ):
        list_images(tmp_path)
    assert list_images(tmp_path, layout="classes").classes == ("train",)


@pytest.mark.parametrize(
    ("paths", "warning"),
    [
        (["real/cat/1.jpg", "real/dog/1.jpg", "art/cat/1.jpg", "art/dog/1.jpg"], "the"),
        (
            ["photos/cat/1.jpg", "photos/dog/1.jpg"],
            "'photos' holds no photo itself, but",
        ),
        (["a/train/x/1.jpg", "a/test/1.jpg"], "the folders test, train"),
    ],
)
def test_class_folders_that_hold_folders_alone_are_said(
    tmp_path: Path, paths: list[str], warning: str
) -> None:
    listing = list_images(grow(tmp_path, paths))
    assert any(warning in said and "as IMAGES" in said for said in listing.warnings)


def test_class_folders_with_folders_of_their_own_are_nothing_special(
    tmp_path: Path,
) -> None:
    grow(tmp_path, ["a/x/1.jpg", "a/2.jpg", "b/x/1.jpg", "c/y/1.jpg"])
    assert list_images(tmp_path).warnings == []


def test_one_class_is_said(tmp_path: Path) -> None:
    (warning,) = list_images(grow(tmp_path, ["hat/1.jpg"])).warnings
    assert "there is one class, 'hat'" in warning


def test_a_folder_beside_the_splits_need_not_be_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(tmp_path, ["train/a/1.jpg", "private/2.jpg"])
    scandir = os.scandir

    def refuse(folder: str):
        if str(folder).endswith("private"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert len(list_images(tmp_path)) == 1


# ------------------------------------------------------ names that look the same


NFC, NFD = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(
    ("one", "other"), [(NFC, NFD), ("hat", "hat "), ("a  b", "a b")]
)
def test_classes_that_look_the_same_are_refused(
    tmp_path: Path, one: str, other: str
) -> None:
    grow(tmp_path, [f"{one}/1.jpg", f"{other}/1.jpg"])
    with pytest.raises(RunError, match=r"look the same, and are not: '.*' and '.*'"):
        list_images(tmp_path)


def test_classes_that_differ_in_case_are_said(tmp_path: Path) -> None:
    grow(tmp_path, [f"{name}/1.jpg" for name in ("Hat", "hat", "12", "12.0", "coat")])
    listing = list_images(tmp_path, validation_fraction=0)
    assert len(listing.classes) == 5
    assert "'12' and '12.0'; 'Hat' and 'hat' are" in listing.warnings[0]


def test_a_class_that_is_spelled_otherwise_is_named(tmp_path: Path) -> None:
    grow(tmp_path / "images", ["train/Hat/1.jpg", "validation/hat/1.jpg"])
    with pytest.raises(
        RunError, match=r"'hat' \(1 in all\); 'hat' is spelled 'Hat' th"
    ):
        list_images(tmp_path / "images")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_class_list_of_any_editor(tmp_path: Path, encoding: str, end: str) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes(f"{NFC}{end}x{end}y{end}".encode(encoding))
    root = grow(tmp_path / "images", [f"{NFC}/1.jpg", "x/1.jpg"])
    listing = list_images(root, classes=path)
    assert listing.classes == (NFC, "x", "y")
    assert "1 of the 3 classes of --classes have no image, such as 'y'" in str(
        listing.warnings
    )


def test_two_files_whose_names_look_the_same_are_refused(tmp_path: Path) -> None:
    grow(tmp_path, [f"a/{NFC}.jpg", f"a/{NFD}.jpg"])
    with pytest.raises(RunError, match="look the same"):
        list_images(tmp_path)


# ------------------------------------------------------------- what is plainly no photo


def test_files_that_are_no_photos_are_no_rejects(tmp_path: Path) -> None:
    grow(tmp_path, ["a/1.jpg", "a/notes.txt", "b/1.jpg", "b/x.XML", "b/2", "c.csv"])
    listing = list_images(tmp_path, validation_fraction=0)
    assert set(labels(listing, "train")) == {"a/1.jpg", "b/1.jpg", "b/2"}
    assert (listing.rejects, listing.ignored.counts) == ([], {NO_PHOTO: 3})


def test_litter_of_storage_is_counted_in_files(tmp_path: Path) -> None:
    folders = ("@eaDir", "$RECYCLE.BIN", "lost+found", "#recycle", ".ipynb_checkpoints")
    grow(
        tmp_path, [f"{x}/1.jpg" for x in folders] + [f"a/{x}/2/3.jpg" for x in folders]
    )
    grow(tmp_path, ["a/1.jpg", "#1/1.jpg", "@home/1.jpg", "a/@eaDir/4.jpg"])
    listing = list_images(tmp_path, validation_fraction=0)
    assert listing.classes == ("#1", "@home", "a")
    assert listing.ignored.counts == {LITTER: 11}


def test_a_path_that_is_too_long_is_a_sentence(tmp_path: Path) -> None:
    """Deeper than the system follows; the message has no 4,000 letters."""
    here = os.open(grow(tmp_path, ["hat/1.jpg"]) / "hat", os.O_RDONLY)
    for _ in range(20):
        os.mkdir("n" * 250, dir_fd=here)
        below = os.open("n" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        with pytest.raises(RunError, match=r"cannot list .*…n+: File name too") as said:
            list_images(tmp_path)
        assert len(str(said.value)) < 600
    finally:
        subprocess.run(["rm", "-rf", str(tmp_path / "hat")], check=True)
