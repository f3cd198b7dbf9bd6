r"""The files that a CSV names: ids as other tools write them, and paths that are there.

An id is taken by its text: the path of a file below IMAGES, with an image's extension
added where it has none. Failing that, in this order, where exactly one file is meant:

    0a1b2c             the file of that name below IMAGES, however deep
    ./hat/1.jpg        hat/1.jpg; also hat\1.jpg and hat//1.jpg
    /old/hat/1.jpg     hat/1.jpg, or 1.jpg in IMAGES itself; also C:\old\hat\1.jpg
    http://h/hat/1.jpg the same
"""

import posixpath
import re
from collections.abc import Collection, Container, Iterator, Sequence
from urllib.parse import unquote, urlsplit

from pipeline.images import image_bytes
from pipeline.sources import names
from pipeline.sources.folder_tree import FolderTree
from pipeline.sources.listing import UNNAMED, Candidate, Ignored
from pipeline.system.errors import RunError

_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_EXAMPLES = 3

_Index = dict[str, list[str]]


class NamedFiles:
    """The files of all places, by path.

    Args:
        places: where they are.
        ignored: where litter is counted.
    """

    def __init__(self, places: Sequence[FolderTree], ignored: Ignored) -> None:
        self._found: dict[str, Candidate] = {}
        self._again: dict[str, Candidate] = {}  # of another place
        self._roots = [f"{place.where.rstrip('/')}/" for place in places]
        # By path without extension, by name without extension, by spelling.
        self._indexes: tuple[_Index, _Index, _Index] | None = None
        for place in places:
            for found in place.files(ignored):
                first = self._found.setdefault(found.path, found)
                if first is not found:
                    self._again[found.path] = found

    def find(self, image_id: str) -> Candidate:
        """Returns the file of an id; one with a problem where none, or more, may be.

        Raises:
            RunError: two places have it.
        """
        if itself := self._spelled(image_id):
            return self._taken(itself, image_id)
        for paths in self._meant(image_id):
            if len(paths) == 1:
                return self._taken(paths[0], image_id)
            if paths:
                detail = f"IMAGES has {len(paths)} files that it may mean: "
                return _missing(image_id, detail + _some(paths))
        if leads_out(image_id):
            return Candidate(image_id, "", ("bad_name", "the id leads out of IMAGES"))
        tried = " or ".join(map(names.printable, spellings(image_id)))
        return _missing(image_id, f"IMAGES has no file {tried}{self._near(image_id)}")

    def ignore_unnamed(
        self, named: Collection[Container[str]], ignored: Ignored
    ) -> None:
        """Counts the files whose paths are in none of `named`."""
        for path, found in self._found.items():
            if not any(path in paths for paths in named):
                inner = "" if image_bytes.is_file(found.uri) else f"/{path}"
                ignored.add(UNNAMED, f"{image_bytes.path(found.uri)}{inner}")

    def example(self) -> str:
        """Returns the path of a file, the first of all; "" where there is none."""
        photos = filter(names.has_photo_extension, self._found)
        return min(photos, default=min(self._found, default=""))

    def _meant(self, image_id: str) -> Iterator[list[str]]:
        """Yields the paths that an id may mean, the nearest reading first."""
        path, below = reading(image_id)
        if ".." in path.split("/"):
            return
        if below:
            yield self._at(path)
            if "/" not in path and not names.has_photo_extension(path):
                yield self._index()[1].get(path, [])
            return
        for root in self._roots:
            if f"/{path}".startswith(root):
                yield self._at(f"/{path}"[len(root) :])
        parts = path.split("/")
        tails = ("/".join(parts[at:]) for at in range(len(parts)))
        yield sorted({found for tail in tails for found in self._at(tail)})

    def _at(self, path: str) -> list[str]:
        """Returns the files at a path, with any extension where it has none."""
        if itself := self._spelled(path):
            return [itself]
        if names.has_photo_extension(path):
            return []
        return self._index()[0].get(path, [])

    def _spelled(self, image_id: str) -> str | None:
        return next((path for path in spellings(image_id) if path in self._found), None)

    def _taken(self, path: str, image_id: str) -> Candidate:
        if path in self._again:
            raise RunError(
                f"two roots have the file {path!r} of id {image_id!r}: "
                f"{image_bytes.path(self._found[path].uri)} and "
                f"{image_bytes.path(self._again[path].uri)}. Rename or remove one of "
                "them."
            )
        return self._found[path]

    def _near(self, image_id: str) -> str:
        """Returns a half-sentence on a file that may be meant; "" without one."""
        _, by_name, by_key = self._index()
        path, _ = reading(image_id)
        for like in (path, f"{path}.jpg"):
            if same := by_key.get(names.key(like)):
                return f"; there is {names.shown(same[0])}, spelled otherwise"
        if same := by_name.get(names.stem(path)):
            return f"; there is {_some(same)}"
        return ""

    def _index(self) -> tuple[_Index, _Index, _Index]:
        """Returns the paths by what ids may have of them; made when it is needed."""
        if self._indexes is None:
            self._indexes = {}, {}, {}
            by_path, by_name, by_key = self._indexes
            for path in self._found:
                by_key.setdefault(names.key(path), []).append(path)
                if names.has_photo_extension(path):
                    short = names.without_extension(path)
                    by_path.setdefault(short, []).append(path)
                    name = short.rpartition("/")[2]
                    by_name.setdefault(name, []).append(path)
        return self._indexes


def spellings(image_id: str) -> tuple[str, str]:
    """Returns the paths that an id is: itself, and with `.jpg` where it has nothing."""
    itself, added = image_id, f"{image_id}.jpg"
    return (itself, added) if posixpath.splitext(itself)[1] else (added, itself)


def reading(image_id: str) -> tuple[str, bool]:
    """Returns a path with `/` and without `.`, and whether all of it is below IMAGES.

    >>> reading("./a//1"), reading("http://h/p/1.jpg?w=9")
    (('a/1', True), ('p/1.jpg', False))
    """
    path, below = image_id, True
    if "://" in path:
        path, below = unquote(urlsplit(path).path), False
    elif _DRIVE.match(path):
        path, below = path[2:], False
    path = path.replace("\\", "/")
    below = below and not path.startswith("/")
    return "/".join(part for part in path.split("/") if part not in ("", ".")), below


def leads_out(image_id: str) -> bool:
    """Returns whether an id is no path below the folder of the images."""
    path, below = reading(image_id)
    return not below or ".." in path.split("/")


def _missing(image_id: str, detail: str) -> Candidate:
    return Candidate(image_id, "", ("no_file", detail))


def _some(paths: Sequence[str]) -> str:
    more = ", …" if len(paths) > _EXAMPLES else ""
    return ", ".join(map(names.printable, sorted(paths)[:_EXAMPLES])) + more
