"""Folders of an object store: what its keys begin with, from one listing."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from pipeline.images import image_bytes
from pipeline.sources import tar_archives
from pipeline.sources.folder_tree import FolderLevel
from pipeline.sources.listing import LITTER, Candidate, Ignored
from pipeline.sources.local_folders import add_archives
from pipeline.sources.names import is_litter
from pipeline.storage.object_paths import ObjectPath

_Keys = Sequence[tuple[str, int]]  # relative to the prefix, and bytes


class BucketFolder:
    """What keys begin with, as a place; litter is left.

    Args:
        where: its uri.
        keys: those below it.
    """

    def __init__(self, where: str, keys: _Keys) -> None:
        self.where = where
        self._keys = keys

    def level(self) -> FolderLevel:
        """Lists what is in it, one level down; an archive stands for a folder."""
        level, packed = FolderLevel(self.where), []
        below: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for key, size in self._keys:
            name, inner, rest = key.partition("/")
            if is_litter(name):
                level.ignored.add(LITTER, f"{self.where}/{key}")
            elif inner and name:
                below[name].append((rest, size))
            elif tar_archives.stem(name):
                packed.append(f"{self.where}/{name}")
            else:
                level.beside.append(self._found(key, size))
                if stem := tar_archives.compressed_stem(name):
                    level.compressed[stem] = f"{self.where}/{name}"
        for name, keys in below.items():
            level.below[name] = BucketFolder(f"{self.where}/{name}", keys)
        add_archives(level, packed)
        return level

    def files(self, ignored: Ignored) -> Iterator[Candidate]:
        """Yields every object below it; paths are relative to it."""
        for key, size in self._keys:
            if any(map(is_litter, key.split("/"))):
                ignored.add(LITTER, f"{self.where}/{key}")
            else:
                yield self._found(key, size)

    def _found(self, key: str, size: int) -> Candidate:
        problem = None
        if "" in key.split("/"):
            problem = "bad_name", "a part of the path is empty"
        elif "\0" in key:  # a uri for pipeline.images.image_bytes must not have one
            problem = "bad_name", "the name has a zero byte"
        return Candidate(
            key, image_bytes.in_store(f"{self.where}/{key}", size), problem
        )


def open_prefix(root: ObjectPath) -> BucketFolder:
    """The place that a folder of a store is; a request for every thousand keys."""
    start = len(str(root)) + 1
    return BucketFolder(
        str(root),
        [(str(path)[start:], path.stat().st_size) for path in root.walk_files()],
    )
