"""Fixtures of the tests that start whole programs."""

from pathlib import Path

import pytest

from tests.support.predictions import make_small


@pytest.fixture(scope="module")
def model(tf, tmp_path_factory: pytest.TempPathFactory, made_dataset: Path) -> Path:
    """MODEL of a network that takes hardly any time; not to be changed."""
    return make_small(tmp_path_factory.mktemp("small"), made_dataset)
