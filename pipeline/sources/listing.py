"""What a listing is made of: the files that were found, the images, the rejects."""

import bisect
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.dataset.ledger import Listed, Reject
from pipeline.dataset.manifest import SPLITS
from pipeline.sources.names import is_utf8, printable, shown

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


LITTER, NO_PHOTO, BESIDE, UNNAMED = "litter", "no_photo", "beside", "unnamed"
KINDS = {
    LITTER: "left by systems and tools",
    NO_PHOTO: "no photos by their extension",
    BESIDE: "beside the folders that are read",
    UNNAMED: "not named by the CSV",
}
_EXAMPLES = 3  # of a kind


class Ignored:
    """Files that are no part of the collection.

    Attributes:
        counts: how many there are, by kind, of KINDS.
        examples: the first few paths of a kind, sorted.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, path: str, files: int = 1) -> None:
        """Counts a file, or a folder of so many; one of none is nothing."""
        if not files:
            return
        self.counts[kind] += files
        kept = self.examples[kind]
        if len(kept) < _EXAMPLES or path < kept[-1]:
            bisect.insort(kept, printable(path))
            del kept[_EXAMPLES:]

    def update(self, other: "Ignored") -> None:
        """Adds what another has."""
        for kind, count in other.counts.items():
            self.counts[kind] += count
            both = sorted(self.examples[kind] + other.examples[kind])
            self.examples[kind] = both[:_EXAMPLES]

    def __len__(self) -> int:
        return self.counts.total()

    def __str__(self) -> str:
        """A line for people, with an example of each kind."""
        kinds = [
            f"{count:,} {KINDS[kind]}, such as {self.examples[kind][0]}"
            for kind, count in sorted(self.counts.items())
        ]
        return f"ignored: {len(self):,} files: {'; '.join(kinds)}"


@dataclass
class Listing:
    """Everything below IMAGES.

    Attributes:
        layout: `splits`, `classes`, `manifest`, or `files` that have none.
        refs: the images to read, in no particular order.
        rejects: those known to be unusable before they are read.
        ignored: files that are no part of it.
        classes: sorted class names; the position is the label.
        carved: whether validation is made of a part of train.
        warnings: what may be other than the user thinks, in sentences.
    """

    layout: str
    refs: list[ImageRef] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    ignored: Ignored = field(default_factory=Ignored)
    classes: tuple[str, ...] = ()
    carved: bool = False
    warnings: list[str] = field(default_factory=list)

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
        self.ignored.update(other.ignored)

    def listed(self) -> Listed:
        """Returns the side of the ledger that is known before anything is read."""
        counts = Counter((ref.split, ref.label or "") for ref in self.refs)
        counts.update((row.split, row.label) for row in self.rejects)
        return Listed(counts, self.rejects, self.ignored.counts)

    def beyond(self, max_reject_fraction: float) -> str:
        """Returns why the rejects are too many already; "" where they are not."""
        total, rejected = len(self), len(self.rejects)
        if rejected <= max_reject_fraction * total:
            return ""
        counts = Counter(reject.reason for reject in self.rejects)
        first = {reject.reason: reject for reject in reversed(self.rejects)}
        reasons = "; ".join(
            f"{count:,} {reason}, such as {shown(first[reason].id)} "
            f"({first[reason].detail})"
            for reason, count in counts.most_common()
        )
        return (
            f"{rejected:,} of {total:,} images were rejected by their names alone "
            f"({rejected / total:.2%}); --max_reject_fraction allows "
            f"{max_reject_fraction:.2%}. These are {reasons}. Mend them; or allow "
            "more, and rejects.csv lists them all."
        )

    def splits(self) -> list[str]:
        """The splits that have images, in the usual order."""
        there = {ref.split for ref in self.refs}
        there |= {reject.split for reject in self.rejects}
        return [split for split in SPLITS if split in there]
