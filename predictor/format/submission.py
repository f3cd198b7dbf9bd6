"""Kaggle's landmark submission: a row for every id of the sample, in its order."""

import csv
import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence

from pipeline.sources.names import stem
from pipeline.sources.user_text import Table
from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import ResumableFolder
from pipeline.system import console
from pipeline.system.errors import RunError
from predictor.format import file_format, predictions_manifest
from predictor.format.csv_files import SUBMISSION_COLUMNS
from predictor.format.predictions_manifest import Entry


def read_sample(path: AnyPath) -> list[str]:
    """The ids that a submission has to have, in order.

    Raises:
        RunError: it is no CSV with a column `id`, has no row, or an id twice.
    """
    flag = f"--sample_submission={path}"
    ids: dict[str, int] = {}  # line by id
    for line, (image_id,) in Table(path, flag, required=["id"]).rows():
        if (first := ids.setdefault(image_id, line)) != line:
            raise RunError(
                f"{flag} has the id {image_id!r} in the lines {first} and {line}. "
                "Remove one of them."
            )
    return list(ids)


def row_id(image_id: str, rows: Collection[str]) -> str:
    """Returns the id of the row that an image has in a submission.

    Args:
        image_id: of the image.
        rows: ids of a sample, or of a finished submission: an id that is one of them is
            the row's, too. Otherwise the row has the stem.
    """
    return image_id if image_id in rows else stem(image_id)


def images_by_row(ids: Iterable[str], sample: Sequence[str] | None) -> dict[str, str]:
    """Returns the id of the image of each row, for rows that have an image.

    Args:
        ids: of the images.
        sample: the ids of the rows; None for the stem of each image.

    Raises:
        RunError: two images have the same row, or none has a row of the sample.
    """
    rows = frozenset(sample or ())
    found: dict[str, str] = {}
    for image_id in ids:
        row = row_id(image_id, rows)
        if row in found:
            raise RunError(
                f"the images {found[row]!r} and {image_id!r} would both be row {row!r} "
                "of the submission, which has one for each stem: the name of an image "
                "without its folders and extension. Rename one of them, or use another "
                "--format."
            )
        found[row] = image_id
    if sample and found and rows.isdisjoint(found):
        row, image_id = next(iter(found.items()))
        raise RunError(
            f"none of the {len(sample)} ids of --sample_submission, such as "
            f"{sample[0]!r}, is one of the {len(found)} images, or the stem of one, "
            f"such as {row!r} of {image_id!r}. Is it the sample of another competition?"
        )
    return found


def assemble(
    parts: Iterable[AnyPath],
    sample: Sequence[str] | None,
    output: ResumableFolder,
    compression: str,
) -> Entry:
    """Commits the submission, of the rows of all parts.

    Args:
        parts: CSVs `id,landmarks`, whose ids are those of the images.
        sample: the ids to have; without it, the stem of every image's id.
        output: PREDICTIONS.
        compression: one of file_format.COMPRESSIONS.

    Raises:
        RunError: images share a stem, or none of them is in the sample.
    """
    landmarks = {image_id: text for part in parts for image_id, text in _rows(part)}
    images = images_by_row(landmarks, sample)
    ids = list(images) if sample is None else sample
    digest = hashlib.sha256()
    name = predictions_manifest.shard_name(0, 1, file_format.EXTENSIONS[compression])
    with output.commit(name) as file:
        whole = file_format.Output(file)
        with file_format.compressed(compression, whole) as text:
            text.write(atomic.csv_line(SUBMISSION_COLUMNS).encode())
            for image_id in ids:
                digest.update(image_id.encode() + b"\0")
                known = landmarks[images[image_id]] if image_id in images else ""
                text.write(atomic.csv_line([image_id, known]).encode())
    console.say(_in_words(ids, images))
    return Entry(name, len(ids), whole.length, whole.crc32c, digest.hexdigest(), 0)


def _rows(part: AnyPath) -> Iterator[list[str]]:
    with part.open(encoding="utf-8", newline="") as lines:
        rows = csv.reader(lines)
        next(rows)
        yield from rows


def _in_words(ids: Sequence[str], images: Collection[str]) -> str:
    """Says how many rows have a prediction, and names one that has none."""
    empty = [row for row in ids if row not in images]
    unused = len(images) - (len(ids) - len(empty))
    example = f"; the others are empty, such as {empty[0]!r}" if empty else ""
    more = f"; {unused} images have no row in the sample" if unused else ""
    return (
        f"{len(ids) - len(empty)} of {len(ids)} submission rows have a prediction"
        f"{example}{more}"
    )
