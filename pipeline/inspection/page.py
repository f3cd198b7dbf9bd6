"""inspect.html: a DATASET for people, in one file, by page.html.j2."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.dataset.manifest import ImageContract
from pipeline.images import conversion, image_bytes, isolation
from pipeline.inspection import figures
from pipeline.inspection.facts import Facts
from pipeline.inspection.near_copies import NearCopies, Shown
from pipeline.inspection.originals import Thumbnail
from pipeline.inspection.samples import Sample
from pipeline.page import pictures, rendering
from pipeline.shards.duplicates import Source
from pipeline.sources import listing
from pipeline.sources.listing import KINDS

_REASONS = {
    **conversion.REASONS,
    **image_bytes.REASONS,
    **listing.REASONS,
    **isolation.REASONS,
}
MADE_BY = "make inspect"
_TEMPLATE = Path(__file__).with_name("page.html.j2")
_MOST = 3_000_000  # bytes of all photos, before base64 makes 4 MB of them
_SIDE = 240  # pixels of a stored picture that is shown; a larger one is made smaller
_ROWS = 10  # of a table
_NAMES = 100  # of classes in a list
NEAR_GROUPS = 24  # of pictures that look the same
GROUPS = 12  # of copies, or of classes alike
_TEXT = 300  # letters of a name or a detail that are shown


class Picture(NamedTuple):
    """A photo of the page.

    Attributes:
        id: of the image.
        stored: the JPEG that the model sees; None where it has none.
        original: None where it is not at hand.
    """

    id: str
    stored: bytes | None
    original: Thumbnail | None


class Copies(NamedTuple):
    """Photos that are byte for byte the same.

    Attributes:
        images: where they are, and as what.
        picture: of them; None where none is at hand.
    """

    images: list[Source]
    picture: Thumbnail | None


@dataclass
class Budget:
    """The bytes that photos may still take, so that the page stays small."""

    left: int = _MOST
    dropped: int = 0

    def take(self, found: Iterable[Picture]) -> Iterator[Picture]:
        """Yields pictures as long as there is room."""
        for picture in found:
            size = len(picture.stored or b"")
            size += len(picture.original.jpeg) if picture.original else 0
            if size > self.left:
                self.dropped += 1
                continue
            self.left -= size
            yield picture


def html(
    facts: Facts,
    samples: Mapping[str, Sample],
    pictures_of: Mapping[str, list[list[Picture]]],
    rejects: Mapping[str, list[Picture]],
    copies: Mapping[str, list[Copies]],
    near: NearCopies | None,
    *,
    at_hand: bool,
) -> str:
    """Returns the page.

    Args:
        facts: what is known without the shards.
        samples: what was read of each split.
        pictures_of: of each split, the pictures of every class of its sample.
        rejects: pictures of some rejects, by reason.
        copies: the first groups of copies, `across` splits and with `two_labels`.
        near: pictures that look the same; None where they were not looked for.
        at_hand: whether originals were found.
    """
    budget = Budget()
    shown = {
        split: [
            (found, list(budget.take(photos)))
            for found, photos in zip(samples[split].classes, every, strict=True)
        ]
        for split, every in pictures_of.items()
    }
    of_reason = {
        reason: list(budget.take(photos)) for reason, photos in rejects.items()
    }
    classes, order = facts.dataset.classes, facts.largest_first
    image = facts.dataset.image
    return rendering.render(
        _TEMPLATE,
        made_by=MADE_BY,
        title=f"DATASET {facts.dataset.folder}",
        facts=facts,
        samples=samples,
        shown=shown,
        of_reason=of_reason,
        details=_details(facts),
        copies=copies,
        near=near,
        near_shown=[] if near is None else _near(near, budget),
        reasons=_REASONS,
        at_hand=at_hand,
        dropped=budget.dropped,
        charts=_charts(facts),
        image=image,
        image_in_words=_image_in_words(image),
        smaller=max(image.height, image.width) > _SIDE,
        side=_SIDE,
        kinds=KINDS,
        largest=[(classes[n], facts.per_class[:, n].tolist()) for n in order[:_ROWS]],
        smallest=[
            (classes[n], facts.per_class[:, n].tolist())
            for n in order[max(_ROWS, len(order) - _ROWS) :]
        ],
        names_shown=_NAMES,
        groups_shown=GROUPS,
        rows_shown=_ROWS,
        text_shown=_TEXT,
    )


def stored_picture(jpeg: bytes) -> bytes:
    """Returns a stored picture as it is, or a smaller one of a large one."""
    return pictures.small_jpeg(jpeg, side=_SIDE)


def _near(near: NearCopies, budget: Budget) -> list[list[tuple[Picture, Shown]]]:
    """Returns the pictures of the first groups, as far as there is room."""
    return [
        [
            (picture, shown)
            for shown in group
            for picture in budget.take(
                [Picture(shown.record.id, stored_picture(shown.record.encoded), None)]
            )
        ]
        for group in near.shown
    ]


def _details(facts: Facts) -> dict[str, list[tuple[str, str, str]]]:
    """Returns (split, id, detail) of the first rejects of each reason."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for reject in facts.rejects:
        rows = found.setdefault(reject.reason, [])
        if len(rows) < _ROWS:
            rows.append((reject.split, reject.id, reject.detail))
    return found


def _charts(facts: Facts) -> dict[str, Any]:
    """Returns the charts; None where there is nothing to draw."""
    made: dict[str, Any] = {"long_tail": None}
    if len(facts.dataset.classes) > _ROWS and facts.frequency.any():
        made["long_tail"] = figures.long_tail(facts.frequency, facts.counted)
    for kind, draw in (
        ("height_x_width", figures.sizes),
        ("aspect", figures.aspects),
        ("bytes", figures.bytes_of_files),
        ("format", figures.formats),
    ):
        found = facts.histogram(kind)
        made[kind] = draw(found) if found else None
    return made


def _image_in_words(image: ImageContract) -> str:
    rule = {
        "stretch": "stretched to that size, whatever their aspect ratio",
        "crop": "cropped around the centre to that aspect ratio",
        "pad": "with black borders to that aspect ratio",
    }[image.resize]
    chroma = ":".join(image.chroma)  # 4:2:0
    return (
        f"{image.width} × {image.height} pixels (width × height), {rule}; "  # noqa: RUF001
        f"JPEG of quality {image.quality}, {chroma}"
    )
