"""What libraries write to file descriptor 2 as they start, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.files import REPOSITORY

SCRIPT = """
import os, signal, sys
from pathlib import Path
from pipeline.system import console, startup_log

def write(text):
    os.write(2, f"{text}\\n".encode())

def start(lines=1):
    with startup_log.kept():
        write("WARNING: All log messages before absl::InitializeLog() is called are …")
        write("I0000 00:00:1.2 1 port.cc:153] oneDNN custom operations are on.")
        for number in range(lines):
            write(f"W0000 00:00:1.2 1 gpu_device.cc:1] line {number}")
    write("after")

def fine():
    start()

def fail():
    start(lines=30)
    raise console.RunError("no GPU")

def misuse():
    start()
    raise console.UsageError("no such flag")

def crash():
    start()
    raise KeyError("a defect")

def inside():
    with startup_log.kept():
        write("W0000 lost")
        raise console.RunError("no TensorFlow")

def interrupted():
    with startup_log.kept():
        write("W0000 lost")
        signal.raise_signal(signal.SIGINT)

def twice():
    start(lines=2)
    start(lines=2)
    raise console.RunError("no GPU")

def abort():
    with startup_log.kept():
        write("F0000 Check failed")
        os.abort()

verb, log, *flags = sys.argv[1:]
console.set_voice(quiet=False, debug="--debug" in flags)
if log != "nowhere":
    startup_log.keep_in(Path(log) if log != "unseen" else None)
sys.exit(console.exit_code(globals()[verb]))
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("startup") / "tool.py"
    path.write_text(SCRIPT)
    return path


def run(script: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(script), *map(str, words)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        timeout=120,
        check=False,
    )


def test_a_start_goes_to_the_log_and_nothing_after_it(
    script: Path, tmp_path: Path
) -> None:
    log = tmp_path / "model.log"
    log.write_text("an earlier run\n")
    result = run(script, "fine", log)
    assert (result.returncode, result.stderr) == (0, "after\n")
    first, head, *lines = log.read_text().splitlines()
    assert first == "an earlier run"
    assert head.endswith(f"start of {script.parent.name} fine {log}")
    assert len(lines) == 3
    assert lines[-1].endswith("line 0")


def test_its_last_lines_are_told_when_the_program_fails(
    script: Path, tmp_path: Path
) -> None:
    """But for notes, which a healthy start has, too."""
    log = tmp_path / "model.log"
    result = run(script, "fail", log)
    told = [f"  W0000 00:00:1.2 1 gpu_device.cc:1] line {n}" for n in range(10, 30)]
    head = f"the last lines of TensorFlow's start ({log} has all):"
    assert result.stderr.splitlines() == ["after", head, *told, "error: no GPU"]
    assert result.returncode == 1


def test_the_lines_of_several_starts(script: Path, tmp_path: Path) -> None:
    told = run(script, "twice", tmp_path / "x.log").stderr
    assert [told.count(f"line {n}\n") for n in range(3)] == [2, 2, 0]


def test_a_defect_has_them_before_its_traceback(script: Path, tmp_path: Path) -> None:
    told = run(script, "crash", tmp_path / "x.log").stderr
    assert "line 0\nTraceback" in told


def test_wrong_usage_has_none(script: Path, tmp_path: Path) -> None:
    result = run(script, "misuse", tmp_path / "x.log")
    assert (result.returncode, result.stderr) == (2, "after\nerror: no such flag\n")


def test_an_error_inside_is_told_where_everything_is(
    script: Path, tmp_path: Path
) -> None:
    result = run(script, "inside", tmp_path / "x.log")
    assert result.stderr.endswith("  W0000 lost\nerror: no TensorFlow\n")
    assert "no TensorFlow" not in (tmp_path / "x.log").read_text()


def test_a_signal_inside(script: Path, tmp_path: Path) -> None:
    result = run(script, "interrupted", tmp_path / "x.log")
    assert result.returncode == 130
    assert result.stderr.startswith("error: interrupted. ")


def test_what_crashes_the_process_is_in_the_log(script: Path, tmp_path: Path) -> None:
    assert run(script, "abort", tmp_path / "x.log").returncode < 0
    assert (tmp_path / "x.log").read_text().endswith("F0000 Check failed\n")


@pytest.mark.parametrize("log", ["unseen", "/nowhere/x.log", "/dev/full", "/proc"])
def test_where_no_log_can_be_written_the_lines_are_dropped(
    script: Path, log: str
) -> None:
    assert run(script, "fine", log).stderr == "after\n"
    failed = run(script, "fail", log)
    assert failed.stderr.startswith("after\nthe last lines of TensorFlow's start:\n")
    assert failed.stderr.count("] line ") == 20


@pytest.mark.parametrize("words", [("x.log", "--debug"), ("nowhere",)])
def test_debug_and_a_library_hide_nothing(
    script: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    result = run(
        script, "fine", tmp_path / words[0] if words[1:] else words[0], *words[1:]
    )
    assert result.stderr.count("\n") == 4
    assert not (tmp_path / "x.log").exists()


def test_a_command_that_is_not_utf8(script: Path, tmp_path: Path) -> None:
    log = tmp_path / "model.log"
    result = run(script, "fine", log, "caf\udce9")
    assert (result.returncode, result.stderr) == (0, "after\n")
    assert "caf\\udce9" in log.read_text()
