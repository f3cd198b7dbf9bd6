"""Files: the repository, and digests of what is below a folder."""

import hashlib
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def tree(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
