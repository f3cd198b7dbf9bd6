"""What a program says and how it ends, in a process of its own."""

import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from pipeline.storage import flag_paths
from pipeline.system import console, errors
from tests.support.files import REPOSITORY

SCRIPT = """
import signal, sys
from pipeline.system import console

def fail():
    raise console.RunError("photo x\\udcff.jpg is cut. Mend it.")

def interrupt():
    signal.raise_signal(signal.SIGINT)

def crash():
    raise KeyError("a defect")

def full():
    raise OSError(28, "No space left on device", "/data/x")

def read():
    raise OSError(5, "Input/output error", "/data/x")

def rename():
    raise OSError(36, "File name too long", "/data/x", None, "/data/y")

def other():
    raise OSError(131, "State not recoverable")

def hungry():
    raise MemoryError

def unknown():
    raise OSError("nothing that the system said")

def count():
    with console.progress(30, "shards", done=10) as bar:
        for _ in range(20):
            bar.set_postfix_str("2 rejected", refresh=False)
            bar.update()

def nothing():
    console.progress(0, "shards").close()

sys.exit(console.exit_code(globals()[sys.argv[1]]))
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = tmp_path_factory.mktemp("console") / "tool.py"
    path.write_text(SCRIPT)
    return [sys.executable, str(path)]


def run(command: list[str], *words: str, **options: object):
    return subprocess.run(
        [*command, *words],
        **{"capture_output": True, **options},
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        check=False,
    )


def test_a_failed_run(command: list[str]) -> None:
    result = run(command, "fail")
    assert result.stderr == "error: photo x\\udcff.jpg is cut. Mend it.\n"
    assert (result.returncode, result.stdout) == (1, "")


def test_interrupted(command: list[str]) -> None:
    result = run(command, "interrupt")
    assert re.fullmatch("error: interrupted. What .* is kept: .*\n", result.stderr)
    assert result.returncode == 130


def test_a_defect_shows_where_it_is(command: list[str]) -> None:
    result = run(command, "crash")
    assert "Traceback" in result.stderr
    assert "KeyError: 'a defect'" in result.stderr
    assert result.returncode == 1


@pytest.mark.parametrize(
    ("verb", "begin", "advice"),
    [
        ("full", "No space left on device: /data/x. What", "make room"),
        ("read", "Input/output error: /data/x. What", "the disk or the file server"),
        ("rename", "File name too long: /data/y. What", "correct the path"),
        ("other", "State not recoverable. What", "mend the cause"),
        ("hungry", "out of memory. What", "fewer --workers"),
    ],
)
def test_an_error_of_the_system_is_no_defect(
    command: list[str], verb: str, begin: str, advice: str
) -> None:
    result = run(command, verb)
    assert result.stderr.startswith(f"error: {begin}")
    assert advice in result.stderr
    assert "run the same command again" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.returncode == 1


def test_what_no_system_said_is_a_defect(command: list[str]) -> None:
    assert "Traceback" in run(command, "unknown").stderr


def test_progress_is_whole_lines_where_there_is_no_terminal(
    command: list[str], tmp_path: Path
) -> None:
    """Into a file, as no pipe can: read it without translating line ends."""
    with (tmp_path / "log").open("wb") as log:
        run(command, "count", capture_output=False, stdout=log, stderr=log)
    text = (tmp_path / "log").read_bytes().decode()
    assert "\r" not in text
    assert text.endswith("\n")
    *_, last = text.splitlines()
    assert "?" not in text
    line = r"shards: 30 of 30 images, +\S+ images/s, 00:00 to go, 2 rejected"
    assert re.fullmatch(line, last)


def test_progress_of_nothing(command: list[str]) -> None:
    result = run(command, "nothing")
    assert result.returncode == 0
    assert result.stderr == ""


def test_progress_is_a_bar_on_a_terminal(command: list[str]) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    try:
        run(command, "count", capture_output=False, stderr=theirs)
        text = os.read(ours, 100_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "\rshards:" in text
    assert "30/30" in text
    assert "images/s" in text


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a"], ["a"]),
        (["a,b"], ["a", "b"]),
        (["a", "b,c"], ["a", "b", "c"]),
        (["x,y"], ["x,y"]),  # it is there
        (["a", "x,y"], ["a", "x,y"]),
        (["~"], [str(Path.home())]),
        (["a,~/b"], ["a", str(Path.home() / "b")]),
    ],
)
def test_paths_of_a_flag(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    texts: list[str],
    expected: list[str],
) -> None:
    (tmp_path / "x,y").mkdir()
    monkeypatch.chdir(tmp_path)
    assert [str(path) for path in flag_paths.paths(texts, "images")] == expected


@pytest.mark.parametrize("texts", [[""], ["a,"], ["a,,b"], ["a", ""]])
def test_an_empty_path_of_a_flag(texts: list[str]) -> None:
    with pytest.raises(errors.UsageError, match=r"--images=.* has an empty path"):
        flag_paths.paths(texts, "images")


def test_a_line_of_progress_may_have_a_question_mark(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As the name of an archive may."""
    with console.progress(3, "listing what?.tar") as bar:
        bar.update(3)
    assert "listing what?.tar: 3 of 3 images" in capsys.readouterr().err
