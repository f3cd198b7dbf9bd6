"""Where bytes are: a file, or a part of an archive."""

import json
import os
import tarfile
from pathlib import Path

import pytest

from pipeline import origin
from pipeline.image import BadImage


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "x,\né.tar"  # a name that would break most separators
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
    (tmp_path / "none").touch()
    with tarfile.open(path, "w") as packed:
        for name in ("one", "none", "two"):
            packed.add(tmp_path / name, name)
    return path


def uri_of(archive: Path, name: str) -> str:
    with tarfile.open(archive) as packed:
        member = packed.getmember(name)
    return origin.in_tar(str(archive), member.offset_data, member.size)


@pytest.mark.parametrize("name", ["one", "two", "none"])
def test_a_member_is_read_as_the_file_it_was(archive: Path, name: str) -> None:
    file, uri = str(archive.parent / name), uri_of(archive, name)
    assert origin.read(uri) == origin.read(file) == Path(file).read_bytes()
    assert origin.size(uri) == origin.size(file) == os.stat(file).st_size
    assert (origin.path(uri), origin.path(file)) == (str(archive), file)
    assert (origin.is_file(uri), origin.is_file(file)) == (False, True)


def test_a_uri_survives_a_plan_file(archive: Path) -> None:
    uri = uri_of(archive, "two")
    assert json.loads(json.dumps(uri)) == uri
    assert "\n" not in json.dumps(uri)


def test_members_sort_as_they_lie(archive: Path) -> None:
    uris = [uri_of(archive, name) for name in ("two", "one")]
    assert sorted(uris, key=origin.in_order) == uris[::-1]
    far = origin.in_tar(str(archive), 10**12, 1)  # by number: not by its digits
    assert max([far, *uris], key=origin.in_order) == far


@pytest.mark.parametrize(
    ("cut", "name"), [(1000, "two"), (600, "one"), (0, "one"), (512, "one")]
)
def test_an_archive_that_was_cut_since(archive: Path, cut: int, name: str) -> None:
    uri = uri_of(archive, name)
    os.truncate(archive, cut)
    with pytest.raises(BadImage) as caught:
        origin.read(uri)
    assert caught.value.reason == "unreadable"
    assert caught.value.detail == f"{archive} ends within it"


@pytest.mark.parametrize(
    ("name", "detail"), [("gone", "No such file"), (".", "Is a directory")]
)
def test_what_cannot_be_opened(tmp_path: Path, name: str, detail: str) -> None:
    for uri in (str(tmp_path / name), origin.in_tar(str(tmp_path / name), 0, 3)):
        with pytest.raises(BadImage, match=f"'unreadable', '{detail}"):
            origin.read(uri)


def test_only_a_file_has_a_size(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("gone", "No such file"), ("pipe", "not a regular file")):
        with pytest.raises(OSError, match=message):
            origin.size(str(tmp_path / name))
