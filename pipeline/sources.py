"""What is there: the images below a root, their ids, labels and splits."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pipeline.console import RunError
from pipeline.manifest import SPLITS
from pipeline.split import validation_ids

LITTER = {"thumbs.db", "desktop.ini", "__macosx"}  # and every name with a dot first
REASONS = {
    "bad_name": "the path is not UTF-8",
    "no_class": "a file of a labelled split outside every class folder",
    "unreadable": "the file cannot be opened or read; a dangling or looping link",
}


class ImageRef(NamedTuple):
    """One listed image.

    Attributes:
        id: path relative to the split's root (to IMAGES without splits), with `/`.
        uri: where to read it.
        label: class name; None when unlabelled.
        split: `train`, `validation` or `test`.
    """

    id: str
    uri: str
    label: str | None
    split: str


class Reject(NamedTuple):
    """An image that was not written; a row of rejects.csv."""

    id: str
    split: str
    label: str
    reason: str
    detail: str


@dataclass
class Listing:
    """Everything below IMAGES.

    Attributes:
        layout: `splits`, `classes`, or `files` that have none.
        refs: the images to read, in no particular order.
        rejects: those known to be unusable from their path alone.
        ignored: litter, and files beside the split or class folders.
        classes: sorted class names; the position is the label.
    """

    layout: str
    refs: list[ImageRef] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    classes: tuple[str, ...] = ()

    def splits(self) -> list[str]:
        """The splits that have images, in the usual order."""
        there = {ref.split for ref in self.refs}
        there |= {reject.split for reject in self.rejects}
        return [split for split in SPLITS if split in there]


def list_images(
    root: Path,
    *,
    validation_fraction: float = 0.1,
    seed: int = 0,
    labelled_test: bool = False,
    classes: Path | None = None,
) -> Listing:
    """Lists a root of `train/ validation/ test/`, or a root of class folders.

    Args:
        root: IMAGES.
        validation_fraction: of each class of a root of class folders, in [0, 1).
        seed: of the hash that chooses them.
        labelled_test: `test/` holds class folders too.
        classes: a file with one class name per line, to be used as they are.

    Raises:
        RunError: there is nothing to list, a class folder of a labelled split is
            empty, a folder cannot be read, or there is a class that `classes` (or
            without it train) has not.
    """
    if not root.is_dir():
        raise RunError(
            f"IMAGES {root} is not a folder. Name a folder with train/, validation/ "
            "or test/ in it, or with one folder per class."
        )
    splits = [name for name in SPLITS if (root / name).is_dir()]
    listing = Listing("splits" if splits else "classes")
    if splits:
        _list_splits(root, splits, labelled_test, listing)
    else:
        listing.ignored += _list_classes(str(root), "train", listing)
        _carve_validation(listing, validation_fraction, seed)
    if not listing.refs:
        raise RunError(
            f"IMAGES {root} holds no image file in train/, validation/, test/ or a "
            f"class folder ({len(listing.rejects)} rejected, {len(listing.ignored)} "
            "ignored). Put the photos there, one folder per class."
        )
    listing.classes = _classes(root, listing, read_class_list(classes))
    return listing


def list_below(folder: Path, split: str) -> Listing:
    """Lists every file below a folder as an unlabelled image of a split."""
    listing = Listing("files")
    for path, problem in _walk(str(folder), listing.ignored):
        _add(path, str(folder), split, None, problem, listing)
    return listing


def read_class_list(path: Path | None) -> tuple[str, ...]:
    """The lines of a class list; none without a path.

    Raises:
        RunError: there is no such file, or it has an empty or a repeated line.
    """
    if path is None:
        return ()
    if not path.is_file():
        raise RunError(f"--classes={path} is no file. Name a classes.txt.")
    names = tuple(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"))
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if not names or "" in names or repeated:
        what = (
            f"repeats {', '.join(repeated[:20])}" if repeated else "has an empty line"
        )
        raise RunError(f"--classes={path} {what}. It takes one class name per line.")
    return names


def is_litter(name: str) -> bool:
    """Whether a file or folder is left by an operating system or a tool."""
    return name.startswith(".") or name.lower() in LITTER


def _list_splits(
    root: Path, splits: list[str], labelled_test: bool, listing: Listing
) -> None:
    """Adds the split folders; what stands beside them is ignored."""
    beside = (entry for entry in _entries(str(root)) if entry.name not in splits)
    listing.ignored += [printable(entry.path) for entry in beside]
    for split in splits:
        folder, before = str(root / split), len(listing.refs) + len(listing.rejects)
        if split == "test" and not labelled_test:
            below = list_below(Path(folder), split)
            listing.refs += below.refs
            listing.rejects += below.rejects
            listing.ignored += below.ignored
        else:
            for path in _list_classes(folder, split, listing):
                outside = ("no_class", f"outside the class folders of {split}/")
                _add(path, folder, split, "", outside, listing)
        if len(listing.refs) + len(listing.rejects) == before:
            raise RunError(f"{folder} holds no file. Add photos, or remove the folder.")


def _list_classes(root: str, split: str, listing: Listing) -> list[str]:
    """Adds the class folders below `root`; returns the files outside them."""
    outside, empty = [], []
    for entry in _entries(root):
        if is_litter(entry.name):
            listing.ignored.append(printable(entry.path))
        elif not _is_folder(entry):
            outside.append(entry.path)
        else:
            _refuse_line_break(entry)
            found = list(_walk(entry.path, listing.ignored, (_identity(root),)))
            for path, problem in found:
                _add(path, root, split, entry.name, problem, listing)
            empty += [] if found else [printable(entry.name)]
    if empty:
        raise RunError(
            f"{root} has class folders without a file: {', '.join(sorted(empty))}. "
            "Add photos, or remove the folders."
        )
    return outside


def _add(
    path: str,
    root: str,
    split: str,
    label: str | None,
    problem: tuple[str, str] | None,
    listing: Listing,
) -> None:
    """Adds one file as an image, or as a rejection where there is a problem."""
    image_id = path[len(root) + 1 :]
    if not is_utf8(image_id):
        problem = ("bad_name", "the path is not UTF-8")
    if problem is None:
        listing.refs.append(ImageRef(image_id, path, label, split))
        return
    known = label if label and is_utf8(label) else ""
    listing.rejects.append(Reject(printable(image_id), split, known, *problem))


def _walk(
    folder: str, ignored: list[str], above: tuple[tuple[int, int], ...] = ()
) -> Iterator[tuple[str, tuple[str, str] | None]]:
    """Yields (path, problem) for every file below `folder`, following links.

    `above` identifies the folders on the way here: a link back to one is a loop.
    """
    here = _identity(folder)
    if here in above:
        yield folder, ("unreadable", "a link to a folder that holds it")
        return
    for entry in _entries(folder):
        if is_litter(entry.name):
            ignored.append(printable(entry.path))
        elif _is_folder(entry):
            yield from _walk(entry.path, ignored, (*above, here))
        else:
            yield entry.path, _file_problem(entry)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _file_problem(entry: os.DirEntry[str]) -> tuple[str, str] | None:
    """Why an entry that is no folder cannot be read; asks the disk for links only."""
    try:
        if entry.is_file():
            return None
    except OSError as error:
        return "unreadable", str(error.strerror)
    link = entry.is_symlink()
    return "unreadable", "a link to nothing" if link else "not a regular file"


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise RunError(
            f"cannot list {folder}: {error.strerror}. Make it readable, or move it "
            "out of IMAGES."
        ) from error


def _refuse_line_break(folder: os.DirEntry[str]) -> None:
    if "\n" in folder.name or "\r" in folder.name:
        raise RunError(
            f"the class folder {folder.path!r} has a line break in its name, and "
            "classes.txt has one class per line. Rename it."
        )


def _carve_validation(listing: Listing, fraction: float, seed: int) -> None:
    """Moves the chosen images of each class from train to validation."""
    by_class = defaultdict(list)
    for ref in listing.refs:
        by_class[ref.label].append(ref.id)
    chosen: set[str] = set()
    for ids in by_class.values():
        chosen |= validation_ids(ids, fraction=fraction, seed=seed)
    listing.refs = [
        ref._replace(split="validation") if ref.id in chosen else ref
        for ref in listing.refs
    ]


def _classes(root: Path, listing: Listing, given: tuple[str, ...]) -> tuple[str, ...]:
    """The given class names; else those of train, sorted; without a train split all."""
    by_split: dict[str, set[str]] = defaultdict(set)
    for split, label in {(ref.split, ref.label) for ref in listing.refs} | {
        (reject.split, reject.label) for reject in listing.rejects
    }:
        if label:
            by_split[split].add(label)
    known = set(given) or by_split["train"] or set().union(*by_split.values())
    for split, names in by_split.items():
        if strange := sorted(names - known):
            whole = "--classes" if given else "train"
            raise RunError(
                f"{root}/{split} has classes that {whole} has not: "
                f"{', '.join(strange[:20])} ({len(strange)} in all). Add them to "
                f"{whole}, or remove them from {split}."
            )
    return given or tuple(sorted(known))


def is_utf8(name: str) -> bool:
    """Whether a path is text, and can be an id."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    """A path as UTF-8 text; bytes that are not UTF-8 as escapes."""
    return os.fsencode(name).decode(errors="backslashreplace")
