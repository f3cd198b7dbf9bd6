"""Files are whole or not there."""

import csv
import hashlib
import io
import os
import stat
from pathlib import Path

import pytest

from pipeline.storage import atomic
from pipeline.system.errors import RunError

BODY_ERRORS = [ValueError, KeyboardInterrupt, SystemExit]


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    with atomic.commit(path) as file:
        file.write(b"one ")
        file.flush()
        (unfinished,) = names(tmp_path)
        assert unfinished.startswith(".")  # no reader's glob finds it
        file.write(b"two")
    assert path.read_bytes() == b"one two"
    assert names(tmp_path) == ["x.bin"]


@pytest.mark.parametrize("error", BODY_ERRORS)
def test_an_exception_leaves_nothing(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def write() -> None:
        with atomic.commit(tmp_path / "x.bin") as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        write()
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", BODY_ERRORS)
def test_an_exception_keeps_what_was_there(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(b"old")

    def write() -> None:
        with atomic.commit_path(path) as unfinished:
            unfinished.write_bytes(b"new")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["model.keras"]


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    with path.open() as reader:
        with atomic.commit(path) as file:
            file.write(b"new and longer")
            assert path.read_text() == "old"
        assert reader.read() == "old"  # who had it open goes on with the old one
    assert path.read_text() == "new and longer"


def test_the_content_is_on_disk_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(descriptor: int) -> None:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        size = os.fstat(descriptor).st_size
        steps.append("fsync folder" if folder else f"fsync {size} bytes")
        fsync(descriptor)

    def note_replace(path: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    atomic.write_text(tmp_path / "x.txt", "12345")
    assert steps == ["fsync 5 bytes", "rename", "fsync folder"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_the_permissions_are_those_of_an_ordinary_file(
    tmp_path: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        atomic.write_text(tmp_path / "ours", "x")
        (tmp_path / "ordinary").write_text("x")
    finally:
        os.umask(before)
    ours, ordinary = (
        stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "ordinary")
    )
    assert ours == ordinary == mode


def test_the_unfinished_file_has_the_extension(tmp_path: Path) -> None:
    """Keras chooses the format by it."""
    with atomic.commit_path(tmp_path / "model.keras") as unfinished:
        assert unfinished.suffix == ".keras"
        assert unfinished.parent == tmp_path
        unfinished.write_bytes(b"x")
    assert names(tmp_path) == ["model.keras"]


def test_a_scratch_folder_keeps_the_output_folder_clean(tmp_path: Path) -> None:
    scratch, output = tmp_path / "scratch", tmp_path / "output"
    scratch.mkdir()
    output.mkdir()
    with atomic.commit(output / "x", scratch=scratch) as file:
        file.write(b"x")
        assert names(output) == []
        assert len(names(scratch)) == 1
    assert names(output) == ["x"]
    assert names(scratch) == []


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with atomic.commit(path) as first, atomic.commit(path) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_bytes() == b"first"  # it was the last to finish
    assert names(tmp_path) == ["x"]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        atomic.write_text(tmp_path / "nowhere" / "x", "x")


def test_scratch_files_are_told_from_others_and_name_their_run(tmp_path: Path) -> None:
    for name in ("x.bin", ".hidden", "scratch-1", ".scratch"):
        (tmp_path / name).touch()
    with atomic.new_run():
        left = atomic.commit_path(tmp_path / "x-y.bin")
        path = left.__enter__()
        path.touch()  # a process that is killed never exits
        assert atomic.scratch(tmp_path) == [(atomic.run_id(), path)]
    ((run, _),) = atomic.scratch(tmp_path)
    assert run != atomic.run_id()


def test_equal_values_are_equal_json(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    atomic.write_json(one, {"b": [1, 2.5, None], "a": {"y": "ü", "x": True}})
    atomic.write_json(other, {"a": {"x": True, "y": "ü"}, "b": (1, 2.5, None)})
    assert one.read_bytes() == other.read_bytes()
    assert "ü" in one.read_text(encoding="utf-8")
    assert one.read_bytes().endswith(b"}\n")
    assert atomic.read_json(one) == {"b": [1, 2.5, None], "a": {"x": True, "y": "ü"}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.json is damaged: Expecting value"),
        (b'{"a": 1', "x.json is damaged: .*Restore it, or make its folder anew"),
        (b'{"a": "\xff"}', "x.json is damaged: .*0xff"),
        (b"[1, 2]", "x.json holds a JSON list, not an object.*name another folder"),
    ],
)
def test_read_json_names_a_damaged_file(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(RunError, match=message):
        atomic.read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (["a", "b c"], "a,b c\n"),
        (["a,b", 'say "x"', ""], '"a,b","say ""x""",\n'),
        (["a\nb", "c\rd", "e\r\n"], '"a\nb","c\rd","e\r\n"\n'),
    ],
)
def test_csv_line(values: list[str], line: str) -> None:
    assert atomic.csv_line(values) == line
    assert list(csv.reader(io.StringIO(line, newline=""))) == [values]


def test_checksums(tmp_path: Path) -> None:
    content = os.urandom(100_000)
    (tmp_path / "x").write_bytes(content)
    assert atomic.sha256(tmp_path / "x") == hashlib.sha256(content).hexdigest()
    # FIPS 180-2, example B.1
    assert atomic.sha256_text("abc").startswith("ba7816bf8f01cfea414140de5dae2223")
    assert atomic.sha256_text("ü") == hashlib.sha256(b"\xc3\xbc").hexdigest()


def test_names_that_are_not_utf8_survive_json(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "a.json", {"folder": "caf\udce9", "other": "é"})
    found = atomic.read_json(tmp_path / "a.json")
    assert found == {"folder": "caf\udce9", "other": "é"}


def test_beside_a_folder_that_is_named_by_dots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dataset" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "dataset")
    for name in (".", "deep/..", tmp_path / "dataset"):
        assert atomic.beside(Path(name), ".log") == tmp_path / "dataset.log"
