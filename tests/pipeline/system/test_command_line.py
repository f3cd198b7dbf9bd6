"""Verbs and their flags: parsed in this process, printed to a pipe in another."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.storage.flag_paths import local_path_option, path_option, paths_option
from pipeline.system import command_line
from pipeline.system.command_line import Verb, group, option, passed_on
from tests.support.files import REPOSITORY

Run = Callable[..., tuple[int, str, str]]


@dataclass(frozen=True, kw_only=True)
class Size:
    """A group."""

    rows: int = option("Sets the rows.", lower_bound=1)
    columns: int = option("Sets the columns.", 8, lower_bound=1)

    def __post_init__(self) -> None:
        if self.rows > 100 * self.columns:
            raise ValueError(f"{self.rows} rows of {self.columns} columns are too many")


@dataclass(frozen=True, kw_only=True)
class Speed:
    """A group of which a number is made."""

    metres: int = option("Sets the metres.", 40)
    seconds: int | None = option("Sets the seconds; by default 2.", None)

    def value(self) -> float:
        """Metres per second."""
        return self.metres / (self.seconds or 2)


@dataclass(frozen=True, kw_only=True)
class MakeOptions:
    """A verb's."""

    images: Sequence[Path] = paths_option("Names the photos.")
    dataset: Path = path_option("Names the folder to make.")
    size: Size = group(Size, rows=6)
    speed: float = group(Speed, convert=Speed.value)
    share: float = option("Sets a share.", 0.5, lower_bound=0, upper_bound=1)
    mode: str = option("Chooses a mode.", "fast", choices=("fast", "slow"))
    limit: int | None = option("Limits it; by default nothing does.", None)
    overwrite: bool = option("Removes what is there.", False)
    place: Path = local_path_option("Names a folder.", Path("place"), name="at")
    spare: Path | None = local_path_option("Names another; by default none.", None)
    beam_arguments: Sequence[str] = passed_on()


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Another verb's."""

    dataset: Path | None = path_option("Names a folder; by default none.", None)
    deep: bool | None = option("Looks at all; by default at some.", None)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line of two verbs, which note the options that they get."""

    def run(*words: str) -> tuple[int, str, str]:
        def make(options: MakeOptions) -> None:
            """Makes a dataset.

            It takes a while.
            """
            run.made = options

        def check(options: CheckOptions) -> None:
            """Checks a dataset."""
            run.checked = options

        verbs = {"make": Verb(MakeOptions, make), "check": Verb(CheckOptions, check)}
        code = command_line.main(
            "tool",
            verbs,
            argv=["tool", *words],
            about="Makes things.",
            moved={"bench": "python -m benchmarks"},
        )
        return code, *capsys.readouterr()

    return run


GIVEN = ("--images=a", "--dataset=d")


def test_defaults(run: Run) -> None:
    assert run(*GIVEN) == (0, "", "")
    assert run.made == MakeOptions(images=[Path("a")], dataset=Path("d"))
    assert run.made.size == Size(rows=6, columns=8)
    assert run.made.speed == 20
    assert run.made.place == Path("place")


def test_every_kind_of_flag(run: Run) -> None:
    words = (
        "--images a --images=b,c --rows=3 --columns 4 --seconds=8 --share=1 --mode=slow"
    )
    words += " --limit=-2 --overwrite --at=x --spare y --dataset d"
    assert run("make", *words.split()) == (0, "", "")
    assert run.made == MakeOptions(
        images=[Path("a"), Path("b"), Path("c")],
        dataset=Path("d"),
        size=Size(rows=3, columns=4),
        speed=5.0,
        share=1.0,
        mode="slow",
        limit=-2,
        overwrite=True,
        place=Path("x"),
        spare=Path("y"),
    )


@pytest.mark.parametrize(
    "words",
    [
        ("check", "--dataset=d", "--nodeep"),
        ("--dataset=d", "check", "--nodeep"),
        ("--dataset", "d", "--nodeep", "check"),
        ("--nodeep", "check", "--dataset", "d"),
        ("--dataset", "make", "check", "--nodeep", "--dataset=d"),
    ],
)
def test_flags_stand_before_and_after_the_verb(run: Run, words: Sequence[str]) -> None:
    assert run(*words) == (0, "", "")
    assert run.checked == CheckOptions(dataset=Path("d"), deep=False)


def test_an_empty_text_is_no_flag(run: Run) -> None:
    assert run(*GIVEN, "--spare=") == (0, "", "")
    assert run.made.spare is None


def test_words_of_beam(run: Run) -> None:
    assert run(*GIVEN, "--", "--images=b", "--", "check") == (0, "", "")
    assert run.made.images == [Path("a")]
    assert run.made.beam_arguments == ("--images=b", "--", "check")


LISTS_VERBS = r" \(`python -m tool --help` lists the verbs\)\n"
LISTS_MAKE = r" \(`python -m tool make --help` lists its flags\)\n"
LISTS_CHECK = r" \(`python -m tool check --help` lists its flags\)\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        # A flag of another verb, wherever it stands, and of none.
        (["check", "--rows=3"], f"check has no flag --rows; make has it{LISTS_CHECK}"),
        (
            ["--rows", "3", "check"],
            f"check has no flag --rows; make has it{LISTS_CHECK}",
        ),
        (["--overwrite", "check"], "check has no flag --overwrite; make has it"),
        ([*GIVEN, "--deep"], "make has no flag --deep; check has it"),
        (
            ["--rwos=3"],
            f"no verb has a flag --rwos; did you mean --rows[?]{LISTS_VERBS}",
        ),
        (
            ["check", "--datset=d"],
            "no verb has a flag --datset; did you mean --dataset",
        ),
        (["--norows"], "no verb has a flag --norows; did you mean --rows"),
        (["--xyzzy"], f"no verb has a flag --xyzzy{LISTS_VERBS}"),
        # Values.
        ([*GIVEN, "--rows=0"], f"flag --rows=0: 0 is not a positive.*{LISTS_MAKE}"),
        ([*GIVEN, "--rows=tall"], "flag --rows=tall: invalid literal"),
        ([*GIVEN, "--share=2"], "flag --share=2: 2.0 is not a number in the range"),
        ([*GIVEN, "--mode=odd"], "flag --mode=odd: value should be one of <fast|slow>"),
        ([*GIVEN, "--overwrite=maybe"], "flag --overwrite=maybe: .*Non-boolean"),
        ([*GIVEN, "--rows=900"], f"900 rows of 8 columns are too many{LISTS_MAKE}"),
        (["--images"], "[Mm]issing value for flag"),
        ([*GIVEN, "--images="], "--images=a, has an empty path"),
        ([*GIVEN, "--at="], "--at is empty; leave it out for its default"),
        ([*GIVEN, "--at=s3://b/c"], "--at=s3://b/c must be on this machine"),
        # What is missing.
        ([], f"missing --images and --dataset{LISTS_MAKE}"),
        (["--images=a", "--dataset="], f"missing --dataset{LISTS_MAKE}"),
        # Words.
        (["chekc"], f"no verb 'chekc': there are make, check; did you .*{LISTS_VERBS}"),
        (["xyzzy"], f"no verb 'xyzzy': there are make, check{LISTS_VERBS}"),
        (["check", "a", "b c"], "stray words after 'check': a b c"),
        (["check", "--", "--x"], f"nothing takes what follows `--`: --x{LISTS_CHECK}"),
        (["bench", "--x"], "the verb 'bench' has moved: use `python -m benchmarks`\n"),
    ],
)
def test_wrong_usage(run: Run, words: Sequence[str], message: str) -> None:
    code, output, errors = run(*words)
    assert re.match(f"error: {message}", errors), errors
    assert (code, output) == (2, "")
    assert not {"made", "checked"} & vars(run).keys()


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--xyzzy", "--help", "odd"]])
def test_help_of_a_program(run: Run, words: Sequence[str]) -> None:
    code, output, errors = run(*words)
    assert (code, errors) == (0, "")
    assert output.startswith(
        "Makes things.\n\n    make   Makes a dataset.\n    check  Checks a dataset.\n"
    )
    for text in ("make, whose flags are:", "--rows", "(default: '6')", "--at: Names"):
        assert text in output
    assert "Names the folder to make. It must be given." in output
    assert output.endswith("\nWhat follows the first `--` goes to Beam.\n")
    assert "deep" not in output


@pytest.mark.parametrize("words", [["check", "--help"], ["--help", "--rows", "check"]])
def test_help_of_a_verb(run: Run, words: Sequence[str]) -> None:
    code, output, errors = run(*words)
    assert (code, errors) == (0, "")
    assert output.startswith("python -m tool check: Checks a dataset.\n")
    found = re.findall(r"^ +--(?:\[no\])?(\w+)", output, re.M)
    assert found == ["dataset", "debug", "deep", "quiet"]
    assert "Beam" not in output


def test_a_group_outside_of_a_command_line() -> None:
    made = MakeOptions(images=[], dataset=Path("d"))
    assert (made.size, made.speed) == (Size(rows=6, columns=8), 20)


SCRIPT = """
import sys
from dataclasses import dataclass
from pipeline.system import command_line, console
from pipeline.system.command_line import Verb, option

@dataclass(frozen=True, kw_only=True)
class Options:
    lines: int = option("Sets how many lines are said. " + 9 * 1024 * "Long. ", 3)

def say(options):
    \"\"\"Says lines.\"\"\"
    for number in range(options.lines):
        console.say(f"a line of a text {number}")
    sys.stderr.write("said\\\\n")

VERBS = {"say": Verb(Options, say)}
sys.exit(command_line.main("tool", VERBS, argv=sys.argv, about="Says."))
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tool") / "tool.py"
    path.write_text(SCRIPT.replace("\\\\", "\\"))
    return path


def shell(
    script: Path, command: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a pipe, in which TOOL is the script, and returns the script's code."""
    command += "; exit ${PIPESTATUS[0]}"
    tool = f"{sys.executable} {script}"
    return subprocess.run(
        ["bash", "-c", command.replace("TOOL", tool)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), **environment},
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("command", "code", "errors"),
    [
        ("TOOL --help | head -3", 0, ""),
        ("TOOL --help | true", 0, ""),
        ("TOOL --help 2>&1 >&-", 0, ""),
        ("TOOL --lines=99999 | head -3", 0, "warning: nobody reads standard output a"),
        ("TOOL --lines=99999 2>&1 | head -3", 0, ""),
        ("TOOL --lines=3 >/dev/full", 1, "error: No space left on device"),
        ("TOOL --lines=99999 >/dev/full", 1, "error: No space left on device"),
        ("TOOL --help >/dev/full", 1, "error: No space left on device"),
    ],
)
def test_an_output_that_nobody_takes(
    script: Path, command: str, code: int, errors: str, unbuffered: str
) -> None:
    result = shell(script, command, PYTHONUNBUFFERED=unbuffered)
    assert result.returncode == code, result.stderr
    assert result.stderr.startswith(errors)
    assert bool(result.stderr.removesuffix("said\n")) == bool(errors)
    for text in ("Traceback", "Exception ignored", "BrokenPipe"):
        assert text not in result.stderr + result.stdout


def test_a_run_goes_on_when_its_output_is_found_closed(script: Path) -> None:
    """Once it is told, on one line, that nobody reads."""
    result = shell(script, "TOOL | (exec <&-; sleep 1)", PYTHONUNBUFFERED="")
    warning = (
        "warning: nobody reads standard output any more; the run goes on without it"
    )
    assert (result.returncode, result.stderr) == (0, f"{warning}\nsaid\n")


def test_the_command_line_for_another_verb(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `plan` names the command that it has predicted; to be typed in a shell."""
    text = script.read_text().replace(
        "for number",
        'console.say(command_line.repeated("tool", "make"))\n    for number',
    )
    other = tmp_path / "tool.py"
    other.write_text(text)
    monkeypatch.delenv("MAKELEVEL", raising=False)
    assert shell(other, "TOOL --lines=1 --debug").stdout.startswith(
        "python -m tool make --lines=1\n"
    )
    assert shell(other, "TOOL --lines 1", MAKELEVEL="1").stdout.startswith(
        "make make ARGS=--lines=1\n"
    )
