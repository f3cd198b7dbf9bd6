"""A folder with a name that others can guess, in a place where they can write."""

import contextlib
import os
import stat
from pathlib import Path

from pipeline.system.errors import RunError


def make(folder: Path, *, use: str, advice: str) -> None:
    """Makes a folder that nobody else may enter, or takes one of this user's.

    Args:
        folder: its parent is there.
        use: what it is for, in words that its path follows.
        advice: why it must be one's own, and what to do.

    Raises:
        RunError: the name is taken by a link, a file, or a folder of another user.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if stat.S_ISLNK(status.st_mode) or not stat.S_ISDIR(status.st_mode):
        found = "a link" if stat.S_ISLNK(status.st_mode) else "a file"
    elif status.st_uid != os.getuid():
        found = f"a folder of another user (uid {status.st_uid})"
    else:
        folder.chmod(0o700)  # whatever the umask, or an earlier version, left
        return
    raise RunError(
        f"{use} {folder}, and that is {found}. It must be a folder that you (uid "
        f"{os.getuid()}) own, {advice}."
    )
