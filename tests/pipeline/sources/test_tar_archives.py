"""Tar archives read in place: formats, names, what is no file, damage."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from pipeline.images import image_bytes
from pipeline.sources import tar_archives
from pipeline.sources.listing import LITTER, Ignored
from pipeline.sources.tar_archives import Packed, Tree
from pipeline.system.errors import RunError
from tests.support.image_folders import header, pack

FORMATS = {
    "ustar": tarfile.USTAR_FORMAT,
    "pax": tarfile.PAX_FORMAT,
    "gnu": tarfile.GNU_FORMAT,
}
LONG = "/".join(["d" * 90] * 3) + "/" + "n" * 95  # more than ustar's 256, or any field
NAMES = (
    "a/1.jpg",
    "a/b/c/2.jpg",
    "with space/é 日本 🦓.jpg",
    "two\nlines.jpg",
    "-rf",
    "x" * 99,
    "d" * 120 + "/" + "x" * 90 + ".jpg",
)
LINK, HARD, PIPE, DEVICE = (
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.FIFOTYPE,
    tarfile.CHRTYPE,
)


def files(tree: Tree | Packed) -> dict[str, bytes]:
    """The content by path of all that can be read."""
    found = tree.files(Ignored())
    return {one.path: image_bytes.read(one.uri) for one in found if not one.problem}


def problems(tree: Tree | Packed) -> dict[str, tuple[str, str]]:
    return {one.path: one.problem for one in tree.files(Ignored()) if one.problem}


# ----------------------------------------------------------------- what it holds


@pytest.mark.parametrize("form", FORMATS)
def test_every_format(tmp_path: Path, form: str) -> None:
    names = NAMES if form == "ustar" else (*NAMES, LONG)
    content = {name: f"content of {name}".encode() * 50 for name in names}
    content["empty.jpg"] = b""
    path = pack(tmp_path / "x.tar", list(content.items()), format=FORMATS[form])
    assert files(tar_archives.read(str(path))) == content


@pytest.mark.parametrize("form", FORMATS)
def test_bytes_that_are_no_utf8_stay_what_they_are(tmp_path: Path, form: str) -> None:
    name = os.fsdecode(b"a/caf\xe9.jpg")
    path = pack(tmp_path / "x.tar", [(name, b"x")], format=FORMATS[form])
    assert files(tar_archives.read(str(path))) == {name: b"x"}


def test_a_larger_archive_than_any_memory_is_not_read(tmp_path: Path) -> None:
    """Three members of 100 GB, which are holes on the disk; the process counts."""
    path, size = tmp_path / "x.tar", 100 * 10**9
    with path.open("wb") as file:
        for number in range(3):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = size
            file.write(info.tobuf(tarfile.GNU_FORMAT))
            file.seek(-(-size // 512) * 512, os.SEEK_CUR)
        file.truncate(file.tell() + 1024)
    before = bytes_read()
    tree = tar_archives.read(str(path))
    assert bytes_read() - before < 200_000
    offsets = [image_bytes.in_order(found.uri)[1] for found in tree.found]
    step = 512 + -(-size // 512) * 512
    assert offsets == [512, 512 + step, 512 + 2 * step]


def bytes_read() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def test_the_last_version_of_a_name_counts(tmp_path: Path) -> None:
    """As for `tar --extract`, after `tar --append` or `--update`."""
    path = pack(tmp_path / "x.tar", [("a/1.jpg", b"old"), ("a/2.jpg", b"two")])
    pack(path, [("./a/1.jpg", b"newer")], mode="a")
    tree = tar_archives.read(str(path))
    assert files(tree) == {"a/1.jpg": b"newer", "a/2.jpg": b"two"}
    assert len(tree.found) == 2


@pytest.mark.parametrize("prefix", ["", "./", "cat/", "./cat/", ".//cat//"])
def test_an_archive_stands_for_its_folder(tmp_path: Path, prefix: str) -> None:
    """Whether the files were packed, or the folder that they are in."""
    members = [(f"{prefix}{name}", b"x") for name in ("1.jpg", "sub/2.jpg", "._1.jpg")]
    members += [header(prefix or "./", tarfile.DIRTYPE), ("._cat", b"of macOS")]
    packed = Packed(str(pack(tmp_path / "cat.tar", members)))
    assert files(packed).keys() == {"1.jpg", "sub/2.jpg"}
    ignored = Ignored()
    list(packed.files(ignored))
    examples = ignored.examples[LITTER]
    assert sorted(Path(path).name for path in examples) == ["._1.jpg", "._cat"]


def test_a_folder_of_another_name_is_kept(tmp_path: Path) -> None:
    path = pack(tmp_path / "cat.tar", [("dog/1.jpg", b"x")])
    assert files(Packed(str(path))).keys() == {"dog/1.jpg"}
    both = pack(tmp_path / "both.tar", [("both/1.jpg", b"x"), ("2.jpg", b"x")])
    assert files(Packed(str(both))).keys() == {"both/1.jpg", "2.jpg"}


@pytest.mark.parametrize(
    ("names", "inside"),
    [
        (["p/a/1.jpg", "p/b/2.jpg"], {"a", "b"}),
        (["q/p/a/1.jpg", "q/p/b/2.jpg"], {"a", "b"}),
        (["p/train/a/1.jpg"], {"train"}),
        (["train/a/1.jpg"], {"train"}),
        (["a/1.jpg"], {"a"}),  # the only class
        (["p/a/1.jpg", "q/2.jpg"], {"p", "q"}),
        (["p/a/1.jpg", "LICENSE"], {"p"}),
    ],
)
def test_a_folder_around_a_whole_collection_goes(
    tmp_path: Path, names: list[str], inside: set[str]
) -> None:
    path = pack(tmp_path / "x.tar", [(name, b"x") for name in names])
    place = tar_archives.unwrap(tar_archives.read(str(path)), ["train", "test"])
    assert place.level().below.keys() == inside


def test_litter_is_counted_as_in_a_folder(tmp_path: Path) -> None:
    names = [".git/a", ".git/b/c", "a/__MACOSX/1.jpg", "a/Thumbs.db", "a/1.jpg"]
    tree = tar_archives.read(str(pack(tmp_path / "x.tar", [(n, b"") for n in names])))
    assert sorted(tree.litter) == [
        ".git/a",
        ".git/b/c",
        "a/Thumbs.db",
        "a/__MACOSX/1.jpg",
    ]
    assert [found.path for found in tree.found] == ["a/1.jpg"]


# ------------------------------------------------------------------- what is no file


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../x.jpg", "leads out"),
        ("a/../../x.jpg", "leads out"),
        ("a/../x.jpg", "leads out"),
        ("..", "leads out"),
        ("/etc/x.jpg", "leads out"),
        ("//x.jpg", "leads out"),
        (".", "empty"),
        ("a/x\0.jpg", "zero byte"),
    ],
)
def test_names_that_lead_out_are_rejected(tmp_path: Path, name: str, why: str) -> None:
    good = ("a/1.jpg", b"good")
    long = tarfile.TarInfo("x")
    long.pax_headers = {"path": name}  # as no field of ustar could hold it
    tree = tar_archives.read(str(pack(tmp_path / "x.tar", [long, good])))
    assert files(tree) == dict([good])
    ((shown, (reason, detail)),) = problems(tree).items()
    assert (shown, reason) == (name.replace("\0", r"\0"), "bad_name")
    assert why in detail
    assert tree.level().below.keys() == {"a"}  # and no folder `..`


def test_nothing_but_files_is_read(tmp_path: Path) -> None:
    """A symbolic link is followed nowhere; a hard one is the member that it names."""
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    members = [
        ("a/1.jpg", b"one"),
        header("a/out.jpg", LINK, str(secret)),
        header("a/up.jpg", LINK, "../secret.jpg"),
        header("a/hard.jpg", HARD, "./a/1.jpg"),
        header("a/lost.jpg", HARD, "a/gone.jpg"),
        header("folder", LINK, "/etc"),
        header("a/pipe.jpg", PIPE),
        header("a/tty.jpg", DEVICE),
    ]
    tree = tar_archives.read(str(pack(tmp_path / "x.tar", members)))
    assert files(tree) == {"a/1.jpg": b"one", "a/hard.jpg": b"one"}
    found = problems(tree)
    assert {reason for reason, _ in found.values()} == {"unreadable"}
    assert found.pop("a/pipe.jpg")[1] == found.pop("a/tty.jpg")[1]
    assert "a hard link to a/gone.jpg, which" in found.pop("a/lost.jpg")[1]
    assert {path: detail.split()[3] for path, (_, detail) in found.items()} == {
        "a/out.jpg": str(secret),
        "a/up.jpg": "../secret.jpg",
        "folder": "/etc",
    }


def test_sparse_members_are_rejected(tmp_path: Path) -> None:
    """Their bytes are not those of the file; GNU's format, and both kinds of pax."""
    old = header("old.jpg", tarfile.GNUTYPE_SPARSE)
    zero, one = tarfile.TarInfo("zero.jpg"), tarfile.TarInfo("one.jpg")
    zero.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "9"}
    one.pax_headers = {
        **{"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
        **{"GNU.sparse.name": "one.jpg", "GNU.sparse.realsize": "512"},
    }
    one.size = 512
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(old)
        archive.addfile(zero)
        archive.addfile(one, io.BytesIO(b"1\n0\n512\n".ljust(512, b"\0")))
    found = problems(tar_archives.read(str(path)))
    assert found == dict.fromkeys(
        ("old.jpg", "zero.jpg", "one.jpg"),
        ("unreadable", "a sparse file in an archive"),
    )


def test_the_label_of_a_volume_is_no_file(tmp_path: Path) -> None:
    members = [header("backup 7", b"V"), header("dumped", b"D"), ("1.jpg", b"one")]
    tree = tar_archives.read(str(pack(tmp_path / "x.tar", members)))
    assert [found.path for found in tree.files(Ignored())] == ["1.jpg"]
    assert tree.folders == ["dumped"]


# -------------------------------------------------------------------------- damage


def whole() -> bytes:
    """Three members of one header and two blocks each, then the end mark."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for number in range(3):
            info = tarfile.TarInfo(f"a/{number}.jpg")
            info.size = 1000
            archive.addfile(info, io.BytesIO(bytes([65 + number]) * 1000))
    return packed.getvalue()


MEMBER = 512 + 1024


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no whole tar archive: empty file. Restore it"),
        (b"<html>404 Not Found</html>" * 50, "no whole tar archive"),
        (whole()[:300], "no whole tar archive"),
        (whole()[: MEMBER + 300], "ends at byte 1536 without an end mark"),
        (whole()[: MEMBER + 800], "unexpected end of data"),
        (whole()[: 3 * MEMBER - 100], "unexpected end of data"),
        (whole()[: 2 * MEMBER], "ends at byte 3072 without an end mark"),
        (whole()[: 3 * MEMBER], "ends at byte 4608 without an end mark"),
        (
            whole()[:MEMBER] + b"#" * 512 + whole()[MEMBER + 512 :],
            "there is no header at byte 1536",
        ),
        (whole() + whole(), "there is more after its end at byte 4608"),
        (
            whole()[:MEMBER] + bytes(512) + whole()[MEMBER:],
            "there is more after its end at byte 1536",
        ),
    ],
)
def test_damage_stops_the_listing(tmp_path: Path, content: bytes, message: str) -> None:
    """Not one image may be missing because a header could not be read."""
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    with pytest.raises(RunError, match=message):
        tar_archives.read(str(path))


def test_a_whole_archive_has_all_of_it(tmp_path: Path) -> None:
    """What the cases of damage start from; padded as by `tar --blocking-factor`."""
    path = tmp_path / "x.tar"
    path.write_bytes(whole() + bytes(100_000))
    expected = {f"a/{n}.jpg": bytes([65 + n]) * 1000 for n in range(3)}
    assert files(tar_archives.read(str(path))) == expected


def test_an_archive_that_leads_back_does_not_go_round(tmp_path: Path) -> None:
    """A size below zero: tarfile would read the same header for ever."""
    info = tarfile.TarInfo("1.jpg")
    info.size = -512
    path = tmp_path / "x.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) * 3 + bytes(1024))
    with pytest.raises(RunError, match="no whole tar archive"):
        tar_archives.read(str(path))


def test_a_header_that_promises_a_terabyte(tmp_path: Path) -> None:
    """Of pax and of GNU's long names: tarfile reads as much as they say."""
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        info = header("1.jpg", kind)
        info.size = 1 << 40
        path = tmp_path / "x.tar"
        path.write_bytes(info.tobuf(tarfile.GNU_FORMAT))
        os.truncate(path, 1 << 41)
        with pytest.raises(RunError, match="no whole tar archive: a header of 1,099"):
            tar_archives.read(str(path))


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_a_compressed_archive_under_a_plain_name(tmp_path: Path, kind: str) -> None:
    path = pack(tmp_path / "x.tar", [("1.jpg", b"x")], mode=f"w:{kind}")
    with pytest.raises(RunError, match=r"x\.tar is compressed.*Decompress it to a"):
        tar_archives.read(str(path))


@pytest.mark.parametrize(
    ("name", "plain", "compressed"),
    [
        ("/p/cat.tar", "cat", ""),
        ("cat.v2.TAR", "cat.v2", ""),
        ("/p/cat.tar.gz", "", "cat"),
        ("cat.tgz", "", "cat"),
        ("cat.tar.zst", "", "cat"),
        ("/p.tar/cat.jpg", "", ""),
        ("tar", "", ""),
        (".tar", "", ""),
        ("cat.tar.jpg", "", ""),
    ],
)
def test_names_of_archives(name: str, plain: str, compressed: str) -> None:
    assert tar_archives.stem(name) == plain
    assert tar_archives.compressed_stem(name) == compressed


@pytest.mark.parametrize(("patience", "shown"), [(0, True), (1000, False)])
def test_a_long_listing_shows_progress(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    patience: float,
    shown: bool,
) -> None:
    monkeypatch.setattr(tar_archives, "_PATIENCE", patience)
    path = pack(tmp_path / "x.tar", [(f"{n}.jpg", bytes(10**6)) for n in range(3)])
    tar_archives.read(str(path))
    assert ("listing x.tar: 3 of 3 megabytes" in capsys.readouterr().err) == shown
