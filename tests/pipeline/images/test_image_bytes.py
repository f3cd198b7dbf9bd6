"""Where bytes are: a file, or a part of an archive."""

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from pipeline.dataset.manifest import ImageContract
from pipeline.images import image_bytes
from pipeline.images.conversion import BadImage
from pipeline.sources import tar_archives
from pipeline.storage.object_paths import ObjectPath
from tests.support.processes import Program


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
    return image_bytes.in_tar(str(archive), member.offset_data, member.size)


@pytest.mark.parametrize("name", ["one", "two", "none"])
def test_a_member_is_read_as_the_file_it_was(archive: Path, name: str) -> None:
    file, uri = str(archive.parent / name), uri_of(archive, name)
    assert image_bytes.read(uri) == image_bytes.read(file) == Path(file).read_bytes()
    assert image_bytes.size(uri) == image_bytes.size(file) == os.stat(file).st_size
    assert (image_bytes.path(uri), image_bytes.path(file)) == (str(archive), file)
    assert (image_bytes.is_file(uri), image_bytes.is_file(file)) == (False, True)


def test_a_uri_survives_a_plan_file(archive: Path) -> None:
    uri = uri_of(archive, "two")
    assert json.loads(json.dumps(uri)) == uri
    assert "\n" not in json.dumps(uri)


def test_members_sort_as_they_lie(archive: Path) -> None:
    uris = [uri_of(archive, name) for name in ("two", "one")]
    assert sorted(uris, key=image_bytes.in_order) == uris[::-1]
    far = image_bytes.in_tar(str(archive), 10**12, 1)  # by number: not by its digits
    assert max([far, *uris], key=image_bytes.in_order) == far


@pytest.mark.parametrize(
    ("cut", "name"), [(1000, "two"), (600, "one"), (0, "one"), (512, "one")]
)
def test_an_archive_that_was_cut_since(archive: Path, cut: int, name: str) -> None:
    uri = uri_of(archive, name)
    os.truncate(archive, cut)
    with pytest.raises(BadImage) as caught:
        image_bytes.read(uri)
    assert caught.value.reason == "unreadable"
    assert caught.value.detail == f"{archive} ends within it"


@pytest.mark.parametrize(
    ("name", "detail"), [("gone", "No such file"), (".", "Is a directory")]
)
def test_what_cannot_be_opened(tmp_path: Path, name: str, detail: str) -> None:
    for uri in (str(tmp_path / name), image_bytes.in_tar(str(tmp_path / name), 0, 3)):
        with pytest.raises(BadImage, match=f"'unreadable', '{detail}"):
            image_bytes.read(uri)


def test_only_a_file_has_a_size(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("gone", "No such file"), ("pipe", "not a regular file")):
        with pytest.raises(OSError, match=message):
            image_bytes.size(str(tmp_path / name))


TERABYTE = 1 << 40


def sparse(path: Path, size: int) -> Path:
    """A file of so many bytes that takes no room."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


def sparse_archive(path: Path, size: int) -> Path:
    """An archive of a photo of so many bytes."""
    member = tarfile.TarInfo("photo.jpg")
    member.size = size
    with path.open("wb") as file:
        file.write(headers := member.tobuf())
        file.truncate(len(headers) + size + 2 * tarfile.BLOCKSIZE)
    return path


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    archive = sparse_archive(tmp_path / "photos.tar", TERABYTE)
    (found,) = tar_archives.read(str(archive)).found
    for uri in (
        str(sparse(tmp_path / "photo.jpg", TERABYTE)),
        found.uri,
        image_bytes.in_store(
            "s3://none/photo.jpg", TERABYTE
        ),  # and nothing is asked for
        image_bytes.in_tar("s3://none/photos.tar", 512, TERABYTE),
    ):
        with pytest.raises(BadImage) as caught:
            image_bytes.read(uri)
        assert caught.value.reason == "too_large"
        assert caught.value.detail == (
            "1,099,511,627,776 bytes; a photo may have 512,000,000"
        )


def test_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert image_bytes.MAX_BYTES == 512_000_000
    monkeypatch.setattr(image_bytes, "MAX_BYTES", 1000)
    assert len(image_bytes.read(str(sparse(tmp_path / "at", 1000)))) == 1000
    with pytest.raises(BadImage, match="too_large"):
        image_bytes.read(str(sparse(tmp_path / "above", 1001)))


def test_an_object_whose_size_nobody_knows(
    bucket: ObjectPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bucket / "photo.jpg").upload(sparse(tmp_path / "photo.jpg", 1001))
    assert len(image_bytes.read(f"{bucket}/photo.jpg")) == 1001
    monkeypatch.setattr(image_bytes, "MAX_BYTES", 1000)
    with pytest.raises(BadImage, match="too_large"):
        image_bytes.read(f"{bucket}/photo.jpg")


def test_a_huge_file_costs_one_image(
    images: Path, tmp_path: Path, program: Program
) -> None:
    root = Path(shutil.copytree(images, tmp_path / "images"))
    sparse(root / "train" / "red" / "huge.jpg", TERABYTE)
    words = (f"--images={root}", "--height=32", "--width=32")
    result = program("pipeline", "plan", *words)
    assert result.returncode == 0, result.stderr
    assert "1 too_large" in result.stdout
    made = f"--dataset={tmp_path / 'made'}"
    result = program("pipeline", "shards", *words, made, "--max_reject_fraction=0.1")
    assert result.returncode == 0, result.stderr
    rejects = (tmp_path / "made" / "rejects.csv").read_text()
    assert 'red/huge.jpg,train,red,too_large,"1,099,511,627,776 bytes' in rejects


def test_a_huge_photo_to_predict(images: Path, tmp_path: Path) -> None:
    from predictor.inputs.photo_decoding import Decoders

    decoders = Decoders(ImageContract(height=32, width=32), count=1)
    uris = [
        str(sparse(tmp_path / "huge.jpg", TERABYTE)),
        str(images / "test" / "photo 1.jpg"),
    ]
    try:
        huge, photo = decoders.decode(uris)
    finally:
        decoders.end()
    assert isinstance(huge, BadImage)
    assert huge.reason == "too_large"
    assert photo.shape == (32, 32, 3)
