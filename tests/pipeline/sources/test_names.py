"""Names: what is litter or no photo, and which names a person takes for one."""

import doctest

import pytest

from pipeline.sources import names

NFC, NFD = "caf\u00e9", "cafe\u0301"


def test_examples() -> None:
    assert doctest.testmod(names).failed == 0


@pytest.mark.parametrize(
    "name",
    [
        *(".DS_Store", "._1.jpg", "Thumbs.db", "desktop.ini", "@eaDir", "$RECYCLE.BIN"),
        *("#recycle", "lost+found", "System Volume Information", "__MACOSX"),
        *(".ipynb_checkpoints", "@Recycle", "#snapshot", "Icon\r", "LOST.DIR"),
    ],
)
def test_litter(name: str) -> None:
    assert names.is_litter(name)


@pytest.mark.parametrize(
    "name", ["#1", "@home", "$5", "lost", "found", "recycle", "system", "1.jpg", "hat"]
)
def test_classes_that_are_no_litter(name: str) -> None:
    assert not names.is_litter(name)


@pytest.mark.parametrize(
    ("name", "is_no_photo"),
    [
        *(("notes.txt", True), ("a/b.XML", True), ("IMG_1.aae", True), ("x.mp4", True)),
        *(("1.jpg", False), ("1", False), ("22.05", False), ("1.zip", False)),
        *(("photo.txt.jpg", False), ("x.cr2", False), ("txt", False)),
    ],
)
def test_what_is_plainly_no_photo(name: str, is_no_photo: bool) -> None:
    assert names.is_no_photo(name) == is_no_photo


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (NFC, NFD, True),
        ("hat", "hat ", True),
        ("red hat", "red\u00a0 hat", True),
        ("hat", "h\u200bat", True),
        ("\ufeffhat", "hat", True),
        ("hat", "Hat", False),
        ("STRASSE", "straße", False),
        (NFC.upper(), NFD, False),
        ("12", "12.0", False),
        ("7", "007", False),
    ],
)
def test_names_that_a_person_takes_for_one(one: str, other: str, same: bool) -> None:
    found = names.alike([one, other, "zebra"])
    assert found == (
        ([sorted([one, other])], []) if same else ([], [sorted([one, other])])
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [("hat", "cat"), ("12", "120"), ("0", "00.5"), ("e", "é"), ("", "0")],
)
def test_names_that_are_two(one: str, other: str) -> None:
    assert names.alike([one, other]) == ([], [])


def test_a_message_shows_the_difference() -> None:
    shown = {names.shown(name) for name in (NFC, NFD, "hat", "hat\u200b", "hat\u00a0")}
    assert shown == {
        "'café'",
        r"'cafe\u0301'",
        "'hat'",
        r"'hat\u200b'",
        r"'hat\xa0'",
    }
