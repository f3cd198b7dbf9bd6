"""The images of a folder, a CSV or a tar archive, without labels: to predict."""

import functools
import hashlib
import json
import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.dataset.ledger import Reject
from pipeline.dataset.manifest import SPLITS
from pipeline.images import image_bytes
from pipeline.sources import csv_manifest, layout, named_files, tar_archives
from pipeline.sources.folder_tree import FolderTree
from pipeline.sources.listing import Candidate, Ignored, Listing
from pipeline.sources.named_files import NamedFiles
from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath, ObjectPath
from pipeline.system import io_errors
from pipeline.system.errors import RunError

_CSV = ".csv"


class Unlabelled(NamedTuple):
    """One listed image.

    Attributes:
        id: path relative to the folder, or to the split's folder in it; the name in
            the archive; what the CSV says.
        uri: for pipeline.images.image_bytes.
        size: bytes.
    """

    id: str
    uri: str
    size: int


@dataclass
class PhotoListing:
    """What there is.

    Attributes:
        images: in the order of the CSV or archive; of a folder, in that of the ids.
        rejects: those that are unusable before they are read.
        ignored: litter, and what stands beside the folders of splits.
    """

    images: list[Unlabelled] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    ignored: Ignored = field(default_factory=Ignored)

    def fingerprint(self) -> str:
        """SHA-256 of all ids and sizes, in their order, and of the rejects."""
        digest = hashlib.sha256()
        for image in self.images:
            digest.update(f"{image.id}\0{image.size}\0".encode())
        for reject in self.rejects:
            digest.update("\0".join((*reject, "")).encode())
        return digest.hexdigest()

    def write(self, path: AnyPath, *, scratch: AnyPath) -> None:
        """Keeps images and rejects for other processes; see `read`."""
        # ASCII: names of files need not be UTF-8.
        text = json.dumps({"images": self.images, "rejects": self.rejects})
        atomic.write_text(path, text, scratch=scratch)


def read(path: AnyPath) -> PhotoListing:
    """Reads what `PhotoListing.write` has kept."""
    value = atomic.read_json(path)
    return PhotoListing(
        [Unlabelled(*image) for image in value["images"]],
        [Reject(*reject) for reject in value["rejects"]],
    )


def list_photos(images: AnyPath, *, split: str) -> PhotoListing:
    """Lists what is to be predicted.

    Args:
        images: a folder, flat or nested, or a .tar archive; where it has any of
            train/, validation/ and test/, or an archive of that name, only that of
            `split` is read. Or a CSV with a column `id`: paths below its own folder,
            with `.jpg` added where there is none.
        split: for that, and for the rejects.

    Raises:
        RunError: there is nothing to list, or an id comes twice.
    """
    if not images.exists():
        raise RunError(
            f"IMAGES {images} does not exist. Name a folder of photos, a CSV with a "
            "column `id`, or a tar archive."
        )
    if images.suffix.lower() == _CSV and images.is_file():
        listing = _named(images, split)
    else:
        listing = _below(layout.open_place(images), split)
    if not len(listing):
        raise RunError(f"IMAGES {images} holds no file. Put the photos there.")
    return _with_sizes(images, listing)


def _below(images: FolderTree, split: str) -> Listing:
    """All images of a place, or those of a split where it has splits."""
    level = tar_archives.unwrap(images, SPLITS).level()
    if splits := [name for name in SPLITS if name in level.names()]:
        if split not in splits:
            raise RunError(
                f"IMAGES {images.where} has no {split}/; it has {', '.join(splits)}. "
                "Choose one of these (--split), or name the folder itself."
            )
        level.refuse([split])
        images = level.below[split]
    listing = layout.list_unlabelled(images, split)
    if splits:
        layout.ignore_others(level, SPLITS, listing.ignored)
    listing.refs.sort(key=lambda ref: (image_bytes.in_order(ref.uri), ref.id))
    listing.rejects.sort()
    return listing


def _named(path: AnyPath, split: str) -> Listing:
    """The images that a CSV names; where one is not at its path, all are listed."""
    listing, place = Listing("manifest"), layout.open_place(path.parent)
    files: NamedFiles | None = None
    seen: dict[str, str] = {}  # id by path
    for image_id in csv_manifest.ids(path, f"IMAGES {path}"):
        found = None if files else _at_its_path(path.parent, image_id)
        if not found:
            files = files or NamedFiles([place], Ignored())
            found = files.find(image_id)
        if (first := seen.setdefault(found.path, image_id)) != image_id:
            raise RunError(
                f"IMAGES {path} names the file {found.path!r} twice, as {first!r} and "
                f"as {image_id!r}; each may be there once. Remove one of them."
            )
        listing.add(image_id, found, split, None)
    return listing


def _at_its_path(folder: AnyPath, image_id: str) -> Candidate | None:
    """Finds a file on a disk without a listing of its folder; a store is listed."""
    if isinstance(folder, ObjectPath) or named_files.leads_out(image_id):
        return None
    for path in named_files.spellings(image_id):
        file = str(folder / path)
        try:
            status = io_errors.insist(file, functools.partial(os.stat, file))
        except (OSError, ValueError):  # there is none; no file has such a name
            continue
        if stat.S_ISREG(status.st_mode):
            return Candidate(os.path.normpath(path), file)
    return None


def _with_sizes(images: AnyPath, listing: Listing) -> PhotoListing:
    """Asks for the size of every image, and holds ids to be there once."""
    listed = PhotoListing(rejects=listing.rejects, ignored=listing.ignored)
    for ref in listing.refs:
        try:
            size = io_errors.insist(
                image_bytes.path(ref.uri), functools.partial(image_bytes.size, ref.uri)
            )
        except OSError as error:  # gone since it was listed
            why = ("unreadable", str(error.strerror))
            listed.rejects.append(Reject(ref.id, ref.split, "", *why))
        else:
            listed.images.append(Unlabelled(ref.id, ref.uri, size))
    ids = Counter(image.id for image in listed.images)
    ids.update(reject.id for reject in listed.rejects)
    if twice := [image_id for image_id, count in ids.items() if count > 1]:
        raise RunError(
            f"IMAGES {images} names {twice[0]!r} more than once ({len(twice)} ids in "
            "all); each may be there once. Remove the repetitions."
        )
    return listed
