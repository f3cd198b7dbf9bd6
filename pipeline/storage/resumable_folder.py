"""A folder that fills part by part, resumes, and is complete when its manifest is.

DATASET and PREDICTIONS are made this way. While work goes on, `_work` inside the
folder holds the key of the run and one sidecar for every committed part:

    _work/run.json            the form of these files, and what decides the content;
                              another run is refused
    _work/done/PART.json      PART is committed; what is to be known of it

The manifest is written last and `_work` is then removed. A run may add to a complete
folder: the manifest stays what it was until that run replaces it, and the key in
`_work` tells that it is not done.
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, BinaryIO, Generic, TypeVar, cast

from pipeline.storage import atomic, folder_lock, object_paths
from pipeline.storage.object_paths import AnyPath, ObjectPath
from pipeline.system.errors import RunError

WORK = "_work"
_FORM = 2  # of run.json; release 0.1 had the key alone there

_Folder = TypeVar("_Folder", bound=AnyPath)


class ResumableFolder(Generic[_Folder]):
    """The output folder of a run that can be stopped anywhere."""

    def __init__(self, folder: _Folder, *, manifest: str) -> None:
        self.folder = folder
        self.manifest = folder / manifest
        self.work = cast(_Folder, folder / WORK)
        self._done = self.work / "done"
        self._key = self.work / "run.json"

    def start(self, key: Mapping[str, Any], *, alone: bool = True) -> bool:
        """Opens the folder for a run; True when that very run is complete already.

        Args:
            key: everything that decides the content. It is part of the manifest.
            alone: False for a worker of a run, whose other workers write there, too.

        Raises:
            RunError: the folder holds another run, or something else.
        """
        if different := self.other(key):
            raise RunError(
                f"{self.folder} belongs to another run: {different}. Use the values "
                "of that run, another folder, or remove this one."
            )
        if self.complete():
            self.remove_work()  # of a run that was killed just before its end
            return True
        if self._key.is_file():
            if alone:
                folder_lock.remove_scratch(self.work)
            return False
        self._refuse_foreign()
        self._note_key(key)
        folder_lock.note_holder(self.folder)  # `clear` removed the note
        return False

    def extend(self, key: Mapping[str, Any]) -> None:
        """Opens a complete folder for a run that adds to it, or goes on with that run.

        Args:
            key: as for `start`; not that of the manifest.
        """
        if self._key.is_file():
            folder_lock.remove_scratch(self.work)
            return
        self._note_key(key)
        folder_lock.note_holder(self.folder)

    def complete(self) -> bool:
        """Says whether the manifest is there, and no run that adds to it goes on."""
        if not self.manifest.is_file():
            return False
        try:
            noted = atomic.read_json(self._key)
        except FileNotFoundError:
            return True
        # A run that was killed just before its end has written its manifest.
        return noted.get("form") != _FORM or not self._differs(noted["key"])

    def _differs(self, key: Mapping[str, Any]) -> str | None:
        """Says how the manifest differs from a key."""
        manifest = atomic.read_json(self.manifest)
        return difference({name: manifest.get(name) for name in key}, key)

    def remove_work(self) -> None:
        """Removes what runs need to go on."""
        with contextlib.suppress(OSError):  # another process does the same
            atomic.remove_tree(self.work)

    def other(self, key: Mapping[str, Any]) -> str | None:
        """Says how the run that the folder holds differs from `key`; None: not at all.

        A folder without a run differs from none.
        """
        if self.complete():
            return self._differs(key)
        return difference(self.key(), key) if self._key.is_file() else None

    @contextlib.contextmanager
    def commit(self, part: str) -> Iterator[BinaryIO]:
        """Opens a part for writing; it gets its name when it is whole."""
        with atomic.commit(self.folder / part, scratch=self.work) as file:
            yield file

    def done(self, part: str, note: Mapping[str, Any]) -> None:
        """Notes that a part is committed; the part itself comes first."""
        length = (self.folder / part).stat().st_size
        sidecar = {"bytes": length, "note": note}
        atomic.write_json(self._sidecar(part), sidecar, scratch=self.work)

    def forget(self, part: str) -> None:
        """Has a part made again."""
        self._sidecar(part).unlink(missing_ok=True)

    def note(self, part: str) -> dict[str, Any] | None:
        """Returns what `done` noted; None where the part is missing or cut short."""
        return self._note(self.folder / part)

    def notes(self, parts: Collection[str]) -> dict[str, dict[str, Any] | None]:
        """Returns what `note` says of each part; of a store, by two listings."""
        noted = self.committed()
        there: list[AnyPath] = [self.folder / part for part in parts if part in noted]
        if there and isinstance(self.folder, ObjectPath):
            listed = {path.name: path for path in self.folder.iterdir()}  # with sizes
            there = [listed[path.name] for path in there if path.name in listed]
        found = zip(
            there, object_paths.at_once(self.folder, self._note, there), strict=True
        )
        notes = {path.name: note for path, note in found}
        return {part: notes.get(part) for part in parts}

    def committed(self) -> set[str]:
        """The parts that have a sidecar."""
        try:
            names = [path.name for path in self._done.iterdir()]
        except FileNotFoundError:  # not started, or complete
            return set()
        return {name.removesuffix(".json") for name in names if name.endswith(".json")}

    def key(self) -> dict[str, Any]:
        """Returns the key of the run that goes on.

        Raises:
            RunError: another release has begun it.
        """
        value = atomic.read_json(self._key)
        if (form := value.get("form")) == _FORM:
            return dict(value["key"])
        release = "release 0.1" if form is None else "another release"
        raise RunError(
            f"{self.folder} was begun by {release}, and is not finished. Finish it "
            "with that release; or begin anew: remove the folder, or for `make shards` "
            "pass --overwrite (ARGS=--overwrite)."
        )

    def write_text(self, name: str, text: str) -> None:
        """Commits a small file of the folder."""
        atomic.write_text(self.folder / name, text, scratch=self.work)

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Writes the manifest and removes the work folder."""
        atomic.write_json(self.manifest, manifest, scratch=self.work)
        self.remove_work()

    def clear(self, *patterns: str) -> None:
        """Removes an earlier run, and only that: the manifest first."""
        if not self.manifest.is_file() and not self._key.is_file():
            return
        self._note_key({})  # still ours, whenever this is interrupted
        self.manifest.unlink(missing_ok=True)
        for pattern in patterns:
            for path in self.folder.glob(pattern):
                path.unlink()
        atomic.remove_tree(self.work)

    def _note(self, part: AnyPath) -> dict[str, Any] | None:
        try:
            sidecar = atomic.read_json(self._sidecar(part.name))
            length = part.stat().st_size
        except FileNotFoundError:
            return None
        return sidecar["note"] if length == sidecar["bytes"] else None

    def _sidecar(self, part: str) -> AnyPath:
        return self._done / f"{part}.json"

    def _note_key(self, key: Mapping[str, Any]) -> None:
        self._done.mkdir(parents=True, exist_ok=True)
        value = {"form": _FORM, "key": key}
        atomic.write_json(self._key, value, scratch=self.work)

    def _refuse_foreign(self) -> None:
        """Refuses a folder with content that no run has put there."""
        if self.folder.exists() and not self.folder.is_dir():
            raise RunError(f"{self.folder} is a file; name a folder.")
        known = {WORK}  # empty, where a run was killed before it noted its key
        content = self.folder.iterdir() if self.folder.is_dir() else ()
        strange = sorted(path.name for path in content if path.name not in known)
        if strange:
            raise RunError(
                f"{self.folder} is not empty ({strange[0]!r}, {len(strange)} in all) "
                f"and has no {self.manifest.name}. Name a new or an empty folder."
            )


def difference(found: Any, wanted: Any, name: str = "") -> str | None:
    """The first difference between two JSON values in words, or None.

    >>> difference({"image": {"height": 150}}, {"image": {"height": 120}})
    'image.height is 150 there and 120 here'
    """
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for key in sorted({*found, *wanted}):
            inner = f"{name}.{key}" if name else str(key)
            if different := difference(found.get(key), wanted.get(key), inner):
                return different
        return None
    return None if found == wanted else f"{name} is {found} there and {wanted} here"
