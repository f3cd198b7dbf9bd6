"""The recipe of the container: nothing builds it here, but what it says is checked."""

import re
from pathlib import Path

import pytest

from tests.support.files import REPOSITORY

RECIPE = Path(REPOSITORY, "Dockerfile").read_text()
PINNED = dict(
    line.partition(" ;")[0].split("==")
    for line in Path(REPOSITORY, "constraints.txt").read_text().splitlines()
)
PINNED_PYTHON = re.search(
    r'^python_version = "(.*)"', Path(REPOSITORY, "pyproject.toml").read_text(), re.M
)


def instructions(recipe: str) -> list[tuple[str, str]]:
    """(instruction, arguments), in order; continued lines are one."""
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", recipe))
    lines = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    return [(name, " ".join(rest.split())) for name, rest in lines]


def arguments(name: str) -> list[str]:
    return [rest for found, rest in instructions(RECIPE) if found == name]


def test_the_image_is_that_of_our_beam_and_python() -> None:
    assert PINNED_PYTHON
    assert arguments("FROM") == [
        f"apache/beam_python{PINNED_PYTHON[1]}_sdk:{PINNED['apache-beam']}"
    ]


def test_what_it_copies_is_here_and_is_sent_to_the_builder() -> None:
    (copied,) = arguments("COPY")
    *files, target = copied.split()
    assert target == "./"
    assert all(Path(REPOSITORY, name).is_file() for name in files)
    sent = Path(REPOSITORY, ".dockerignore").read_text().splitlines()
    assert sorted(line[1:] for line in sent if line[0] == "!") == sorted(files)


def test_versions_are_pinned_and_tensorflow_is_asked_for() -> None:
    """A shard's bytes depend on the version of the decoder."""
    (install,) = arguments("RUN")
    assert "--constraint=constraints.txt" in install
    assert install.endswith("&& pip check")
    assert arguments("ARG") == ['EXTRAS=""']
    assert {"opencv-python-headless", "simplejpeg", "pillow"} <= PINNED.keys()


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("# a\nFROM b\n", [("FROM", "b")]),
        ("RUN a \\\n && b\n\nARG c\n", [("RUN", "a && b"), ("ARG", "c")]),
    ],
)
def test_the_parser(text: str, read: list[tuple[str, str]]) -> None:
    assert instructions(text) == read
