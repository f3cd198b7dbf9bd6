"""What a listing is made of: the files that were found, the images, the rejects."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

from pipeline.dataset.ledger import Listed, Reject
from pipeline.dataset.manifest import SPLITS

_LITTER = {"thumbs.db", "desktop.ini", "__macosx"}  # and every name with a dot first
# What may be taken off the name of an image; `22.05` has no extension.
_EXTENSIONS = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".webp"),
    *(".tif", ".tiff", ".heic", ".heif", ".avif"),
}
REASONS = {
    "bad_name": "the path is not UTF-8, or leads out of its folder or archive",
    "no_class": "a file of a labelled split outside every class folder",
    "no_file": "the CSV names a file that is not there",
    "unreadable": "not there, or not to be read; a link to nothing, or in an archive",
}


class Candidate(NamedTuple):
    """A file below a folder, or in an archive.

    Attributes:
        path: relative to what was looked into, with `/`.
        uri: for pipeline.images.image_bytes.
        problem: the reason, of REASONS, why it is no image, and a detail.
    """

    path: str
    uri: str
    problem: tuple[str, str] | None = None


class ImageRef(NamedTuple):
    """One listed image.

    Attributes:
        id: path relative to the split's root (to IMAGES without splits), with `/`; or
            what a CSV says.
        uri: where to read it, for pipeline.images.image_bytes.
        label: class name; None when unlabelled.
        split: `train`, `validation` or `test`.
    """

    id: str
    uri: str
    label: str | None
    split: str


@dataclass
class Listing:
    """Everything below IMAGES.

    Attributes:
        layout: `splits`, `classes`, `manifest`, or `files` that have none.
        refs: the images to read, in no particular order.
        rejects: those known to be unusable before they are read.
        ignored: litter, files beside the split or class folders, files that a CSV
            does not name.
        classes: sorted class names; the position is the label.
        carved: whether validation is made of a part of train.
    """

    layout: str
    refs: list[ImageRef] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    carved: bool = False

    def __len__(self) -> int:
        return len(self.refs) + len(self.rejects)

    def add(
        self, image_id: str, found: Candidate, split: str, label: str | None
    ) -> None:
        """Adds a file as an image, or as a reject where it has a problem."""
        if not is_utf8(image_id):
            problem: tuple[str, str] | None = ("bad_name", "the path is not UTF-8")
        else:
            problem = found.problem
        if problem is None:
            self.refs.append(ImageRef(image_id, found.uri, label, split))
            return
        known = label if label and is_utf8(label) else ""
        self.rejects.append(Reject(printable(image_id), split, known, *problem))

    def extend(self, other: "Listing") -> None:
        """Adds what another listing has; layout and classes stay."""
        self.refs += other.refs
        self.rejects += other.rejects
        self.ignored += other.ignored

    def listed(self) -> Listed:
        """Returns the side of the ledger that is known before anything is read."""
        counts = Counter((ref.split, ref.label or "") for ref in self.refs)
        counts.update((row.split, row.label) for row in self.rejects)
        return Listed(counts, self.rejects, self.ignored_by_kind())

    def ignored_by_kind(self) -> Counter[str]:
        """Counts what is ignored, by why.

        `litter` is left by systems and tools, `unnamed` is no row of the CSV, and
        `beside` lies beside the folders of splits or classes.
        """
        other = "unnamed" if self.layout == "manifest" else "beside"
        names = (PurePosixPath(path).name for path in self.ignored)
        return Counter("litter" if is_litter(name) else other for name in names)

    def splits(self) -> list[str]:
        """The splits that have images, in the usual order."""
        there = {ref.split for ref in self.refs}
        there |= {reject.split for reject in self.rejects}
        return [split for split in SPLITS if split in there]


def stem(path: str) -> str:
    """Returns the name of an image without its folders and an image's extension.

    >>> [stem(path) for path in ("a/0001.jpg", "b.c.PNG", "22.05")]
    ['0001', 'b.c', '22.05']
    """
    pure = PurePosixPath(path)
    return pure.stem if pure.suffix.lower() in _EXTENSIONS else pure.name


def is_litter(name: str) -> bool:
    """Whether a file or folder is left by an operating system or a tool."""
    return name.startswith(".") or name.lower() in _LITTER


def is_utf8(name: str) -> bool:
    """Whether a path is text, and can be an id."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    """A path as UTF-8 text; bytes that are not UTF-8 as escapes."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
