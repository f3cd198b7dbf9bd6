"""What is added to a finished dataset: which images, and what it was before.

The lists of the dataset are replaced before dataset.json is. So that a run that was
killed in between can be gone on with, or withdrawn, they are kept:

    _work/base.json         the text of classes.txt, rejects.csv and conflicts.csv
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.dataset import ledger, manifest, record
from pipeline.dataset.ledger import Ledger, Reject
from pipeline.dataset.manifest import (
    CLASSES,
    CONFLICTS,
    MANIFEST,
    REJECTS,
    ImageContract,
)
from pipeline.images import conversion, image_bytes
from pipeline.shards import duplicates
from pipeline.shards.duplicates import Conflict
from pipeline.sources import names
from pipeline.sources.listing import ImageRef, Listing
from pipeline.storage import atomic, folder_lock
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import WORK, ResumableFolder, difference
from pipeline.system import console, io_errors
from pipeline.system.errors import RunError

_NAMED = 3  # examples in a line
_TOGETHER = (
    "Restore it; or name the old photos and the new ones together: IMAGES=OLD,NEW."
)

Labels = dict[str, dict[str, str]]  # class name by id, by split


@dataclass(frozen=True)
class Base:
    """A dataset before a generation is added to it.

    Attributes:
        folder: DATASET.
        value: its dataset.json.
        lists: the text of each list beside the shards, by file name.
    """

    folder: AnyPath
    value: Mapping[str, Any]
    lists: Mapping[str, str]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; the position is the label."""
        return tuple(self.lists[CLASSES].split("\n")[:-1])

    @property
    def rejects(self) -> list[Reject]:
        """The rows of rejects.csv."""
        return ledger.parse_rejects(self.lists[REJECTS])

    @property
    def conflicts(self) -> list[Conflict]:
        """The rows of conflicts.csv."""
        return duplicates.parse_conflicts(self.lists.get(CONFLICTS, ""))

    @property
    def ledger(self) -> Ledger:
        """The account of its images."""
        return Ledger.from_manifest(self.value, self.rejects)

    @property
    def generations(self) -> list[dict[str, Any]]:
        """The entries of those that were added, in order."""
        return list(self.value["source"].get("generations", []))

    def refuse_other(
        self,
        listing: Listing,
        contract: ImageContract,
        *,
        seed: int,
        validation_fraction: float,
        class_list: AnyPath | None,
    ) -> None:
        """Refuses images that would not be those of one run with the same flags.

        Args:
            listing: all of IMAGES.
            contract: of the images to be written.
            seed: of the hash that chooses what validates.
            validation_fraction: of each class, where no splits are given.
            class_list: --classes, which `listing.classes` are then.

        Raises:
            RunError: image size, quality, layout, seed, fraction or decoders are
                others; test is labelled in one of both; labels are not those of the
                class list.
        """
        source = self.value["source"]
        here = {
            "image": contract.to_json(),
            "source": {
                "layout": listing.layout,
                "seed": seed,
                "validation_fraction": float(validation_fraction)
                if listing.carved
                else None,
            },
            "versions": conversion.versions(),
        }
        there = {
            "image": self.value["image"],
            "source": {name: source[name] for name in here["source"]},
            "versions": self.value["versions"],
        }
        if different := difference(there, here):
            raise RunError(
                f"DATASET {self.folder} was made otherwise: {different}. Add to it "
                "with the flags and versions that it was made with, or make another "
                "DATASET."
            )
        if listing.layout == "splits":
            self._refuse_other_test(listing)
        if class_list:
            self._refuse_other_labels(listing.classes, class_list)

    def _refuse_other_test(self, listing: Listing) -> None:
        """Refuses a split that would be labelled in part."""
        ledger = self.value["ledger"]["splits"]
        before = {bool(name) for name in ledger.get("test", {"classes": ()})["classes"]}
        labelled = True in before  # "" is the class of what has none
        for ref in listing.refs:
            if before and ref.split == "test" and bool(ref.label) != labelled:
                raise RunError(
                    f"test has {'' if labelled else 'no '}labels in DATASET "
                    f"{self.folder}, and {'none' if labelled else 'some'} here, as of "
                    f"{names.shown(ref.id)}. Give --labelled_test if and only if "
                    "DATASET was made with it."
                )

    def _refuse_other_labels(self, given: tuple[str, ...], class_list: AnyPath) -> None:
        """Refuses a class list that gives other labels than DATASET will have."""
        for label, name in enumerate(self.classes):
            found = names.shown(given[label]) if label < len(given) else "nothing"
            if found != names.shown(name):
                raise RunError(
                    f"label {label} is {names.shown(name)} in DATASET {self.folder}, "
                    f"and {found} in --classes={class_list}. Labels do not move: give "
                    f"a list that begins with {self.folder / CLASSES}, or none."
                )


class Selection(NamedTuple):
    """What of a listing is to be added.

    Attributes:
        listing: the images, with the classes of the dataset then.
        lines: what else was found, in sentences.
    """

    listing: Listing
    lines: list[str]


def open_base(dataset: AnyPath, verb: str) -> Base:
    """Reads a dataset that this run holds and is to add to; see `read_base`.

    Raises:
        RunError: it is not complete, or the other verb has not finished.
    """
    manifest.read(dataset)
    folder = ResumableFolder(dataset, manifest=MANIFEST)
    if folder.complete():  # an earlier run may have been killed just before its end
        folder.remove_work()
        folder_lock.note_holder(dataset)
    elif folder.key()["source"]["generations"][-1]["verb"] != verb:
        raise RunError(manifest.unfinished_addition(dataset))
    return read_base(dataset)


def read_base(dataset: AnyPath) -> Base:
    """Reads a complete dataset, without what an unfinished run has changed.

    Raises:
        RunError: it is not complete, or release 0.1 has made it; a list or a shard is
            not the one that was written.
    """
    value = manifest.read(dataset)
    if "files" not in value:
        raise RunError(
            f"DATASET {dataset} was made by release 0.1, which did not note what is "
            "needed to add images. Make it again: `make shards` with ARGS=--overwrite."
        )
    path = dataset / WORK / "base.json"
    if path.is_file():
        lists = atomic.read_json(path)
    else:
        lists = {
            name: io_errors.insist(dataset / name, (dataset / name).read_bytes).decode()
            for name in value["files"]
            if (dataset / name).is_file()
        }
    for name, digest in value["files"].items():
        found = atomic.sha256_text(lists[name]) if name in lists else "of no file"
        if found != digest:
            raise RunError(
                f"{dataset / name} is not the list that {MANIFEST} describes: its "
                f"sha256 is {found}, {MANIFEST} promises {digest}. Restore it."
            )
    manifest.check_lengths(dataset, manifest.read_splits(value))
    return Base(dataset, value, lists)


def begin(base: Base, key: Mapping[str, Any]) -> None:
    """Opens the dataset for a generation, or goes on with that generation.

    An unfinished one of other images is withdrawn: dataset.json does not know it.

    Args:
        base: of `open_base`.
        key: of the dataset as it will be.
    """
    folder = ResumableFolder(base.folder, manifest=MANIFEST)
    if not folder.complete() and (different := folder.other(key)):
        console.say(
            f"{len(folder.committed())} shards of an unfinished run are removed: it "
            f"added other images ({different})"
        )
        withdraw(base)
    path = folder.work / "base.json"
    if not path.is_file():
        folder.work.mkdir(exist_ok=True)
        atomic.write_json(path, dict(base.lists), scratch=folder.work)
    folder.extend(key)


def withdraw(base: Base) -> None:
    """Removes an unfinished generation: the dataset is what dataset.json says."""
    folder = ResumableFolder(base.folder, manifest=MANIFEST)
    if not folder.complete():
        for name in (CLASSES, REJECTS, CONFLICTS):
            if name in base.lists:
                folder.write_text(name, base.lists[name])
            else:
                (base.folder / name).unlink(missing_ok=True)
        splits = manifest.read_splits(base.value).values()
        known = {shard.file for split in splits for shard in split.shards}
        shards: Iterable[AnyPath] = base.folder.glob(manifest.SHARD_PATTERN)
        for path in list(shards):
            if path.name not in known:
                path.unlink(missing_ok=True)
    folder.remove_work()
    folder_lock.note_holder(base.folder)


def unlisted(base: Base, listing: Listing) -> Selection:
    """Selects the images that a dataset has neither written nor rejected.

    Where an image is at home is decided when it is first listed: one that now lies in
    another split stays where it is.

    Args:
        base: the dataset; the ids of its shards are read.
        listing: all of IMAGES.

    Raises:
        RunError: a shard is damaged; a split is gone from IMAGES; a class seems to be
            renamed, or is spelled otherwise.
    """
    stored = _stored(base)
    classes = _all_classes(base, listing)
    if not listing.carved:
        _refuse_vanished(base, listing)
    _refuse_renamed(base, listing, stored)
    there = {split: dict(labels) for split, labels in stored.items()}
    for row in base.rejects:
        there.setdefault(row.split, {})[row.id] = row.label
    now: dict[str, set[str]] = {}
    for ref in listing.refs:
        now.setdefault(ref.split, set()).add(ref.id)
    for row in listing.rejects:
        now.setdefault(row.split, set()).add(row.id)

    def place(split: str, image_id: str) -> str:
        """The split that has an image already, or ""."""
        if image_id in there.get(split, ()):
            return split
        for other, labels in there.items():
            # With folders of splits an id names an image of each of them.
            gone = listing.carved or image_id not in now.get(other, ())
            if image_id in labels and gone:
                return other
        return ""

    new = Listing(listing.layout, ignored=listing.ignored, classes=classes)
    new.carved = listing.carved
    moved, relabelled, known = [], [], []
    for ref in listing.refs:
        split = place(ref.split, ref.id)
        if not split:
            new.refs.append(ref)
            continue
        known.append(ref)
        name = f"{split}/{ref.id}"
        if split != ref.split:
            moved.append(name)
        if there[split][ref.id] != (ref.label or ""):
            relabelled.append(name)
    new.rejects = [row for row in listing.rejects if not place(row.split, row.id)]
    seen = {(place(ref.split, ref.id), ref.id) for ref in known}
    gone = [
        f"{split}/{name}"
        for split, labels in stored.items()
        for name in labels
        if (split, name) not in seen
    ]
    rejected = {(row.split, row.id) for row in base.rejects} & seen
    lines = [
        f"{len(new):,} of {len(listing):,} images are not in DATASET {base.folder} yet"
    ]
    if added := classes[len(base.classes) :]:
        lines.append(f"new: {manifest.classes_in_words(added)}")
    lines += _told(moved, "would lie in another split if all were made at once")
    lines += _told(relabelled, "have another label now")
    written = [ref for ref in known if ref.id in stored.get(ref.split, ())]
    lines += _told(_changed(base, written), "have changed since")
    lines += _told(gone, "are not in IMAGES any more")
    if rejected:
        lines.append(
            f"{len(rejected):,} images are in {REJECTS}: `make retry` tries them again"
        )
    return Selection(new, lines)


def rejected_again(base: Base, listing: Listing) -> Selection:
    """Selects the rejects of a dataset that are there to be tried again.

    Args:
        base: the dataset.
        listing: of IMAGES, perhaps of a part of it.
    """
    by_id: dict[str, list[ImageRef]] = {}
    for ref in listing.refs:
        by_id.setdefault(ref.id, []).append(ref)
    again = Listing(listing.layout, classes=base.classes, carved=listing.carved)
    gone, relabelled = [], []
    for row in base.rejects:
        # The split was decided when it was first listed.
        found = [
            ref
            for ref in by_id.get(row.id, ())
            if listing.carved or ref.split == row.split
        ]
        if not found:
            gone.append(f"{row.split}/{row.id}")
        elif (found[0].label or "") != row.label:
            relabelled.append(f"{row.split}/{row.id}")
        else:
            again.refs.append(found[0]._replace(split=row.split))
    lines = [f"{len(again):,} of {len(base.rejects):,} rejected images are tried again"]
    lines += _told(gone, "are not in IMAGES, or cannot be used by their names")
    lines += _told(relabelled, "have another label now")
    return Selection(again, lines)


def _stored(base: Base) -> Labels:
    """Reads the ids of the images that are written."""
    splits = manifest.read_splits(base.value)
    found: Labels = {split: {} for split in splits}
    total = sum(split.examples for split in splits.values())
    with console.progress(total, "ids") as bar:
        for name, split in splits.items():
            for shard in split.shards:
                for stored in _records(base.folder / shard.file):
                    found[name][stored.id] = sys.intern(stored.text)
                bar.update(shard.examples)
    return found


def _records(path: AnyPath) -> Iterator[record.Record]:
    try:
        for stored in record.read(path):
            yield stored.record
    except record.BadRecordError as error:
        raise RunError(
            f"shard {path} is damaged ({error}). Restore it, or make the dataset again "
            "(`make shards` with ARGS=--overwrite)."
        ) from error


def _all_classes(base: Base, listing: Listing) -> tuple[str, ...]:
    """Returns the classes of the dataset, and behind them the new ones.

    These are in the order of the listing: sorted, or that of --classes.
    """
    known = set(base.classes)
    new = tuple(name for name in listing.classes if name not in known)
    if same := names.alike({*base.classes, *new})[0]:
        pair = " and ".join(map(names.shown, same[0]))
        raise RunError(
            f"IMAGES has a class that looks like one of DATASET {base.folder}, and is "
            f"not: {pair}. Give the photos of one class one name."
        )
    return base.classes + new


def _refuse_vanished(base: Base, listing: Listing) -> None:
    """Refuses a listing without a split that has images."""
    for split, entry in manifest.read_splits(base.value).items():
        if split not in listing.splits():
            raise RunError(
                f"IMAGES has no {split}, of which DATASET {base.folder} has "
                f"{entry.examples:,} images. {_TOGETHER}"
            )


def _refuse_renamed(base: Base, listing: Listing, stored: Labels) -> None:
    """Refuses a new class whose photos are those of a class that is gone."""
    here: dict[str, set[str]] = {}
    for ref in listing.refs:
        if ref.label:
            here.setdefault(ref.label, set()).update(_names(ref.id, ref.label))
    before: dict[str, list[str]] = {}
    for labels in stored.values():
        for image_id, label in labels.items():
            if label and label not in here:
                before.setdefault(label, []).append(image_id)
    added = sorted(here.keys() - set(base.classes))
    for label, ids in before.items():
        for new in added:
            if all(_names(image_id, label) & here[new] for image_id in ids):
                raise RunError(
                    f"IMAGES has no class {names.shown(label)} any more, of which "
                    f"DATASET {base.folder} has {len(ids):,} images, and the new class "
                    f"{names.shown(new)} has photos of the same names: was it renamed? "
                    f"Then give it its old name. {_TOGETHER}"
                )


def _names(image_id: str, label: str) -> set[str]:
    """Returns an id, and what it is without the folder of its class."""
    return {image_id, image_id.removeprefix(f"{label}/")}


def _changed(base: Base, refs: Sequence[ImageRef]) -> list[str]:
    """Names the photos that are newer than the dataset, where both have a time."""
    path = base.folder / MANIFEST
    if not isinstance(path, Path):
        return []
    uris = image_bytes.changed_since([ref.uri for ref in refs], path.stat().st_mtime_ns)
    return [f"{ref.split}/{ref.id}" for ref in refs if ref.uri in uris]


def _told(found: Sequence[str], what: str) -> list[str]:
    """Returns a line on images that stay as they are; none where there are none."""
    if not found:
        return []
    some = ", ".join(map(names.printable, found[:_NAMED]))
    more = ", …" if found[_NAMED:] else ""
    return [f"{len(found):,} images {what}, and stay as they are: {some}{more}"]
