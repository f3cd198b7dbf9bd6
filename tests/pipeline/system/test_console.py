"""What a program says and how it ends, in a process of its own: flags are global."""

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
from absl import flags
from pipeline.system import console

FLAGS = flags.FLAGS
flags.DEFINE_string("images", None, "Root of the photos.")
flags.DEFINE_string("dataset", None, "Folder to make.")
flags.DEFINE_integer("height", 150, "Rows.", lower_bound=1)

def work(words):
    console.required(images=FLAGS.images)
    print("worked:", FLAGS.images, FLAGS.height, words)

def fail(words):
    raise console.RunError("photo x\\udcff.jpg is cut. Mend it.")

def misuse(words):
    console.required(images=FLAGS.images, dataset=FLAGS.dataset, height=FLAGS.height)

def alone(words):
    console.nothing_passed_on(words)

def interrupt(words):
    signal.raise_signal(signal.SIGINT)

def crash(words):
    raise KeyError("a defect")

def full(words):
    raise OSError(28, "No space left on device", "/data/x")

def read(words):
    raise OSError(5, "Input/output error", "/data/x")

def rename(words):
    raise OSError(36, "File name too long", "/data/x", None, "/data/y")

def other(words):
    raise OSError(131, "State not recoverable")

def hungry(words):
    raise MemoryError

def unknown(words):
    raise OSError("nothing that the system said")

def count(words):
    with console.progress(30, "shards", done=10) as bar:
        for _ in range(20):
            bar.set_postfix_str("2 rejected", refresh=False)
            bar.update()

def nothing(words):
    console.progress(0, "shards").close()

VERBS = {v.__name__: v for v in
         (work, fail, misuse, alone, interrupt, crash, full, read, rename, other,
          hungry, unknown, count, nothing)}
sys.exit(console.main(VERBS, default="work", argv=sys.argv, about="Makes things."))
"""
USAGE = "--help lists the flags"


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


@pytest.mark.parametrize(
    ("words", "output"),
    [
        (["--images=a b"], "worked: a b 150 []"),
        (["work", "--images=x", "--height=7"], "worked: x 7 []"),
        (["--images", "x", "work"], "worked: x 150 []"),
        (
            ["--images=x", "--", "--workers=2", "--", "y"],
            "worked: x 150 ['--workers=2', '--', 'y']",
        ),
        (["work", "--images=x", "--"], "worked: x 150 []"),
        (["alone"], ""),
    ],
)
def test_done(command: list[str], words: list[str], output: str) -> None:
    result = run(command, *words)
    assert result.stderr == ""
    assert result.stdout.strip() == output
    assert result.returncode == console.DONE == 0


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["work", "--no", "--help"]])
def test_help(command: list[str], words: list[str]) -> None:
    result = run(command, *words)
    assert result.stdout.startswith("Makes things.\n")
    for text in ("--height", "Rows.", "(default: '150')", "Root of the photos."):
        assert text in result.stdout
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--imagse=x"], "Unknown command line flag 'imagse'. Did you mean: images"),
        (["--height=0"], "flag --height=0: 0 is not a positive"),
        (["--height=tall"], "flag --height=tall: invalid literal"),
        (["--images"], "[Mm]issing value for flag"),
        (["wrok"], "no verb 'wrok': there are work, fail, .*did you mean 'work'"),
        (["xyzzy"], r"no verb 'xyzzy': there are work, [a-z, ]+ \(--help"),
        (["work", "a", "b c"], "stray words after 'work': a b c"),
        (["misuse"], "missing --images and --dataset"),
        (["misuse", "--images=x", "--dataset="], "missing --dataset"),
        ([], "missing --images"),
        (["alone", "--", "--x"], "nothing takes what follows `--`: --x"),
    ],
)
def test_wrong_usage(command: list[str], words: list[str], message: str) -> None:
    result = run(command, *words)
    assert re.search(rf"^error: .*{message}", result.stderr, re.DOTALL), result.stderr
    assert USAGE in result.stderr
    assert (result.returncode, result.stdout) == (console.MISUSED, "")
    assert console.MISUSED == 2


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
