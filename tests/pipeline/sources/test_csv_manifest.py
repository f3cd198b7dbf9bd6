"""A CSV of images: its rows, and the files that they name."""

from pathlib import Path

import pytest

from pipeline.sources import layout, listing
from pipeline.system.errors import RunError
from tests.support.image_folders import grow, labels, pack, rejected


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "list.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def listed(folder: Path, text: str | bytes, **options: object) -> listing.Listing:
    """The listing of a CSV beside the folder `images`."""
    csv = write(folder, text)
    return layout.list_images(folder / "images", csv=csv, **options)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    names = ("1.jpg", "2.jpg", "a/3.jpg", "a/4.png", "5", "extra.jpg", ".hidden.jpg")
    return grow(tmp_path / "images", names)


# --------------------------------------------------------------------- what is listed


def test_a_list_of_photos_that_nobody_named_is_told(tmp_path: Path) -> None:
    """As in Kaggle's landmarks, whose folders are digits of the ids."""
    for name in ("0/1/a.jpg", "0/2/b.jpg"):
        (tmp_path / "train" / name).parent.mkdir(parents=True)
        (tmp_path / "train" / name).write_bytes(b"")
    csv = tmp_path / "train.csv"
    (tmp_path / "other.csv").write_text("name,size\nx,1\n")

    def told() -> list[str]:
        return [x for x in layout.list_images(tmp_path).warnings if ".csv" in x]

    assert told() == []
    csv.write_text("id,url,landmark_id\na,http://x/a,7\nb,http://x/b,8\n")
    (warning,) = told()
    assert warning.startswith(f"{csv} has ids and labels, and is not read: ")
    assert warning.endswith(f"--manifest={csv}")
    named = layout.list_images(tmp_path, csv=csv)
    assert (named.classes, len(named.warnings)) == (("7", "8"), 0)


def test_the_id_is_the_text_of_the_csv(images: Path) -> None:
    """Kaggle's has no `.jpg`; a leading 0, NA and 1e5 are text like any other."""
    grow(images, ["007.jpg", "NA.jpg", "1e5.jpg"])
    text = 'id,label\n1,x\n2.jpg,NA\na/3,x\na/4.png,y\n5,"y, z"\n007,1\nNA,01\n1e5,x\n'
    found = listed(images.parent, text, validation_fraction=0)
    assert labels(found, "train") == {
        **{"1": "x", "2.jpg": "NA", "a/3": "x", "a/4.png": "y", "5": "y, z"},
        **{"007": "1", "NA": "01", "1e5": "x"},
    }
    uris = {ref.id: ref.uri for ref in found.refs}
    assert uris["a/3"] == str(images / "a" / "3.jpg")
    assert uris["5"] == str(images / "5")
    assert found.classes == ("01", "1", "NA", "x", "y", "y, z")
    assert (found.layout, found.rejects) == ("manifest", [])


def test_files_without_an_id_are_ignored_and_listed(images: Path) -> None:
    found = listed(images.parent, "id,label\n1,x\n2,x\n")
    names = ("5", "a/3.jpg", "a/4.png", "extra.jpg", ".hidden.jpg")
    assert found.ignored.counts == {listing.UNNAMED: 4, listing.LITTER: 1}
    examples = found.ignored.examples
    assert examples[listing.UNNAMED] == sorted(str(images / x) for x in names[:-1])[:3]


def test_ids_without_a_file_are_rejected(images: Path) -> None:
    text = "id,label\n1,x\ngone,y\n../list.csv,x\n/etc/passwd,x\n.hidden.jpg,x\na,x\n"
    found = listed(images.parent, text)
    assert rejected(found) == {
        **{"gone": "no_file", ".hidden.jpg": "no_file", "a": "no_file"},
        **{"../list.csv": "bad_name", "/etc/passwd": "bad_name"},
    }
    details = {reject.id: (reject.label, reject.detail) for reject in found.rejects}
    assert details["gone"] == ("y", "IMAGES has no file gone.jpg or gone")
    assert found.classes == ("x", "y")


def test_odd_spellings_of_a_path(images: Path) -> None:
    found = listed(images.parent, "id,label\n./1,x\na//3.jpg,x\n")
    assert found.rejects == []
    assert {ref.id for ref in found.refs} == {"./1", "a//3.jpg"}


@pytest.mark.parametrize(
    ("there", "uri"),
    [(["v.2"], "v.2"), (["v.2.jpg"], "v.2.jpg"), (["v.2", "v.2.jpg"], "v.2")],
)
def test_what_looks_like_an_extension(
    tmp_path: Path, there: list[str], uri: str
) -> None:
    grow(tmp_path / "images", there)
    (ref,) = listed(tmp_path, "id,label\nv.2,x\n").refs
    assert ref.uri == str(tmp_path / "images" / uri)


def test_without_an_extension_jpg_comes_first(tmp_path: Path) -> None:
    grow(tmp_path / "images", ["1", "1.jpg"])
    (ref,) = listed(tmp_path, "id,label\n1,x\n").refs
    assert ref.uri.endswith("1.jpg")


def test_validation_is_carved_as_of_class_folders(tmp_path: Path) -> None:
    """The same ids and classes: the same images, whatever says what is what."""
    names = [f"{name}/{i}.jpg" for name in ("a", "b") for i in range(40)]
    grow(tmp_path / "images", names)
    rows = "".join(f"{name},{name[0]}\n" for name in reversed(names))
    found = listed(tmp_path, f"id,label\n{rows}", validation_fraction=0.3, seed=4)
    options = {"validation_fraction": 0.3, "seed": 4}
    folders = layout.list_images(tmp_path / "images", **options)
    assert sorted(found.refs) == sorted(folders.refs)
    assert found.classes == folders.classes
    assert found.splits() == ["train", "validation"]


def test_a_split_column_decides(images: Path) -> None:
    text = (
        "split,id,url,label\ntrain,1,u,x\nvalidation,2,u,x\ntest,a/3,u,\ntest,5,u,x\n"
        "validation,1,u,x\n"
    )
    found = listed(images.parent, text, validation_fraction=0.9)
    assert labels(found, "train") == {"1": "x"}
    assert labels(found, "validation") == {"2": "x", "1": "x"}
    assert labels(found, "test") == {"a/3": None, "5": "x"}
    assert not found.carved


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_as_spreadsheets_write_it(images: Path, mark: str, end: str) -> None:
    text = end.join([f"{mark}id,label", '"1","x"', "", "2,x", ""])
    found = listed(images.parent, text, validation_fraction=0)
    assert labels(found, "train") == {"1": "x", "2": "x"}


def test_ids_in_an_archive_and_in_several_roots(images: Path) -> None:
    tar = pack(images.parent / "more.tar", [("0/6.jpg", b"x"), ("0/7.jpg", b"x")])
    csv = write(images.parent, "id,label\n1,x\n0/6,y\n")
    found = layout.list_images([images, tar], csv=csv, validation_fraction=0)
    assert labels(found, "train") == {"1": "x", "0/6": "y"}
    assert found.ignored.counts[listing.UNNAMED] == 6  # 0/7.jpg among them
    assert found.rejects == []


def test_a_file_in_two_roots(images: Path) -> None:
    """Which one is meant? Where no row asks, it does not matter."""
    other = grow(images.parent / "other", ["1.jpg", "8.jpg"])
    csv = write(images.parent, "id,label\n2,x\n8,x\n")
    assert len(layout.list_images([images, other], csv=csv).refs) == 2
    csv = write(images.parent, "id,label\n1,x\n")
    with pytest.raises(RunError, match=r"images/1\.jpg and .*other/1\.jpg. Rename"):
        layout.list_images([images, other], csv=csv)


# -------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("id,label\n", "has a header and no row"),
        ("id,class\n1,x\n", "no column label; its header is 'id,class'"),
        ("1,x\n2,y\n", "no column id and no column label; its header is '1,x'"),
        ("id,label,ID,id\n1,x,1,1\n", "has the column id 2 times; its header is"),
        ("id,label\n1,x\n,y\n", "line 3 has no id"),
        ("id,label\n1,x\n2,\n", "line 3, id '2', of train has no label"),
        ("id,label\n1,x\n2\n", "line 3 has 1 cells, and the header has 2: '2'"),
        ("id,label\n1,x\n2,y\n1,z\n", "lines 2 and 4 of train have the same id '1'"),
        ("id,label\n1,x,y\n2,y,z\n", "line 2 has 3 cells, and the header has 2: '1,x,"),
        ("id,label\n1,x\n\n2,y,z\n", "line 4 has 3 cells"),
        ('id,label\n1,x\n"2,y\n3,z\n', "the row that begins in line 3 is no row of"),
        ('id,label\n1,x\n"2"a,y\n3,z\n', "the row that begins in line 3 is no row of"),
        ('id,label\n1,"x\ny"\n', r"line 2, id '1', has a line break in its label"),
        (b"id,label\n1,x\n\xe9,y\n", "line 3 is .*xe9,y', and would be 'é,y' in Latin"),
        (b"id,label\n1,caf\xe9\n", r"is not UTF-8: line 2 is '1,caf"),
        (b"\xff\xfei\0d\0,\0l", "is no whole UTF-16"),
        (b"\xff\xd8\xff\xe0" * 1000, "is not UTF-8: line 1"),
        (b"id,label\n1,\0x\n", "is no text: line 2 has a zero byte"),
        ("id,label,split\n1,x,train\n2,x,val\n", "line 3, id '2', is of split 'val'"),
        ("id,label,split\n1,x,\n", "line 2, id '1', is of split ''; the splits are"),
        ("id,label,split\n1,,validation\n", "line 2, .* of validation has no label"),
        ("id,label\n1, x\n2,x\n", "line 2 has blanks at the ends of the label ' x'"),
        ("id,label\n1,x\n2\xa0,y\n", "line 3 has blanks at .* the id '2.xa0', which"),
        (
            "id,label\n2,x\n./2.jpg,y\n",
            "lines 2 and 3 of train name the same file '2.jpg': '2' and './2.jpg', "
            "and have two labels: 'x' and 'y'",
        ),
        (
            "id,label,split\n1,x,train\n2,,test\n2,,test\n",
            "lines 3 and 4 of test have the same id '2'",
        ),
        (
            "id,label,split\n1,x,train\n2,y,validation\n",
            r"validation has classes that train has not: 'y' \(1 in all\)",
        ),
        (
            "id,label\ngone,x\n",
            "first of 1 ids is 'gone': IMAGES has no file gone.jpg or gone; it has '1.",
        ),
        (
            "id,label\n3.jpg,x\n",
            "'3.jpg': IMAGES has no file 3.jpg or 3.jpg.jpg; there is a/3.jpg; it has",
        ),
    ],
)
def test_refusals_name_the_row(images: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(RunError, match=message) as caught:
        listed(images.parent, text)
    assert "manifest" in str(caught.value) or "IMAGES" in str(caught.value)


def test_a_labelled_test_split_has_labels(images: Path) -> None:
    text = "id,label,split\n1,x,train\n2,x,test\n5,,test\n"
    with pytest.raises(RunError, match="line 4, id '5', of test has no label"):
        listed(images.parent, text, labelled_test=True)


def test_there_must_be_a_file(images: Path) -> None:
    for name in ("none.csv", "images"):
        csv = images.parent / name
        with pytest.raises(RunError, match=f"--manifest={csv} is no file. Correct"):
            layout.list_images(images, csv=csv)
