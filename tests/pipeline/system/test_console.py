"""What a program says and how it ends, in a process of its own."""

import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from pipeline.storage import flag_paths
from pipeline.system import console, errors
from tests.support.files import REPOSITORY

SCRIPT = """
import os, signal, sys
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

def talk():
    console.say("IMAGES x: 3 images\\n  ignored: 1 file")
    console.note("x.log is left out")
    console.warn("one class")
    count()
    console.say("problem  no GPU", matters=True)
    following = console.command("trainer", "train", dataset="a b", model=None, cpu=True)
    console.conclude("DATASET x is complete\\n  train 3", following=following)

def spell():
    console.say("\\udcff…")

flags = [word for word in sys.argv[2:] if word.startswith("--")]
console.set_voice(quiet="--quiet" in flags, debug="--debug" in flags)
sys.exit(console.exit_code(globals()[sys.argv[1]]))
"""
TALK = """IMAGES x: 3 images
  ignored: 1 file
note: x.log is left out
problem  no GPU
DATASET x is complete
  train 3
next: python -m trainer train --dataset='a b' --model=… --cpu=True
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = tmp_path_factory.mktemp("console") / "tool.py"
    path.write_text(SCRIPT)
    return [sys.executable, str(path)]


ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in ("MAKELEVEL", "NO_COLOR", "TERM")
} | {"PYTHONPATH": str(REPOSITORY)}


def run(
    command: list[str],
    *words: str,
    environment: Mapping[str, str] = MappingProxyType({}),
    **options: object,
):
    return subprocess.run(
        [*command, *words],
        **{"capture_output": True, **options},
        text=True,
        env=ENVIRONMENT | environment,
        check=False,
    )


def on_terminal(command: list[str], *words: str, **environment: str) -> str:
    """Returns what a program writes to a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    both = {"capture_output": False, "stdout": theirs, "stderr": theirs}
    try:
        run(command, *words, environment=environment, **both)
        return os.read(ours, 100_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)


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


def test_progress_is_a_bar_on_a_terminal_and_gone_at_the_end(
    command: list[str],
) -> None:
    text = on_terminal(command, "count")
    assert "\rshards:" in text
    assert re.search(r"\d+/30", text)
    assert "images/s" in text
    assert text.split("\r")[-2].strip() == ""


def test_what_is_said(command: list[str]) -> None:
    result = run(command, "talk")
    assert result.returncode == 0
    assert result.stdout == TALK
    warning, progress = result.stderr.splitlines()
    assert warning == "warning: one class"
    assert progress.startswith("shards: 30 of 30 images")


def test_make_is_told_the_target(command: list[str]) -> None:
    by_make = run(command, "talk", environment={"MAKELEVEL": "1"})
    assert by_make.stdout.splitlines()[-1] == (
        "next: make train DATASET='a b' MODEL=… ARGS=--cpu=True"
    )


def test_quiet_leaves_warnings_and_the_closing_line(command: list[str]) -> None:
    result = run(command, "talk", "--quiet")
    assert result.stdout == "problem  no GPU\nDATASET x is complete\n"
    assert result.stderr == "warning: one class\n"
    shown = on_terminal(command, "talk", "--quiet", NO_COLOR="1")
    lines = ["warning: one class", "problem  no GPU", "DATASET x is complete"]
    assert shown.splitlines() == lines
    assert run(command, "fail", "--quiet").stderr.startswith("error: photo")


def test_debug_has_the_traceback_of_what_is_told_in_plain_words(
    command: list[str],
) -> None:
    for verb in ("fail", "full", "interrupt"):
        plain, debug = run(command, verb), run(command, verb, "--debug")
        assert "Traceback" not in plain.stderr
        assert debug.stderr.startswith("Traceback")
        assert f"in {verb}\n" in debug.stderr
        assert debug.stderr.endswith(plain.stderr)
        assert debug.returncode == plain.returncode


def test_colour_on_a_terminal_alone(command: list[str]) -> None:
    shown = on_terminal(command, "talk")
    assert "\x1b[33mwarning:\x1b[0m one class" in shown
    assert "\x1b[36mnext:\x1b[0m python" in shown
    assert "\x1b[31merror:\x1b[0m photo" in on_terminal(command, "fail")
    for plain in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b[3" not in on_terminal(command, "talk", **plain)
    assert "\x1b" not in run(command, "talk").stdout + run(command, "talk").stderr


def test_both_streams_keep_their_order_in_one_file(
    command: list[str], tmp_path: Path
) -> None:
    with (tmp_path / "log").open("wb") as log:
        run(command, "talk", capture_output=False, stdout=log, stderr=log)
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.split()[0] for line in lines] == [
        *("IMAGES", "ignored:", "note:", "warning:", "shards:", "problem", "DATASET"),
        *("train", "next:"),
    ]


def test_a_text_that_the_locale_cannot_write(command: list[str]) -> None:
    ascii = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    result = run(command, "spell", environment=ascii)
    assert (result.returncode, result.stdout) == (0, "\\udcff\\u2026\n")


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


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (12, "0.012 KB"),
        (10_800, "10.8 KB"),
        (999_400, "999 KB"),
        (999_600, "1 MB"),
        (44_100_000, "44.1 MB"),
        (999_700_000, "1 GB"),
        (108e9, "108 GB"),
        (1.5e12, "1,500 GB"),
    ],
)
def test_bytes_in_words(count: float, words: str) -> None:
    assert console.in_bytes(count) == words
