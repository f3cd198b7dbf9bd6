"""What every verb says: to a pipe, with --quiet and --debug, and on a terminal."""

import contextlib
import os
import pty
import re
import shutil
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.support.files import REPOSITORY
from tests.support.photos import HEIGHT, WIDTH
from tests.support.processes import Program

SIZE = (f"--height={HEIGHT}", f"--width={WIDTH}")
# By verb: the flags beside those of folders, and how the closing line begins.
VERBS = {
    ("pipeline", "plan"): ("images dataset2", SIZE, "make shards would take about"),
    ("pipeline", "shards"): ("images dataset2", SIZE, "DATASET {dataset2} is complete"),
    ("pipeline", "verify"): ("dataset", (), "DATASET {dataset} is whole"),
    ("pipeline", "inspect"): ("dataset inspect", (), "DATASET {dataset}: 42 images li"),
    ("pipeline", "retry"): ("dataset2 images", (), "0 of 2 images were added to DATAS"),
    ("trainer", "train"): (
        "dataset model2",
        ("--recipe=demo", "--weights=none", "--epochs=1", "--batch_size=8"),
        "MODEL {model2} is complete: ",
    ),
    ("trainer", "curves"): ("model2", (), "{model2}/curves.png: "),
    ("trainer", "report"): ("model2", (), "{model2}/report.html: "),
    ("trainer", "export"): ("model", (), "EXPORT {model}/export is complete: "),
    ("predictor", "predict"): (
        "model dataset predictions",
        (),
        "PREDICTIONS {predictions} is complete: 7 images",
    ),
    ("predictor", "verify"): ("predictions", (), "PREDICTIONS {predictions} are whole"),
    ("predictor", "evaluate"): (
        "model dataset evaluation",
        ("--split=validation",),
        "EVALUATION {evaluation} is complete: 9 labelled",
    ),
}
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in ("NO_COLOR", "TERM", "MAKELEVEL", "TF_CPP_MIN_LOG_LEVEL")
}


@pytest.fixture(scope="module")
def folders(
    images: Path, made_dataset: Path, model: Path, tmp_path_factory
) -> dict[str, Path]:
    """What the verbs read and make, by flag; a 2 stands for one that is made here."""
    root = tmp_path_factory.mktemp("voice")
    made = ("dataset2", "model2", "predictions", "evaluation")
    return {
        "images": images,
        "dataset": made_dataset,
        "model": Path(shutil.copytree(model, root / "model")),
        **{name: root / name for name in made},
        "inspect": root / "inspect.html",
    }


def words_of(verb: tuple[str, str], folders: dict[str, Path]) -> list[str]:
    named, more, _ = VERBS[verb]
    flags = [f"--{x.rstrip('2')}={folders[x]}" for x in named.split()]
    if verb == ("pipeline", "shards"):
        more = (*more, "--max_reject_fraction=0.1", "--shards=2")
    return [*verb, *flags, *more]


def on_terminal(*words: str) -> tuple[int, str]:
    """Runs a program on a terminal; returns its exit code and all that it wrote."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 200))
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        stdout=theirs,
        stderr=theirs,
        cwd=REPOSITORY,
        env=ENVIRONMENT,
    )
    os.close(theirs)
    text = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while part := os.read(ours, 1 << 16):
            text += part
    os.close(ours)
    return process.wait(timeout=300), text.decode()


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_quiet(
    verb: tuple[str, str], folders: dict[str, Path], program: Program
) -> None:
    """The closing line, warnings, and not a line of TensorFlow's start."""
    result = program(*words_of(verb, folders), "--quiet", env=ENVIRONMENT)
    assert result.returncode == 0, result.stderr
    (line,) = result.stdout.splitlines()
    assert line.startswith(VERBS[verb][2].format(**folders))
    likely = "warning: make shards would likely fail at its end: "
    assert result.stderr.startswith(likely if verb[1] == "plan" else "")
    assert result.stderr.count("\n") == (verb[1] == "plan")


def test_a_training_run_on_a_terminal(folders: dict[str, Path], tmp_path: Path) -> None:
    """Its bars are gone at the end, and its lines are whole, in order."""
    made = {**folders, "model2": tmp_path / "model"}
    code, text = on_terminal(*words_of(("trainer", "train"), made))
    assert code == 0
    assert "oneDNN" not in text
    assert "cuInit" not in text
    assert re.search(r"\repoch 1/1: +\d+%\|", text)
    lines = [
        shown.strip()
        for line in text.replace("\x1b[A", "").split("\n")
        if (shown := re.split(r"\r(?!$)", line.rstrip("\r"))[-1]).strip()
    ]
    assert lines[0].startswith(f"DATASET {made['dataset']}: 24 images in train, 9 ima")
    assert lines[1] == "recipe demo: 1 epoch of batches of 8"
    assert lines[2].startswith("epoch 1 trains block5 and the head")
    epoch = next(n for n, line in enumerate(lines) if line.startswith("epoch 1: loss"))
    assert lines[epoch - 1].endswith("the first one tells how long they take")
    assert lines[epoch + 1].startswith(f"MODEL {made['model2']} is complete: lowest")
    assert re.fullmatch(
        r"\x1b\[36mnext:\x1b\[0m python -m predictor evaluate --model=\S+ "
        r"--dataset=\S+ --split=validation",
        lines[-1],
    )
    assert (
        "start of trainer train --dataset" in Path(f"{made['model2']}.log").read_text()
    )


def test_every_next_command_is_one_that_the_program_takes(
    folders: dict[str, Path], program: Program, tmp_path: Path
) -> None:
    """It is typed again, with what the reader has to choose filled in."""
    made = {**folders, "dataset2": tmp_path / "dataset"}
    said = program(*words_of(("pipeline", "shards"), made), env=ENVIRONMENT).stdout
    following = re.search(r"^next: python -m (.+)$", said, re.MULTILINE)
    assert following
    words = following[1].replace("…", str(tmp_path / "model")).split()
    result = program(*words, "--weights=none", "--batch_size=4096")
    assert result.returncode == 1
    assert "has 24 examples, fewer than a batch of 4096" in result.stderr


def test_a_failure_shows_what_tensorflow_said_at_its_start(
    folders: dict[str, Path], program: Program, tmp_path: Path
) -> None:
    """Here it finds no GPU, which is told nowhere else."""
    words = ("trainer", "train", f"--dataset={folders['dataset']}")
    given = (f"--model={tmp_path / 'model'}", "--recipe=demo", "--batch_size=8")
    result = program(*words, *given, "--weights=/nowhere.h5", env=ENVIRONMENT)
    assert result.returncode == 1
    *_, last = result.stderr.splitlines()
    assert last.startswith("error: --weights=/nowhere.h5 is no file")
    assert "oneDNN" not in result.stderr
    shown = program(*words, *given, "--weights=/nowhere.h5", "--debug", env=ENVIRONMENT)
    assert "oneDNN" in shown.stderr
    assert "Traceback" in shown.stderr
    assert shown.stderr.splitlines()[-1] == last


def test_debug_and_a_wrong_flag(program: Program) -> None:
    result = program("pipeline", "verify", "--debug", "--dataset=")
    assert result.returncode == 2
    assert result.stderr.startswith("Traceback")
    assert "error: " in result.stderr.splitlines()[-1]
