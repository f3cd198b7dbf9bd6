"""A CSV of images: its rows, and the files that they name."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.sources import csv_manifest, layout, listing
from pipeline.system.errors import RunError
from tests.support.files import REPOSITORY
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
    assert set(found.ignored) == {str(images / name) for name in names}


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


def test_rows_come_in_chunks(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers run on, and a fault in a later chunk names its row."""
    monkeypatch.setattr(csv_manifest, "_CHUNK", 2)
    text = "id,label\n1,x\n2,x\na/3,x\n5,x\n"
    numbers = [
        (row.number, row.id)
        for row in csv_manifest.rows(write(images.parent, text), "it", required=["id"])
    ]
    assert numbers == [(1, "1"), (2, "2"), (3, "a/3"), (4, "5")]
    with pytest.raises(RunError, match="rows 2 and 5 of train have the same id '2'"):
        listed(images.parent, f"{text}2,y\n")


def test_ids_in_an_archive_and_in_several_roots(images: Path) -> None:
    tar = pack(images.parent / "more.tar", [("0/6.jpg", b"x"), ("0/7.jpg", b"x")])
    csv = write(images.parent, "id,label\n1,x\n0/6,y\n")
    found = layout.list_images([images, tar], csv=csv, validation_fraction=0)
    assert labels(found, "train") == {"1": "x", "0/6": "y"}
    assert f"{tar}/0/7.jpg" in found.ignored
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
        ("id,landmark_id\n1,x\n", "no column label; its header is id,landmark_id"),
        ("1,x\n2,y\n", "no column id and no column label; its header is 1,x"),
        ("id;label\n1;x\n", "its header is id;label. It takes id,label"),
        ("id,label\n1,x\n,y\n", "row 2 has no id"),
        ("id,label\n1,x\n2,\n", "row 2, id '2', of train has no label"),
        ("id,label\n1,x\n2\n", "row 2, id '2', of train has no label"),
        ("id,label\n1,x\n2,y\n1,z\n", "rows 1 and 3 of train have the same id '1'"),
        ("id,label\n1,x,y\n2,y,z\n", "row 1 has 3 fields, and the header 2: id,label"),
        ("id,label\n1,x\n2,y,z\n", "is no CSV: .*line 3, saw 3"),
        ('id,label\n1,x\n"2,y\n', "is no CSV: .*inside string starting at row 2"),
        ('id,label\n1,"x\ny"\n', r"row 1, id '1', has a line break in its label"),
        (b"id,label\n1,x\n\xe9,y\n", r"row 2 is not UTF-8: \\xe9,y"),
        (b"id,label\n1,caf\xe9\n", r"row 1 is not UTF-8"),
        (b"\xff\xfei\0d\0,\0l\0", "is not UTF-8"),
        (b"\xff\xd8\xff\xe0" * 1000, "is not UTF-8"),
        ("id,label,split\n1,x,train\n2,x,val\n", "row 2, id '2', is of split 'val'"),
        ("id,label,split\n1,x,\n", "row 1, id '1', is of split ''; the splits are"),
        ("id,label,split\n1,,validation\n", "row 1, .* of validation has no label"),
        (
            "id,label,split\n1,x,train\n2,,test\n2,,test\n",
            "rows 2 and 3 of test have the same id '2'",
        ),
        (
            "id,label,split\n1,x,train\n2,y,validation\n",
            r"validation has classes that train has not: y \(1 in all\)",
        ),
        ("id,label\ngone,x\n", r"none of the files that --manifest names \(1 rejec"),
    ],
)
def test_refusals_name_the_row(images: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(RunError, match=message) as caught:
        listed(images.parent, text)
    assert "manifest" in str(caught.value) or "IMAGES" in str(caught.value)


def test_a_labelled_test_split_has_labels(images: Path) -> None:
    text = "id,label,split\n1,x,train\n2,x,test\n5,,test\n"
    with pytest.raises(RunError, match="row 3, id '5', of test has no label"):
        listed(images.parent, text, labelled_test=True)


def test_there_must_be_a_file(images: Path) -> None:
    for name in ("none.csv", "images"):
        csv = images.parent / name
        with pytest.raises(RunError, match=f"--manifest={csv} is no file. Name a CSV"):
            layout.list_images(images, csv=csv)


def test_without_pandas_the_message_says_what_to_install(images: Path) -> None:
    """In a process of its own, where the import fails as on a shard worker."""
    csv = write(images.parent, "id,label\n1,x\n")
    script = """
import sys
from pathlib import Path
from pipeline.sources import layout
assert "pandas" not in sys.modules
sys.modules["pandas"] = None
layout.list_images(Path(sys.argv[1]), csv=Path(sys.argv[2]))
"""
    result = subprocess.run(
        [sys.executable, "-c", script, images, csv],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert "RunError: --manifest=" in result.stderr
    assert "pip install pandas" in result.stderr
