"""README.md and docs/ name nothing that the repository does not have."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.images import conversion, image_bytes, isolation
from pipeline.sources import listing
from tests.support.files import REPOSITORY

README = REPOSITORY / "README.md"
PAGES = [README, *sorted((REPOSITORY / "docs").glob("*.md"))]
MAKEFILE = (REPOSITORY / "Makefile").read_text()

PROGRAMS = ("pipeline", "trainer", "predictor", "benchmarks", "benchmarks.demo")
PROGRAMS += ("tests.support.engines", "pipeline.worker_pool")
WITHOUT_VERBS = {"pipeline.worker_pool"}  # it takes a port
OTHER_PROGRAMS = {"apache_beam.runners.portability.local_job_service_main"}
# Options of other programs that a page names. Options of Beam inside BEAM="…", or
# behind ` -- `, need not stand here.
OTHER_FLAGS = {
    *("template_location", "dask_npartitions", "execution_mode_for_batch"),  # Beam
    *("host", "port", "nthreads", "nworkers", "scheduler-file"),  # Dask
    *("ntasks", "cpus-per-task"),  # srun
    *("tag", "build-arg"),  # docker build
    *("logdir",),  # tensorboard
    *("help",),
}

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@functools.cache
def run(program: str, *words: str) -> str:
    """Returns what a program prints when it is given some words."""
    command = [sys.executable, "-m", program, *words]
    result = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    return result.stdout + result.stderr


def flags_of(program: str) -> set[str]:
    """Returns the flags that `--help` of the verbs of a program lists, a line each."""
    if program in WITHOUT_VERBS:
        return set()
    found: set[str] = set()
    for verb in verbs_of(program):
        listed = run(program, verb, "--help")
        flags = re.findall(r"^\s+--(?:\[no\])?(\w+)", listed, re.MULTILINE)
        assert flags, listed
        found.update(flags)
    return found


def verbs_of(program: str) -> set[str]:
    """Returns the verbs that a program names when it is given a wrong one."""
    said = run(program, "no-such-verb")
    listed = re.search(r"(?:there are|choose from) ([\w, ']+)", said)
    assert listed, said
    return set(re.findall(r"\w+", listed[1]))


def text_of(page: Path) -> str:
    """Returns a page without the options of Beam; a command is one line."""
    text = re.sub(r"\\\n\s*", "", page.read_text())
    return re.sub(r'BEAM=(?:"[^"]*"|[^\s`]+)|(?<=\s)-- [^`\n]*', "", text)


def code_of(page: Path) -> list[str]:
    """Returns indented lines without comments, and what is between backticks."""
    code = []
    for line in text_of(page).splitlines():
        if line.startswith("    "):
            code.append(re.sub(r"\s# .*", "", line.strip()))
        else:
            code += re.findall(r"`(.+?)`", line)
    return code


def source_of(module: str) -> Path | None:
    """Returns the file of a module or package; None where there is none."""
    path = REPOSITORY / module.replace(".", "/")
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def defines(source: Path | None, name: str) -> bool:
    """Returns whether a module has a function, a class or an exported name."""
    defined = rf'^(?:def|class) {name}\b|^    "{name}",$'
    return bool(source and re.search(defined, source.read_text(), re.MULTILINE))


def flags_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--([a-z][\w-]*)", text))


def targets_in(page: Path) -> list[tuple[str, str]]:
    """Returns the make targets of a page, each with the command that names it."""
    commands = [(re.findall(r"\bmake ([a-z-]+)", code), code) for code in code_of(page)]
    return [(target, code) for targets, code in commands for target in targets]


def programs_of(target: str) -> set[str]:
    """Returns the programs that the recipe of a make target starts."""
    rule = re.search(rf"^{target}:.*\n(?:[^.\n].*\n)*", MAKEFILE, re.MULTILINE)
    assert rule, target
    return set(re.findall(r"\$\(RUN\) ([\w.]+)", rule[0])) & set(PROGRAMS)


def anchors_of(page: Path) -> set[str]:
    """Returns the anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in words}


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 180


def test_the_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)", README.read_text()))
    assert linked == {str(page.relative_to(REPOSITORY)) for page in PAGES[1:]}


@pages
def test_make_targets_and_variables_exist(page: Path) -> None:
    there = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    named = targets_in(page)
    assert {target for target, _ in named} - there == set()
    variables = set(re.findall(r"\b([A-Z]+)=", " ".join(code for _, code in named)))
    assert {name for name in variables if f"$({name})" not in MAKEFILE} == set()


@pages
def test_programs_and_verbs_exist(page: Path) -> None:
    code = "\n".join(code_of(page))
    for program, verb in re.findall(r"python -m ([\w.]+)(?: ([a-z]+)\b)?", code):
        assert program in {*PROGRAMS, *OTHER_PROGRAMS}
        assert not verb or verb in verbs_of(program)
    assert set(re.findall(r"\bBENCH=(\w+)", code)) <= verbs_of("benchmarks")


@pages
def test_flags_exist(page: Path) -> None:
    known = OTHER_FLAGS.union(*map(flags_of, PROGRAMS))
    assert flags_in(text_of(page)) - known == set()


@pages
def test_commands_give_flags_to_the_program_that_has_them(page: Path) -> None:
    for target, code in targets_in(page):
        taken = set().union(*map(flags_of, programs_of(target)))
        assert flags_in(code) - taken == set(), code
    for code in code_of(page):
        match = re.search(r"python -m ([\w.]+)", code)
        if match and match[1] not in OTHER_PROGRAMS:
            taken = flags_of(match[1]) | {"help"}
            assert flags_in(code) - taken == set(), code


@pages
def test_paths_and_modules_exist(page: Path) -> None:
    packages = r"(?<![\w/.-])(?:pipeline|trainer|predictor|benchmarks"
    paths = re.findall(rf"{packages}|tests|docs)/[\w./-]*", page.read_text())
    missing = {path for path in paths if not (REPOSITORY / path.rstrip(".")).exists()}
    for name in re.findall(rf"{packages})(?:\.[a-z_]+)+", page.read_text()):
        module, _, within = name.rpartition(".")
        is_page = name.endswith(".md")
        if not (is_page or source_of(name) or defines(source_of(module), within)):
            missing.add(name)
    assert missing == set()


@pages
def test_links_resolve(page: Path) -> None:
    dead = set()
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if "://" in link:
            continue
        if not target.is_file() or (anchor and anchor not in anchors_of(target)):
            dead.add(link)
    assert dead == set()


def test_the_reasons_of_rejection_are_those_of_the_code() -> None:
    page = (REPOSITORY / "docs" / "data.md").read_text()
    section = page.partition("\n## Rejects\n")[2].partition("\n## ")[0]
    documented = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    reasons = {
        *conversion.REASONS,
        *image_bytes.REASONS,
        *listing.REASONS,
        *isolation.REASONS,
    }
    assert sorted(documented) == sorted(reasons)


def test_the_pages_are_read() -> None:
    """Holds the patterns above to what pages certainly name."""
    assert {"plan", "shards", "train", "predict"} <= {x for x, _ in targets_in(README)}
    assert {"cache", "accumulate", "seed"} <= flags_in(text_of(README))
    assert "template_location" in flags_in(text_of(REPOSITORY / "docs/runners.md"))
    assert "flink_master" not in flags_in(text_of(REPOSITORY / "docs/runners.md"))
    assert programs_of("verify") == {"pipeline", "predictor"}
    assert "which-cache" in anchors_of(README)
    assert {"shards", "plan", "verify"} <= verbs_of("pipeline")
    assert {"images", "dataset", "height"} <= flags_of("pipeline")
