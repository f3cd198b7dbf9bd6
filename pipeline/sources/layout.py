"""What is there: the images below IMAGES, their ids, labels and splits."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NoReturn

from pipeline.dataset.manifest import SPLITS
from pipeline.images import image_bytes
from pipeline.sources import buckets, csv_manifest, tar_archives
from pipeline.sources.folder_tree import FolderLevel, FolderTree, refuse_compressed
from pipeline.sources.hashing import validation_ids
from pipeline.sources.listing import Candidate, ImageRef, Listing, printable
from pipeline.sources.local_folders import LocalFolder
from pipeline.storage.object_paths import AnyPath, ObjectPath
from pipeline.system.errors import RunError


def list_images(
    images: AnyPath | Sequence[AnyPath],
    *,
    csv: AnyPath | None = None,
    validation_fraction: float = 0.1,
    seed: int = 0,
    labelled_test: bool = False,
    classes: AnyPath | None = None,
) -> Listing:
    """Lists roots of `train/ validation/ test/`, or of class folders.

    An archive `train.tar` or `CLASS.tar` stands for the folder of that name, and one
    that is a root itself for the folder that it holds.

    Args:
        images: IMAGES, one root or several of one layout.
        csv: ids, labels and perhaps splits; see csv_manifest.list_named.
        validation_fraction: of each class of a root of class folders, or of a CSV
            without splits, in [0, 1).
        seed: of the hash that chooses them.
        labelled_test: `test/` holds class folders too.
        classes: a file with one class name per line, to be used as they are.

    Raises:
        RunError: there is nothing to list, a class folder of a labelled split is
            empty, a folder or an archive cannot be read, or stands for the same as
            another, an id is there twice, or there is a class that `classes` (or
            without it train) has not.
    """
    roots = images if isinstance(images, Sequence) else [images]
    places = [open_place(root) for root in roots]
    named = f"IMAGES {in_words(images)}"
    if csv:
        listing = csv_manifest.list_named(csv, places, labelled_test=labelled_test)
    else:
        listing = _list_roots(places, labelled_test)
    if len(roots) > 1:
        _refuse_repeated(listing.refs)
    if listing.carved:
        _carve_validation(listing, validation_fraction, seed)
    if not listing.refs:
        _refuse_nothing(named, listing)
    listing.classes = _classes(named, listing, read_class_list(classes))
    return listing


def in_words(images: AnyPath | Sequence[AnyPath]) -> str:
    """The paths of IMAGES in a row."""
    return ", ".join(map(str, images)) if isinstance(images, Sequence) else str(images)


def open_place(root: AnyPath) -> FolderTree:
    """The folder or the archive that IMAGES is.

    Raises:
        RunError: it is neither.
    """
    if root.is_dir():
        if isinstance(root, ObjectPath):
            return buckets.open_prefix(root)
        return LocalFolder(str(root))
    if root.is_file() and tar_archives.stem(root.name):
        return tar_archives.read(str(root))
    if root.is_file() and tar_archives.compressed_stem(root.name):
        refuse_compressed(str(root))
    raise RunError(
        f"IMAGES {root} is not a folder. Name a folder with train/, validation/ or "
        "test/ in it, or with one folder per class; or a .tar archive of one."
    )


def list_unlabelled(place: FolderTree, split: str) -> Listing:
    """Lists every file of a place as an unlabelled image of a split."""
    listing, level = Listing("files"), place.level()
    level.refuse(level.doubled)
    listing.ignored += level.ignored
    for found in (*level.beside, *level.escaping):
        listing.add(found.path, found, split, None)
    for name, below in level.below.items():
        for found in below.files(listing.ignored):
            listing.add(_join(name, found.path), found, split, None)
    return listing


def read_class_list(path: AnyPath | None) -> tuple[str, ...]:
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


def _list_roots(places: Sequence[FolderTree], labelled_test: bool) -> Listing:
    """Lists what roots of one layout have together."""
    levels = [tar_archives.unwrap(place, SPLITS).level() for place in places]
    splits = [level for level in levels if level.names() & set(SPLITS)]
    if splits and len(splits) < len(levels):
        other = next(level for level in levels if level not in splits)
        raise RunError(
            f"IMAGES {splits[0].where} has train/, validation/ or test/, and "
            f"{other.where} has none of them. Name roots of one layout, or make two "
            "datasets."
        )
    listing = Listing("splits" if splits else "classes", carved=not splits)
    for level in levels:
        if splits:
            _list_splits(level, labelled_test, listing)
        else:
            outside = _list_classes(level, "train", listing)
            listing.ignored += (printable(f"{level.where}/{f.path}") for f in outside)
    return listing


def _list_splits(level: FolderLevel, labelled_test: bool, listing: Listing) -> None:
    """Adds the split folders; what stands beside them is ignored."""
    level.refuse(SPLITS)
    listing.ignored += level.others(SPLITS)
    splits = [split for split in SPLITS if split in level.below]
    for found in level.escaping:  # out of every split: it must be counted in one
        listing.add(found.path, found, splits[0], "")
    for split in splits:
        place, before = level.below[split], len(listing)
        if split == "test" and not labelled_test:
            listing.extend(list_unlabelled(place, split))
        else:
            outside = ("no_class", f"outside the class folders of {split}/")
            for found in _list_classes(place.level(), split, listing):
                listing.add(found.path, found._replace(problem=outside), split, "")
        if len(listing) == before:
            raise RunError(
                f"{place.where} holds no file. Add photos, or remove the folder."
            )


def _list_classes(level: FolderLevel, split: str, listing: Listing) -> list[Candidate]:
    """Adds the class folders of a place; returns the files outside them."""
    level.refuse(level.names())
    listing.ignored += level.ignored
    for found in level.escaping:
        listing.add(found.path, found, split, "")
    empty = []
    for name, place in level.below.items():
        _refuse_line_break(name, place)
        files = list(place.files(listing.ignored))
        _refuse_whole(name, place, files, level)
        for found in files:
            listing.add(_join(name, found.path), found, split, name)
        empty += [] if files else [printable(name)]
    if empty:
        raise RunError(
            f"{level.where} has class folders without a file: "
            f"{', '.join(sorted(empty))}. Add photos, or remove the folders."
        )
    return level.beside


def _join(name: str, path: str) -> str:
    return f"{name}/{path}" if path else name  # "": a folder that is a loop


def _refuse_line_break(name: str, place: FolderTree) -> None:
    if "\n" in name or "\r" in name:
        raise RunError(
            f"the class folder {place.where!r} has a line break in its name, and "
            "classes.txt has one class per line. Rename it."
        )


def _refuse_whole(
    name: str, place: FolderTree, files: Iterable[Candidate], level: FolderLevel
) -> None:
    """An archive beside what it was unpacked to is no class."""
    if not isinstance(place, tar_archives.Packed):
        return
    inner = {found.path.partition("/")[0] for found in files if "/" in found.path}
    if same := sorted(inner & (level.below.keys() - {name})):
        raise RunError(
            f"{place.where} would be the class {name!r}, and holds folders named as "
            f"classes beside it are: {', '.join(map(printable, same[:5]))}. If it is "
            "the archive of them, move it out of IMAGES."
        )


def _refuse_repeated(refs: Iterable[ImageRef]) -> None:
    """An id names one image of a split, whatever root it comes from."""
    uris: dict[tuple[str, str], str] = {}
    for ref in refs:
        if other := uris.get((ref.split, ref.id)):
            raise RunError(
                f"two roots have an image {ref.id!r} of {ref.split}: "
                f"{image_bytes.path(other)} and {image_bytes.path(ref.uri)}. Rename or "
                "remove one of them."
            )
        uris[ref.split, ref.id] = ref.uri


def _refuse_nothing(named: str, listing: Listing) -> NoReturn:
    counts = f"({len(listing.rejects)} rejected, {len(listing.ignored)} ignored)"
    if listing.layout == "manifest":
        raise RunError(
            f"{named} holds none of the files that --manifest names {counts}. An id is "
            "a path below IMAGES, with .jpg added where it has no extension."
        )
    raise RunError(
        f"{named} holds no image file in train/, validation/, test/ or a class folder "
        f"{counts}. Put the photos there, one folder per class."
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


def _classes(named: str, listing: Listing, given: tuple[str, ...]) -> tuple[str, ...]:
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
                f"{named}: {split} has classes that {whole} has not: "
                f"{', '.join(strange[:20])} ({len(strange)} in all). Add them to "
                f"{whole}, or remove them from {split}."
            )
    return given or tuple(sorted(known))
