"""DATASET → a page to look at, or one record as text."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from pipeline.dataset.ledger import Reject
from pipeline.inspection import near_copies, one_image, page, samples
from pipeline.inspection.facts import Facts
from pipeline.inspection.originals import Originals, PhotoDecoder, Thumbnail
from pipeline.inspection.page import Copies, Picture
from pipeline.inspection.samples import Sample
from pipeline.options import InspectOptions
from pipeline.page import rendering
from pipeline.shards.duplicates import Source
from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath
from pipeline.system import console
from pipeline.system.errors import UsageError

# Makes the original of (split, id) small; None where it is not at hand.
Photos = Callable[[str, str], Thumbnail | None]

_TRIED = 24  # rejects of a reason that are tried for a picture
_SHOWN = 8  # of them
_OF_A_GROUP = 6  # copies of one photo


def run(options: InspectOptions) -> None:
    """Writes the page of a dataset, and says where it is; or prints one record.

    It goes by dataset.json and the lists beside it, and reads a few shards in part: a
    million images take no longer than a thousand. For near copies it reads all shards.

    Raises:
        RunError: the dataset is not complete or damaged; or a file of others is where
            the page is to be.
        UsageError: the page would be in the dataset.
    """
    dataset = options.dataset
    if options.id:
        facts = Facts.read(dataset)
        found = Originals.of(dataset, facts.value, options.images)
        text = "\n".join(one_image.lines(facts, found, options.id))
        console.say(text, matters=True)
        return
    output = options.page or atomic.beside(dataset, ".inspect.html")
    _refuse_inside(output, dataset)
    rendering.refuse_other_file(
        output, made_by=page.MADE_BY, advice="remove it, or name another (--inspect)"
    )
    facts = Facts.read(dataset)
    found = Originals.of(dataset, facts.value, options.images)
    frequency = facts.frequency.tolist()
    read = {
        split: samples.read(facts.dataset, split, frequency)
        for split in facts.dataset.splits
    }
    near = None
    if options.near_copies:
        near = near_copies.find(
            facts.dataset,
            workers=options.workers,
            most=page.NEAR_GROUPS,
            of_each=_OF_A_GROUP,
        )
    with contextlib.closing(PhotoDecoder()) as decoder:

        def photos(split: str, image_id: str) -> Thumbnail | None:
            return decoder.thumbnail(found.find(split, image_id))

        pictures = _pictures(read, photos)
        shown = (
            one for of_split in pictures.values() for row in of_split for one in row
        )
        text = page.html(
            facts,
            read,
            pictures,
            _rejects(facts, photos),
            _copies(facts, photos),
            near,
            at_hand=any(one.original for one in shown),
        )
    rendering.write(output, text)
    counts = facts.totals
    console.conclude(
        f"DATASET {dataset}: {counts['listed']:,} images listed = "
        f"{counts['written']:,} written + {counts['rejected']:,} rejected; look at "
        f"{output}"
    )


def _refuse_inside(output: Path, dataset: AnyPath) -> None:
    """Refuses a page among the files of the dataset, which holds no others."""
    if dataset.resolve() in output.resolve().parents:
        raise UsageError(
            f"--inspect={output} is in DATASET {dataset}, which holds its own files "
            "and no others. Name a file elsewhere."
        )


def _pictures(
    read: Mapping[str, Sample], photos: Photos
) -> dict[str, list[list[Picture]]]:
    """Returns the pictures of each class of each split, with their originals."""
    return {
        split: [
            [
                Picture(
                    record.id,
                    page.stored_picture(record.encoded),
                    photos(split, record.id),
                )
                for record in of_class.records
            ]
            for of_class in sample.classes
        ]
        for split, sample in read.items()
    }


def _rejects(facts: Facts, photos: Photos) -> dict[str, list[Picture]]:
    """Returns what can be shown of the first rejects of each reason."""
    by_reason: dict[str, list[Reject]] = {}
    for reject in facts.rejects:
        first = by_reason.setdefault(reject.reason, [])
        if len(first) < _TRIED:
            first.append(reject)
    return {
        reason: list(islice(_pictures_of_rejects(first, photos), _SHOWN))
        for reason, first in by_reason.items()
    }


def _pictures_of_rejects(
    rejects: Sequence[Reject], photos: Photos
) -> Iterator[Picture]:
    for reject in rejects:
        if photo := photos(reject.split, reject.id):
            yield Picture(reject.id, None, photo)


def _copies(facts: Facts, photos: Photos) -> dict[str, list[Copies]]:
    """Returns the first groups of copies, each with a picture where one is at hand."""
    across = [
        [_named(name) for name in group]
        for group in facts.copies["across_splits"][: page.GROUPS]
    ]
    two_labels = [
        [Source(row.split, row.id, row.label) for row in group]
        for group in facts.two_labels[: page.GROUPS]
    ]
    return {
        kind: [
            Copies(group[:_OF_A_GROUP], photos(group[0].split, group[0].id))
            for group in groups
        ]
        for kind, groups in (("across", across), ("two_labels", two_labels))
    }


def _named(name: str) -> Source:
    """Returns an image by what dataset.json calls it: split/id."""
    split, _, image_id = name.partition("/")
    return Source(split, image_id, label="")
