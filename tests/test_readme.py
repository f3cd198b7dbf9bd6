"""What the README promises in tables."""

import re

from conftest import REPOSITORY

from pipeline.images import conversion, image_bytes
from pipeline.shards import image_in_progress
from pipeline.sources import listing


def test_every_reason_of_rejection_is_explained() -> None:
    text = (REPOSITORY / "README.md").read_text()
    table = text.partition("Reasons of rejection:")[2].partition("**MODEL**")[0]
    documented = re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)
    reasons = {
        **conversion.REASONS,
        **listing.REASONS,
        **image_bytes.REASONS,
        **image_in_progress.REASONS,
    }
    assert sorted(documented) == sorted(reasons)


def test_every_target_that_the_readme_names_exists() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    text = (REPOSITORY / "README.md").read_text()
    named = re.findall(r"(?:^    |`)make ([a-z-]+)", text, flags=re.MULTILINE)
    assert len(named) > 10
    assert set(named) <= targets
