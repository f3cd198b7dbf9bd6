"""Folders and archives to be listed, and what a listing says of them."""

import io
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.sources.listing import Listing


def pack(
    path: Path,
    members: Sequence[tuple[str, bytes] | tarfile.TarInfo],
    **options: object,
) -> Path:
    """Writes an archive of (name, content), or of headers without content."""
    with tarfile.open(path, options.pop("mode", "w"), **options) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            header = tarfile.TarInfo(member[0])
            header.size = len(member[1])
            archive.addfile(header, io.BytesIO(member[1]))
    return path


def header(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def grow(root: Path, paths: Sequence[str]) -> Path:
    """Creates empty files: a listing opens none."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def labels(listing: Listing, split: str) -> dict[str, str | None]:
    """The images of a split: class by id."""
    return {ref.id: ref.label for ref in listing.refs if ref.split == split}


def rejected(listing: Listing) -> dict[str, str]:
    """The reason by id."""
    return {reject.id: reject.reason for reject in listing.rejects}


def tar(path: Path, folder: Path, inside: str = "") -> Path:
    """Packs what is in a folder, and removes the folder."""
    with tarfile.open(path, "w") as archive:
        archive.add(folder, inside or ".")
    shutil.rmtree(folder)
    return path
