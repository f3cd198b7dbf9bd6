"""Keeps two runs from writing to one output folder at the same time.

The lock is `flock` on the folder itself: the kernel drops it when the process ends,
however it ends, no child keeps it (a fork closes its copy), and it leaves no file. Who
holds it is noted for the run that is refused, as long as the lock is held:

    NOTES/.holder.json      host, pid, since, run (see atomic.run_id)

The lock also tells whose scratch files are left-overs: while it is held, those of any
other run are those of a dead one.
"""

import contextlib
import fcntl
import functools
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath
from pipeline.system import console, private_folder
from pipeline.system.errors import RunError

_HOLDER = ".holder.json"  # a dot: no listing of photos takes it for one
_LOOK_SECONDS = 0.05
_NOTE_SECONDS = 1.0  # between a lock and its note lie milliseconds


@dataclass(frozen=True)
class _Hold:
    """A folder that this process holds.

    Attributes:
        descriptor: of the folder; closing it gives the lock back.
        note: where the holder is noted.
        excludes: whether the lock keeps other runs out; some file systems have none.
        spared: the run that another machine noted there and that may be alive.
    """

    descriptor: int
    note: Path
    excludes: bool
    spared: str


_held: dict[AnyPath, _Hold] = {}


@contextlib.contextmanager
def held(folder: AnyPath, *, notes: str = ".") -> Iterator[None]:
    """Holds the lock of an output folder; a second time in a process does nothing.

    Args:
        folder: made where it is not there, and removed at the end if it is still empty.
            Of an object store, which has no locks, only this machine is locked.
        notes: the sub-folder in which the holder is noted.

    Raises:
        RunError: another run holds the lock, or `folder` is a file.
    """
    folder = folder.resolve()
    if folder in _held:  # as by trainer/__main__, before TensorFlow is imported
        yield
        return
    place = _on_this_machine(folder)
    note = place / notes / _HOLDER
    # What stands for a folder of a store is ours, also where a killed run has left it.
    made = [
        path
        for path in (note.parent, *note.parent.parents)
        if not path.exists() or (place != folder and path.is_relative_to(place))
    ]
    with contextlib.ExitStack() as stack:
        if not _held:
            stack.enter_context(atomic.new_run())
        _held[folder] = _acquire(folder, place, note)
        try:
            note_holder(folder)
            yield
        finally:
            # A forked child has forgotten it: the folder is its parent's.
            if hold := _held.pop(folder, None):
                _leave(hold, made)


def note_holder(folder: AnyPath) -> None:
    """Notes the holder of a folder again, where its notes were removed meanwhile.

    Does nothing where this process does not hold the folder.
    """
    hold = _held.get(folder.resolve())
    if hold is None:
        return
    value = {
        "host": platform.node(),
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "run": atomic.run_id(),
    }
    with contextlib.suppress(OSError):  # a complete folder may be read-only
        hold.note.parent.mkdir(exist_ok=True)
        hold.note.write_text(json.dumps(value))


def remove_scratch(folder: AnyPath) -> None:
    """Removes the scratch files of this run in `folder`, and those of dead runs.

    Without a lock on `folder`, or on one that it is in, nobody knows which are dead.
    """
    around = (folder.resolve(), *folder.resolve().parents)
    hold = next((_held[one] for one in around if one in _held), None)
    for run, path in atomic.scratch(folder):
        dead = hold is not None and hold.excludes and run != hold.spared
        if dead or run == atomic.run_id():
            atomic.remove(path)


def take(descriptor: int, kind: int, folder: AnyPath) -> bool:
    """Takes a lock of `fcntl.flock`; says so where the file system has none.

    Args:
        descriptor: of what is locked.
        kind: LOCK_SH or LOCK_EX, with LOCK_NB for not waiting.
        folder: for the message.

    Returns:
        Whether there is a lock now.

    Raises:
        BlockingIOError: somebody else has it.
    """
    try:
        fcntl.flock(descriptor, kind)
    except BlockingIOError:
        raise
    except OSError as error:  # ENOLCK, ENOSYS, EOPNOTSUPP, EINVAL, EBADF, ESTALE …
        _say(f"{folder} is on a file system without locks ({error.strerror})")
        return False
    return True


def _on_this_machine(folder: AnyPath) -> Path:
    """Returns the folder to lock; for one of a store, one among temporary files."""
    if isinstance(folder, Path):
        return folder
    _say(f"{folder} is in an object store, which has no locks")
    return Path(
        tempfile.gettempdir(), atomic.temporary_name(folder, "lock").rstrip("-")
    )


@functools.cache
def _say(why: str) -> None:
    console.note(f"{why}: it cannot be told whether another run writes there")


def _acquire(folder: AnyPath, place: Path, note: Path) -> _Hold:
    """Makes and locks a folder."""
    while True:
        try:
            if place == folder:
                place.mkdir(parents=True, exist_ok=True)
            else:
                private_folder.make(
                    place,
                    use=f"{folder} is locked by",
                    advice="since others could lead its note elsewhere: remove it, or "
                    "name another folder for temporary files (TMPDIR)",
                )
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileExistsError, NotADirectoryError) as error:
            raise RunError(f"{folder} is a file; name a folder.") from error
        try:
            taken = take(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, folder)
        except BlockingIOError as error:
            os.close(descriptor)
            raise RunError(
                f"{folder} is in use: {_in_words(_awaited(note))} writes there. Wait "
                "for its end, stop it, or name another folder."
            ) from error
        # Whoever had made the folder may have removed it before it was locked here.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(place)):
                return _Hold(descriptor, note, taken, _spared(folder, note))
        os.close(descriptor)


def _leave(hold: _Hold, made: list[Path]) -> None:
    """Removes the note and what is empty of `made`, and gives the lock back."""
    if _read(hold.note).get("run") == atomic.run_id():
        with contextlib.suppress(OSError):
            hold.note.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty: the output is there
        for path in made:
            if path.is_dir():
                path.rmdir()
    os.close(hold.descriptor)


def _spared(folder: AnyPath, note: Path) -> str:
    """Returns the id of a run that another machine has noted, and says so.

    On NFS a lock on a folder holds on one machine only.
    """
    holder = _read(note)
    if holder.get("host", platform.node()) == platform.node():
        return ""
    console.warn(
        f"{_in_words(holder)} has not left {folder}. Make sure that it does not "
        "run any more: some file systems have locks within one machine only"
    )
    return str(holder.get("run", ""))


def _awaited(note: Path) -> Mapping[str, Any]:
    """Reads who holds a folder, whose note may just be on its way."""
    deadline = time.monotonic() + _NOTE_SECONDS
    while not _lives(holder := _read(note)) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    return holder


def _lives(holder: Mapping[str, Any]) -> bool:
    """Says whether a note may be the holder's: not one that a killed run has left."""
    if not holder:
        return False
    return holder["host"] != platform.node() or os.path.exists(f"/proc/{holder['pid']}")


def _read(note: Path) -> dict[str, Any]:
    """Reads a note; nothing where there is none, or half of one."""
    try:
        value = json.loads(note.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) and {"host", "pid"} <= value.keys() else {}


def _in_words(holder: Mapping[str, Any]) -> str:
    if not holder:
        return "another run"
    return (
        f"another run (host {holder['host']}, pid {holder['pid']}, since "
        f"{holder.get('since')})"
    )


def _forget() -> None:
    """Forgets the locks in a forked child: they are the parent's."""
    for hold in _held.values():
        os.close(hold.descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget)
