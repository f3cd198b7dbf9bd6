"""Fixtures of the tests of `pipeline`."""

from pathlib import Path

import pytest

from tests.support.photos import jpeg, photo


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Enough of large photos that a run can be caught at work."""
    folder = tmp_path / "many" / "train" / "a"
    folder.mkdir(parents=True)
    data = jpeg(photo(0, 0, 1200, 1600))
    for index in range(400):
        (folder / f"{index}.jpg").write_bytes(data)
    return folder.parent.parent
