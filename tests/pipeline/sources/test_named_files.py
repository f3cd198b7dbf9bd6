"""Which file an id of a CSV means, as other tools write ids."""

from pathlib import Path

import pytest

from pipeline.sources.listing import Ignored
from pipeline.sources.local_folders import LocalFolder
from pipeline.sources.named_files import NamedFiles
from tests.support.image_folders import grow

FILES = (
    *("hat/1.jpg", "hat/2.JPG", "coat/1.jpg", "coat/3.png", "top.jpeg"),
    *("6/e/1/6e15.jpg", "22.05.jpg", "deep/twice.jpg", "deeper/twice.png"),
    *("cafe\u0301.jpg", "Case.jpg", "both.png", "both.webp", "with space.jpg"),
)


@pytest.fixture
def files(tmp_path: Path) -> NamedFiles:
    return NamedFiles([LocalFolder(str(grow(tmp_path, FILES)))], Ignored())


@pytest.mark.parametrize(
    ("image_id", "path"),
    [
        ("hat/1.jpg", "hat/1.jpg"),
        ("hat/1", "hat/1.jpg"),
        ("hat/2", "hat/2.JPG"),
        ("coat/3", "coat/3.png"),
        ("top", "top.jpeg"),
        ("22.05", "22.05.jpg"),
        ("6e15", "6/e/1/6e15.jpg"),  # Google's landmarks since 2019
        ("./hat/1.jpg", "hat/1.jpg"),
        ("hat//1", "hat/1.jpg"),
        (r"hat\1.jpg", "hat/1.jpg"),
        (r"C:\photos\hat\1.jpg", "hat/1.jpg"),
        ("/elsewhere/photos/coat/1.jpg", "coat/1.jpg"),
        ("/elsewhere/coat/3", "coat/3.png"),
        ("https://h.org/p/hat/1.jpg?w=9", "hat/1.jpg"),
        ("https://h.org/with%20space.jpg", "with space.jpg"),
        ("file:///p/top.jpeg", "top.jpeg"),
    ],
)
def test_ids_that_mean_one_file(files: NamedFiles, image_id: str, path: str) -> None:
    found = files.find(image_id)
    assert (found.path, found.problem) == (path, None)


def test_an_absolute_id_below_images_means_no_other_file(tmp_path: Path) -> None:
    grow(tmp_path, ["hat/1.jpg", "1.jpg"])
    files = NamedFiles([LocalFolder(str(tmp_path))], Ignored())
    assert files.find(f"{tmp_path}/hat/1.jpg").path == "hat/1.jpg"
    problem = files.find("/old/hat/1.jpg").problem
    assert problem
    assert problem[1] == "IMAGES has 2 files that it may mean: 1.jpg, hat/1.jpg"


@pytest.mark.parametrize(
    ("image_id", "detail"),
    [
        ("both", "IMAGES has 2 files that it may mean: both.png, both.webp"),
        ("twice", "2 files that it may mean: deep/twice.jpg, deeper/twice.png"),
        ("1.jpg", "no file 1.jpg or 1.jpg.jpg; there is coat/1.jpg, hat/1.jpg"),
        ("hut/1.jpg", "no file hut/1.jpg or hut/1.jpg.jpg; there is coat/1.jpg, hat/1"),
        ("caf\u00e9.jpg", r"there is 'cafe\u0301.jpg', spelled otherwise"),
        ("caf\u00e9", r"there is 'cafe\u0301.jpg', spelled otherwise"),
        ("case.jpg", "there is 'Case.jpg', spelled otherwise"),
        ("gone", "no file gone.jpg or gone"),
    ],
)
def test_ids_that_mean_no_file_or_more(
    files: NamedFiles, image_id: str, detail: str
) -> None:
    problem = files.find(image_id).problem
    assert problem
    assert problem[0] == "no_file"
    assert detail in problem[1]


@pytest.mark.parametrize("image_id", ["../1.jpg", "/etc/passwd", "a/../hat/1.jpg"])
def test_ids_that_lead_out(files: NamedFiles, image_id: str) -> None:
    assert files.find(image_id).problem == ("bad_name", "the id leads out of IMAGES")
