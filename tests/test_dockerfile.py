"""The container of a cloud worker: it fits what it names (nothing builds it here)."""

import re
from importlib import metadata

from packaging.requirements import Requirement

from tests.support.files import REPOSITORY

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
PINNED = dict(
    line.partition(" ;")[0].split("==")
    for line in (REPOSITORY / "constraints.txt").read_text().splitlines()
)


def test_the_image_is_that_of_our_beam_and_python() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text()
    (python,) = re.findall(r'^python_version = "(.*)"', project, re.MULTILINE)
    image = f"FROM apache/beam_python{python}_sdk:{PINNED['apache-beam']}\n"
    assert image in DOCKERFILE


def test_what_it_copies_is_here_and_is_sent_to_the_builder() -> None:
    (copied,) = re.findall(r"^COPY (.*) \./$", DOCKERFILE, re.MULTILINE)
    assert all((REPOSITORY / name).is_file() for name in copied.split())
    sent = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in sent if line.startswith("!")} == {*copied.split()}


def test_what_a_worker_imports_is_pinned() -> None:
    """The bytes of a shard depend on the version of the decoder."""
    needed = {
        requirement.name.lower()
        for requirement in map(Requirement, metadata.requires("vgg16-at-scale") or ())
        if not requirement.marker or requirement.marker.evaluate({"extra": "train"})
    }
    assert {"apache-beam", "simplejpeg", "pillow", "tensorflow"} <= needed
    assert needed <= PINNED.keys()
    assert "pip install --no-cache-dir --constraint=constraints.txt" in DOCKERFILE
