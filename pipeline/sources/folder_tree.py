"""A place that holds images: a folder, or an archive that stands for one."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from pipeline.sources.listing import Candidate, Ignored
from pipeline.sources.names import printable
from pipeline.system.errors import RunError


class FolderTree(Protocol):
    """What `list_images` looks into.

    Attributes:
        where: its path, to be named in messages.
    """

    where: str

    def level(self) -> "FolderLevel":
        """Lists what is in it, one level down."""

    def files(self, ignored: Ignored) -> Iterator[Candidate]:
        """Yields every file below it, and adds litter to `ignored`."""


@dataclass
class FolderLevel:
    """What is in a place, one level down.

    Attributes:
        where: its path.
        below: folders, and archives that stand for one, by name.
        beside: files.
        ignored: litter.
        escaping: members of an archive whose names lead out of it.
        doubled: archives of a name that `below` has already, by name.
        compressed: the compressed archives among the files, by name.
    """

    where: str
    below: dict[str, FolderTree] = field(default_factory=dict)
    beside: list[Candidate] = field(default_factory=list)
    ignored: Ignored = field(default_factory=Ignored)
    escaping: list[Candidate] = field(default_factory=list)
    doubled: dict[str, list[str]] = field(default_factory=dict)
    compressed: dict[str, str] = field(default_factory=dict)

    def names(self) -> set[str]:
        """Returns the names of folders and archives, usable or not."""
        return {*self.below, *self.compressed}

    def refuse(self, names: Iterable[str]) -> None:
        """Stops where one of `names` is there twice, or only compressed.

        Raises:
            RunError: it is.
        """
        for name in sorted(names):
            if name in self.doubled:
                one, other = self.below[name].where, self.doubled[name][0]
                raise RunError(
                    f"{printable(one)} and {printable(other)} stand for the same "
                    "folder. Move one of them out of IMAGES."
                )
            if name in self.compressed and name not in self.below:
                refuse_compressed(self.compressed[name])


def refuse_compressed(path: str) -> NoReturn:
    """Raises RunError: a part of a compressed archive cannot be read alone."""
    raise RunError(
        f"{printable(path)} is compressed, and cannot be read in parts. Decompress it "
        "to a .tar (gunzip, bunzip2, unxz, unzstd), or unpack it into a folder."
    )
