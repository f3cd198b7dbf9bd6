"""What is there: the images below IMAGES, their ids, labels and splits."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NoReturn

from pipeline.dataset.manifest import SPLITS, classes_in_words
from pipeline.images import image_bytes
from pipeline.sources import buckets, class_names, csv_manifest, tar_archives
from pipeline.sources.folder_tree import FolderLevel, FolderTree, refuse_compressed
from pipeline.sources.hashing import validation_ids
from pipeline.sources.listing import (
    BESIDE,
    NO_PHOTO,
    Candidate,
    Ignored,
    ImageRef,
    Listing,
)
from pipeline.sources.local_folders import LocalFolder
from pipeline.sources.names import (
    has_photo_extension,
    is_no_photo,
    printable,
    shown,
    spelling,
)
from pipeline.storage.object_paths import AnyPath, ObjectPath
from pipeline.system import console
from pipeline.system.errors import RunError, UnavailableError

LAYOUTS = ("auto", "splits", "classes")
# What other tools and people call a split, in any case.
_ALSO = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "val", "valid", "dev", "eval", "evaluation"),
    "test": ("test", "testing", "tst"),
}
_MEANT = {name: split for split, all_names in _ALSO.items() for name in all_names}


def list_images(
    images: AnyPath | Sequence[AnyPath],
    *,
    csv: AnyPath | None = None,
    validation_fraction: float = 0.1,
    seed: int = 0,
    labelled_test: bool = False,
    classes: AnyPath | None = None,
    layout: str = "auto",
    id_column: str = "id",
    label_column: str = "label",
    any_classes: bool = False,
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
        layout: one of LAYOUTS: whether folders called like splits are splits; `auto`
            refuses what may be meant otherwise.
        id_column, label_column: of the CSV.
        any_classes: the classes are not looked at, and `Listing.classes` is empty.

    Raises:
        RunError: there is nothing to list, a class folder of a labelled split is
            empty, a folder or an archive cannot be read, or stands for the same as
            another, an id is there twice, or there is a class that `classes` (or
            without it train) has not.
    """
    given = class_names.read_class_list(classes) if classes else ()
    roots = images if isinstance(images, Sequence) else [images]
    places = [open_place(root) for root in roots]
    named = f"IMAGES {in_words(images)}"
    if csv:
        listing = csv_manifest.list_named(
            csv,
            places,
            labelled_test=labelled_test,
            id_column=id_column,
            label_column=label_column,
        )
    else:
        listing = _list_roots(places, labelled_test, layout)
        listing.warnings += csv_manifest.left_out(roots)
    if len(roots) > 1:
        _refuse_repeated(listing.refs)
    if listing.carved:
        _carve_validation(listing, validation_fraction, seed)
    if not listing.refs:
        _refuse_nothing(named, listing)
    if not any_classes:
        listing.classes = class_names.classes_of(named, listing, given)
    _refuse_twins(named, listing.refs)
    return listing


def in_words(images: AnyPath | Sequence[AnyPath]) -> str:
    """The paths of IMAGES in a row."""
    return ", ".join(map(str, images)) if isinstance(images, Sequence) else str(images)


def announce(images: AnyPath | Sequence[AnyPath], listing: Listing) -> None:
    """Says what IMAGES was understood as, and what may be other than it seems."""
    counts = Counter(ref.split for ref in listing.refs)
    counts.update(reject.split for reject in listing.rejects)
    splits = ", ".join(f"{counts[split]:,} in {split}" for split in listing.splits())
    console.say(
        f"IMAGES {in_words(images)}: {len(listing):,} images ({splits}), "
        f"{classes_in_words(listing.classes)}"
    )
    if listing.ignored:
        console.say(f"  {listing.ignored}")
    for warning in listing.warnings:
        console.warn(warning)


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
    listing.ignored.update(level.ignored)
    beside = _photos(level.beside, level.where, listing.ignored)
    for found in (*beside, *level.escaping):
        listing.add(found.path, found, split, None)
    for name, below in level.below.items():
        files = below.files(listing.ignored)
        for found in _photos(files, below.where, listing.ignored):
            listing.add(_join(name, found.path), found, split, None)
    return listing


def ignore_others(level: FolderLevel, names: Iterable[str], ignored: Ignored) -> None:
    """Counts the files that are in a place besides the folders of these names."""
    ignored.update(level.ignored)
    for found in level.beside:
        ignored.add(BESIDE, f"{level.where}/{found.path}")
    for paths in level.doubled.values():
        for path in paths:
            ignored.add(BESIDE, path)
    for name in level.below.keys() - names:
        place, first, count = level.below[name], "", 0
        if isinstance(place, tar_archives.Packed):  # not opened: it is one file
            ignored.add(BESIDE, place.where)
            continue
        for found in _files_beside(place, ignored):
            first = min(first or found.path, found.path)
            count += 1
        ignored.add(BESIDE, f"{place.where}/{first}", count)


def _files_beside(place: FolderTree, ignored: Ignored) -> Iterator[Candidate]:
    """Yields the files of a place that nothing is read of, as far as we may list it."""
    try:
        yield from place.files(ignored)
    except UnavailableError:
        raise
    except RunError:  # it is another's
        return


def photos_beside(level: FolderLevel, names: Iterable[str]) -> Iterator[str]:
    """Yields a photo of every folder that has any and another name than `names`.

    A photo is known by its extension; nothing behind the first one is listed.
    """
    for name in sorted(level.below.keys() - set(names)):
        place = level.below[name]
        if isinstance(place, tar_archives.Packed):
            photo = tar_archives.first_photo(place.where)
        else:
            paths = (found.path for found in _files_beside(place, Ignored()))
            photo = next(filter(has_photo_extension, paths), "")
        if photo:
            yield f"{name}/{photo}"


def _list_roots(
    places: Sequence[FolderTree], labelled_test: bool, layout: str
) -> Listing:
    """Lists what roots of one layout have together."""
    levels = [place.level() for place in places]
    if layout != "classes":
        levels = [tar_archives.unwrap(place, SPLITS).level() for place in places]
    splits = [level for level in levels if level.names() & set(SPLITS)]
    if layout == "classes":
        splits = []
    if layout == "splits" and not splits:
        raise RunError(
            f"IMAGES {levels[0].where} has no train/, validation/ or test/, and "
            "--layout=splits reads nothing else. Name its folders so."
        )
    if splits and len(splits) < len(levels):
        other = next(level for level in levels if level not in splits)
        raise RunError(
            f"IMAGES {splits[0].where} has train/, validation/ or test/, and "
            f"{other.where} has none of them. Name roots of one layout, or make two "
            "datasets."
        )
    if layout == "auto":
        for level in levels:
            _refuse_doubtful(level)
    listing = Listing("splits" if splits else "classes", carved=not splits)
    for level in levels:
        if splits:
            _list_splits(level, labelled_test, listing)
        else:
            for found in _list_classes(level, "train", listing):
                listing.ignored.add(BESIDE, f"{level.where}/{found.path}")
    return listing


def _refuse_doubtful(level: FolderLevel) -> None:
    """Refuses folders that may be splits or classes; before anything is listed."""
    splits = [split for split in SPLITS if split in level.names()]
    if splits:
        if beside := list(photos_beside(level, SPLITS)):
            raise RunError(_doubt(level, splits, beside))
        return
    meant = {name: _MEANT.get(name.lower()) for name in level.below}
    # One called like training, or none called otherwise.
    if "train" in meant.values() or (meant and None not in meant.values()):
        beside = list(photos_beside(level, ()))
        if beside:
            raise RunError(_doubt(level, [], beside))


def _doubt(level: FolderLevel, splits: Sequence[str], photos: Sequence[str]) -> str:
    """Says what folders may be, and how to tell."""
    names = [photo.partition("/")[0] for photo in photos]
    found = ", ".join(printable(f"{name}/") for name in names[:5])
    more = f" ({len(names)} in all)" if len(names) > 5 else ""
    renames = ", ".join(
        f"{printable(name)}/ to {split}/"
        for name in names
        if (split := _MEANT.get(name.lower()))
    )
    what = f"has folders with photos that are called like splits: {found}{more}"
    if splits:
        what = (
            f"has {', '.join(f'{split}/' for split in splits)}, and beside "
            f"{'them' if len(splits) > 1 else 'it'} other folders with photos: {found}"
            f"{more}"
        )
    advice = [f"If they are splits, rename {renames}."] if renames else []
    advice.append("If all are classes: --layout=classes.")
    if splits:
        advice.append("If the others are to be left out: --layout=splits.")
    return (
        f"IMAGES {level.where} {what}, such as {printable(photos[0])}. "
        f"{' '.join(advice)}"
    )


def _list_splits(root: FolderLevel, labelled_test: bool, listing: Listing) -> None:
    """Adds the split folders; what stands beside them is ignored."""
    root.refuse(SPLITS)
    ignore_others(root, SPLITS, listing.ignored)
    splits = [split for split in SPLITS if split in root.below]
    for found in root.escaping:  # out of every split: it must be counted in one
        listing.add(found.path, found, splits[0], "")
    for split in splits:
        place, before = root.below[split], len(listing)
        if split == "test" and not labelled_test:
            listing.extend(list_unlabelled(place, split))
        else:
            level, problem = place.level(), f"outside the class folders of {split}/"
            outside = _list_classes(level, split, listing)
            for found in outside:
                found = found._replace(problem=("no_class", problem))
                listing.add(found.path, found, split, "")
            if outside and not level.below:
                raise RunError(
                    f"{place.where} has {len(outside):,} photos, such as "
                    f"{printable(outside[0].path)}, and no class folders, which a "
                    f"labelled split has: {split}/CLASS/photo.jpg. If {split!r} is a "
                    "class itself: --layout=classes."
                )
        if len(listing) == before:
            raise RunError(
                f"{place.where} holds no photo. Add some, or remove the folder."
            )


def _list_classes(level: FolderLevel, split: str, listing: Listing) -> list[Candidate]:
    """Adds the class folders of a place; returns the photos outside them."""
    level.refuse(level.names())
    listing.ignored.update(level.ignored)
    for found in level.escaping:
        listing.add(found.path, found, split, "")
    empty = []
    inner: set[str] | None = None  # what all class folders hold in place of photos
    for name, place in level.below.items():
        _refuse_line_break(name, place)
        files = list(
            _photos(place.files(listing.ignored), place.where, listing.ignored)
        )
        _refuse_whole(name, place, files, level)
        for found in files:
            listing.add(_join(name, found.path), found, split, name)
        empty += [] if files else [printable(name)]
        if inner is None or inner:
            folders = _folders(files)
            inner = folders if inner in (None, folders) else set()
    if inner:
        listing.warnings.append(_only_folders(level, inner))
    if empty:
        raise RunError(
            f"{level.where} has class folders without a photo: "
            f"{', '.join(sorted(empty))}. Add photos, or remove the folders."
        )
    return list(_photos(level.beside, level.where, listing.ignored))


def _folders(files: Iterable[Candidate]) -> set[str]:
    """Returns the folders that hold all of the files; none where one is in none."""
    folders = set()
    for found in files:
        name, inner, _ = found.path.partition("/")
        if not inner:
            return set()
        folders.add(name)
    return folders


def _only_folders(level: FolderLevel, inner: Iterable[str]) -> str:
    """Says that class folders hold folders alone, which may be the classes."""
    some = ", ".join(map(printable, sorted(inner)[:5]))
    names = sorted(level.below)
    which = "each class folder holds" if len(names) > 1 else f"{shown(names[0])} holds"
    return (
        f"in {printable(level.where)} {which} no photo itself, but the folders {some}. "
        f"Here {', '.join(map(shown, names[:5]))} {'are' if len(names) > 1 else 'is'} "
        "taken for the class of all that is below; if the folders inside are the "
        f"classes, or splits, name {printable(level.below[names[0]].where)} as IMAGES."
    )


def _photos(
    files: Iterable[Candidate], where: str, ignored: Ignored
) -> Iterator[Candidate]:
    """Yields the files whose names allow them to be photos; counts the others."""
    for found in files:
        if is_no_photo(found.path):
            ignored.add(NO_PHOTO, f"{where}/{found.path}")
        else:
            yield found


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


def _refuse_twins(named: str, refs: Iterable[ImageRef]) -> None:
    """Refuses two ids that look the same; only letters beyond ASCII have two forms."""
    seen: dict[tuple[str, str], str] = {}
    for ref in refs:
        if not ref.id.isascii():
            first = seen.setdefault((ref.split, spelling(ref.id)), ref.id)
            if first != ref.id:
                raise RunError(
                    f"{named}: two images of {ref.split} have names that look the "
                    f"same, and are not: {shown(first)} and {shown(ref.id)}. Rename or "
                    "remove one of them."
                )


def _refuse_nothing(named: str, listing: Listing) -> NoReturn:
    counts = f"({len(listing.rejects)} rejected, {len(listing.ignored)} ignored)"
    examples = [f"{one.id}: {one.reason}, {one.detail}" for one in listing.rejects[:1]]
    examples += [str(listing.ignored)] * bool(listing.ignored)
    found = f" What is there: {'; '.join(examples)}." if examples else ""
    raise RunError(
        f"{named} holds no image file in train/, validation/, test/ or a class folder "
        f"{counts}.{found} Put the photos there, one folder per class."
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
