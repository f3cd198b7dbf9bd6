"""Fixtures of the tests of runners."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.answers import Answers, serving


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[Answers]:
    """A server, which has no answers yet."""
    with serving(tmp_path / "answers") as started:
        yield started
