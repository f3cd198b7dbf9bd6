"""The images of a folder, a CSV list or a tar archive, without labels: to predict."""

import hashlib
import os
import stat
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd

from pipeline import origin, sources
from pipeline.console import RunError
from pipeline.manifest import SPLITS
from pipeline.sources import Reject

_CSV, _TAR = ".csv", ".tar"


class Unlabelled(NamedTuple):
    """One listed image.

    Attributes:
        id: path relative to the folder, or to the split's folder in it; what the CSV
            list says; the name in the archive.
        uri: for pipeline.origin.
        size: bytes.
    """

    id: str
    uri: str
    size: int


@dataclass
class Listed:
    """What there is.

    Attributes:
        images: in the order of the list or archive; of a folder, in that of the ids.
        rejects: those that are unusable before they are read.
        ignored: litter, and what is no file in an archive.
    """

    images: list[Unlabelled] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    ignored: int = 0

    def fingerprint(self) -> str:
        """SHA-256 of all ids and sizes, in their order, and of the rejects."""
        digest = hashlib.sha256()
        for image in self.images:
            digest.update(f"{image.id}\0{image.size}\0".encode())
        for reject in self.rejects:
            digest.update("\0".join(reject).encode())
        return digest.hexdigest()


def list_images(images: Path, *, split: str) -> Listed:
    """Lists what is to be predicted.

    Args:
        images: a folder, flat or nested; where it has any of train/, validation/ and
            test/, only that of `split` is read. Or a CSV with a column `id`: paths
            relative to its own folder, with `.jpg` added where there is no such file.
            Or an uncompressed tar archive.
        split: for that, and for the rejects.

    Raises:
        RunError: there is nothing to list, or an id comes twice.
    """
    if images.is_dir():
        listed = _folder(_of_split(images, split), split)
    elif not images.exists():
        raise RunError(
            f"IMAGES {images} does not exist. Name a folder of photos, a CSV with a "
            "column `id`, or a tar archive."
        )
    elif images.suffix.lower() == _CSV:
        listed = _csv(images, split)
    elif images.suffix.lower() == _TAR:
        listed = _tar(images, split)
    else:
        raise RunError(
            f"IMAGES {images} is no folder, no {_CSV} and no {_TAR}. A compressed "
            "archive cannot be read in parts: decompress it first."
        )
    ids = [image.id for image in listed.images] + [one.id for one in listed.rejects]
    if not ids:
        raise RunError(f"IMAGES {images} holds no file. Put the photos there.")
    if twice := [image_id for image_id, count in Counter(ids).items() if count > 1]:
        raise RunError(
            f"IMAGES {images} names {twice[0]!r} more than once ({len(twice)} ids in "
            "all); each may be there once. Remove the repetitions."
        )
    return listed


def _of_split(images: Path, split: str) -> Path:
    """Where the images are: in a root of splits, in the folder of one."""
    splits = [name for name in SPLITS if (images / name).is_dir()]
    if not splits:
        return images
    if split not in splits:
        raise RunError(
            f"IMAGES {images} has no {split}/; it has {', '.join(splits)}. Choose one "
            "of these (--split), or name the folder itself."
        )
    return images / split


def _folder(folder: Path, split: str) -> Listed:
    found = sources.list_below(folder, split)
    listed = Listed(rejects=found.rejects, ignored=len(found.ignored))
    for ref in sorted(found.refs):
        _add(listed, ref.id, Path(ref.uri), split)
    return listed


def _csv(path: Path, split: str) -> Listed:
    try:
        ids = pd.read_csv(path, usecols=["id"], dtype=str, keep_default_na=False)["id"]
    except ValueError as error:  # also: not UTF-8, and no column `id`
        raise RunError(
            f"IMAGES {path} is no list of images: {error}. It takes a CSV with a "
            "column `id`."
        ) from error
    listed = Listed()
    for image_id in ids:
        file = path.parent / image_id
        if not file.suffix or not file.exists():
            file = file.with_name(f"{file.name}.jpg") if file.name else file
        _add(listed, image_id, file, split)
    return listed


def _tar(path: Path, split: str) -> Listed:
    listed = Listed()
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if member.isdir() or any(map(sources.is_litter, name.parts)):
                    listed.ignored += member.isfile()
                elif not sources.is_utf8(member.name):
                    shown = sources.printable(member.name)
                    _reject(listed, shown, split, "bad_name", "the name is not UTF-8")
                elif name.is_absolute() or ".." in name.parts:
                    why = "the name leads out of the archive"
                    _reject(listed, member.name, split, "bad_name", why)
                elif not member.isfile() or member.issparse():
                    why = "a link, or no regular file, in an archive"
                    _reject(listed, member.name, split, "unreadable", why)
                else:
                    uri = origin.in_tar(path, member.offset_data, member.size)
                    listed.images.append(Unlabelled(str(name), uri, member.size))
    except tarfile.TarError as error:
        raise RunError(
            f"IMAGES {path} is no whole, uncompressed tar archive: {error}. Restore "
            "it; decompress it if it is compressed."
        ) from error
    return listed


def _add(listed: Listed, image_id: str, file: Path, split: str) -> None:
    """Adds a file, or a reject where there is none."""
    try:
        status = os.stat(file)
    except (OSError, ValueError) as error:  # ValueError: a name that none can have
        why = getattr(error, "strerror", None) or str(error)
        _reject(listed, image_id, split, "unreadable", why)
        return
    if stat.S_ISREG(status.st_mode):
        listed.images.append(Unlabelled(image_id, str(file), status.st_size))
    else:
        _reject(listed, image_id, split, "unreadable", "not a regular file")


def _reject(
    listed: Listed, image_id: str, split: str, reason: str, detail: str
) -> None:
    listed.rejects.append(Reject(image_id, split, "", reason, detail))
