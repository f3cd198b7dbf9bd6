"""Folders that fill part by part: new, resumed, complete, refused, killed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.storage.resumable_folder import WORK, ResumableFolder, difference
from pipeline.system.errors import RunError
from tests.support.files import REPOSITORY

KEY = {"version": 1, "image": {"height": 150, "width": 200}, "classes": ["a", "ü"]}
MANIFEST = {**KEY, "rows": 2}
PARTS = {"part-0.bin": b"zero", "part-1.bin": b"one"}


def folder_at(path: Path) -> ResumableFolder:
    return ResumableFolder(path, manifest="m.json")


def add(output: ResumableFolder, part: str) -> None:
    with output.commit(part) as file:
        file.write(PARTS[part])
    output.done(part, {"part": part})


def half(path: Path) -> ResumableFolder:
    """A folder whose run was stopped after the first of two parts."""
    output = folder_at(path)
    output.start(KEY)
    add(output, "part-0.bin")
    return output


def complete(path: Path) -> ResumableFolder:
    output = half(path)
    add(output, "part-1.bin")
    output.finish(MANIFEST)
    return output


def names(path: Path) -> list[str]:
    return sorted(os.listdir(path))


# ------------------------------------------------------------------------- start


@pytest.mark.parametrize("exists", [True, False])
def test_a_new_folder_is_started(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "deep" / "output"
    if exists:
        path.mkdir(parents=True)
    assert folder_at(path).start(KEY) is False
    assert names(path) == [WORK]


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    half(tmp_path)
    output = folder_at(tmp_path)
    assert output.start(KEY) is False
    assert output.note("part-0.bin") == {"part": "part-0.bin"}
    assert output.note("part-1.bin") is None


def test_only_who_is_alone_removes_what_is_unfinished(tmp_path: Path) -> None:
    """A worker opens the folder while another one writes."""
    output = half(tmp_path)
    with output.commit("part-1.bin") as file:
        file.write(PARTS["part-1.bin"])
        assert not folder_at(tmp_path).start(KEY, alone=False)
    assert (tmp_path / "part-1.bin").read_bytes() == PARTS["part-1.bin"]
    with pytest.raises(FileNotFoundError), output.commit("part-2.bin"):
        assert not folder_at(tmp_path).start(KEY)


def test_a_complete_run_is_left_alone(tmp_path: Path) -> None:
    complete(tmp_path)
    times = {name: (tmp_path / name).stat().st_mtime_ns for name in names(tmp_path)}
    assert folder_at(tmp_path).start(KEY) is True
    assert times == {
        name: (tmp_path / name).stat().st_mtime_ns for name in names(tmp_path)
    }


def test_finish_leaves_the_parts_and_the_manifest(tmp_path: Path) -> None:
    complete(tmp_path)
    assert names(tmp_path) == ["m.json", *PARTS]
    assert json.loads((tmp_path / "m.json").read_text(encoding="utf-8")) == MANIFEST
    assert {name: (tmp_path / name).read_bytes() for name in PARTS} == PARTS


@pytest.mark.parametrize("make", [half, complete])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image": {"height": 120, "width": 200}},
            "image.height is 150 there and 120 here",
        ),
        ({"version": 2}, "version is 1 there and 2 here"),
        ({"seed": 3}, "seed is None there and 3 here"),
    ],
)
def test_another_run_is_refused_with_both_values(
    tmp_path: Path, make: Any, change: dict[str, Any], message: str
) -> None:
    make(tmp_path)
    before = names(tmp_path)
    refusal = rf"{tmp_path.name} belongs to another run: {message}\. Use the values"
    with pytest.raises(RunError, match=refusal):
        folder_at(tmp_path).start(KEY | change)
    assert names(tmp_path) == before


@pytest.mark.parametrize("start", ["start", "clear"])
def test_a_foreign_folder_is_refused(tmp_path: Path, start: str) -> None:
    for name in ("b.txt", "a.bin", "sub/c.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    output = folder_at(tmp_path)
    if start == "clear":  # --overwrite does not help
        output.clear("*.bin")
    with pytest.raises(RunError, match=r"not empty \('a.bin', 3 in all\).*no m.json"):
        output.start(KEY)
    assert names(tmp_path) == ["a.bin", "b.txt", "sub"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "output"
    path.write_text("precious")
    output = folder_at(path)
    output.clear("*")
    with pytest.raises(RunError, match="output is a file; name a folder"):
        output.start(KEY)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("content", ["[1]", "{"])
def test_a_manifest_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(RunError, match=r"m.json (holds a JSON list|is damaged)"):
        folder_at(tmp_path).start(KEY)


# ------------------------------------------------------------------------- parts


def test_a_part_has_its_name_when_it_is_whole(tmp_path: Path) -> None:
    output = folder_at(tmp_path)
    output.start(KEY)
    with output.commit("part-0.bin") as file:
        file.write(b"half")
        file.flush()
        assert names(tmp_path) == [WORK]
    assert names(tmp_path) == [WORK, "part-0.bin"]


def test_a_part_without_its_sidecar_is_not_done(tmp_path: Path) -> None:
    output = folder_at(tmp_path)
    output.start(KEY)
    with output.commit("part-0.bin") as file:
        file.write(b"zero")
    assert output.note("part-0.bin") is None


@pytest.mark.parametrize("content", [None, b"", b"zer", b"zero and more"])
def test_a_part_that_is_missing_or_cut_short_is_not_done(
    tmp_path: Path, content: bytes | None
) -> None:
    output = half(tmp_path)
    assert output.note("part-0.bin") is not None
    if content is None:
        (tmp_path / "part-0.bin").unlink()
    else:
        (tmp_path / "part-0.bin").write_bytes(content)
    assert output.note("part-0.bin") is None


def test_starting_again_removes_what_was_unfinished(tmp_path: Path) -> None:
    output = half(tmp_path)
    unfinished = output.commit("part-1.bin")
    unfinished.__enter__().write(b"o")  # a process that is killed never exits
    before = len(names(tmp_path / WORK))
    folder_at(tmp_path).start(KEY)
    assert len(names(tmp_path / WORK)) == before - 1
    assert output.note("part-0.bin") is not None


# ------------------------------------------------------------------------- clear


@pytest.mark.parametrize("make", [half, complete])
def test_clear_makes_room_for_another_run(tmp_path: Path, make: Any) -> None:
    output = make(tmp_path)
    output.clear("*.bin")
    assert names(tmp_path) == []
    assert output.start({"version": 2}) is False
    assert output.note("part-0.bin") is None


@pytest.mark.parametrize("make", [half, complete])
def test_clear_removes_only_its_own(tmp_path: Path, make: Any) -> None:
    output = make(tmp_path)
    (tmp_path / "notes.txt").write_text("precious")
    output.clear("*.bin")
    assert names(tmp_path) == ["notes.txt"]


def test_clear_of_nothing(tmp_path: Path) -> None:
    folder_at(tmp_path / "none").clear("*")
    assert names(tmp_path) == []


# ------------------------------------------------------------------ killed anywhere

# In a process of its own, where it may fork: argv is a folder and what to kill. The
# action runs again and again, and is killed at its 1st, 2nd, … step on the disk,
# until it comes to its end. Prints how each folder looks after the next run.
KILLED_ANYWHERE = """
import itertools, json, os, signal, sys
from pathlib import Path
from pipeline.storage.resumable_folder import ResumableFolder
from tests.pipeline.storage.test_resumable_folder import (
    KEY, MANIFEST, PARTS, add, complete, folder_at, half)

STEPS = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.scandir"}
root, action = Path(sys.argv[1]), sys.argv[2]

def run(folder):
    output = folder_at(folder)
    if output.start(KEY):
        return
    for part in PARTS:
        if output.note(part) is None:
            add(output, part)
    output.finish(MANIFEST)

def clear(folder):
    folder_at(folder).clear("*.bin")

def killed(action, folder, step):
    if pid := os.fork():
        return os.waitpid(pid, 0)[1] != 0
    steps = itertools.count()
    def count(event, _):
        if event in STEPS and next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    action(folder)
    os._exit(0)

def seen(folder):
    return {p.name: p.read_bytes().decode() for p in folder.iterdir() if p.is_file()}

for step in itertools.count():
    folder = root / str(step)
    if action != "run":
        {"clear half": half, "clear complete": complete}[action](folder)
    alive = not killed(run if action == "run" else clear, folder, step)
    there = seen(folder) if folder.is_dir() else {}
    if action != "run":
        clear(folder)
    run(folder)
    print(json.dumps([there, seen(folder), sorted(os.listdir(folder))]))
    if alive:
        break
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The content of a folder whose run was never stopped."""
    path = tmp_path_factory.mktemp("whole")
    complete(path)
    return {name: (path / name).read_text(encoding="utf-8") for name in names(path)}


@pytest.mark.parametrize("action", ["run", "clear half", "clear complete"])
def test_killed_anywhere_and_run_again(
    tmp_path: Path, whole: dict[str, str], action: str
) -> None:
    result = subprocess.run(
        [sys.executable, "-c", KILLED_ANYWHERE, tmp_path, action],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    kills = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(kills) > 15
    assert len({str(sorted(there)) for there, _, _ in kills}) > 1
    for there, after, listing in kills:
        assert there.items() <= whole.items()  # what was visible, was whole
        if "m.json" in there:
            assert there == whole  # it comes last, and goes first
        assert after == whole
        assert listing == sorted(whole)


def test_killed_before_the_work_folder_was_removed(tmp_path: Path) -> None:
    half(tmp_path)
    shutil.copytree(tmp_path / WORK, tmp_path / "copy")
    complete(tmp_path)
    (tmp_path / "copy").rename(tmp_path / WORK)
    assert folder_at(tmp_path).start(KEY) is True
    assert names(tmp_path) == ["m.json", *PARTS]


# -------------------------------------------------------------------- difference


@pytest.mark.parametrize(
    ("found", "wanted", "message"),
    [
        ({}, {}, None),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]}, None),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, None),
        ({"b": 1, "a": 2}, {"b": 3, "a": 4}, "a is 2 there and 4 here"),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": "1"}}}, "a.b.c is 1 there"),
        ({"a": 1}, {}, "a is 1 there and None here"),
        ({"a": {"b": 1}}, {"a": 5}, "a is {'b': 1} there and 5 here"),
        ({"a": [1, 2]}, {"a": [2, 1]}, r"a is [1, 2] there and [2, 1] here"),
    ],
)
def test_difference(found: Any, wanted: Any, message: str | None) -> None:
    words = difference(found, wanted)
    if message is None:
        assert words is None
    else:
        assert words is not None
        assert words.startswith(message)
