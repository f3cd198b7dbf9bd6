"""Kaggle's landmark submission: a row for every id of the sample, in its order."""

import csv
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

import pandas as pd

from pipeline import files, io_errors
from pipeline.console import RunError
from pipeline.objects import AnyPath
from pipeline.workfolder import WorkFolder
from predictor import csv_shards, formats
from predictor.csv_shards import Entry
from predictor.csv_text import SUBMISSION_COLUMNS


def read_sample(path: AnyPath) -> list[str]:
    """The ids that a submission has to have, in order.

    Raises:
        RunError: it is no CSV with a column `id`, has no ids, or one of them twice.
    """
    try:
        frame = io_errors.insist(
            path,
            lambda: pd.read_csv(path, usecols=["id"], dtype=str, keep_default_na=False),
        )
    except (OSError, ValueError) as error:  # also: not UTF-8, and no column `id`
        raise RunError(
            f"--sample_submission={path} cannot be read: {error}. It takes the sample "
            "of the competition, a CSV with a column `id`."
        ) from error
    ids = frame["id"]
    if ids.empty:
        raise RunError(f"--sample_submission={path} has no rows. Download it again.")
    if (repeated := ids[ids.duplicated()]).size:
        raise RunError(
            f"--sample_submission={path} has {repeated.iloc[0]!r} more than once "
            f"({repeated.size} repetitions in all). Remove them."
        )
    return list(ids)


def assemble(
    parts: Iterable[AnyPath],
    sample: Sequence[str] | None,
    output: WorkFolder,
    compression: str,
) -> Entry:
    """Commits the submission, of the rows of all parts.

    Args:
        parts: CSVs `id,landmarks`, whose ids are those of the images.
        sample: the ids to have; without it, the stem of every image's id.
        output: PREDICTIONS.
        compression: one of formats.COMPRESSIONS.

    Raises:
        RunError: images share a stem, or none of them is in the sample.
    """
    landmarks = _by_stem(row for part in parts for row in _rows(part))
    ids = list(landmarks) if sample is None else sample
    known = sum(image_id in landmarks for image_id in ids)
    if ids and not known:
        raise RunError(
            f"none of the {len(ids)} ids of --sample_submission, such as {ids[0]!r}, "
            f"is the stem of one of the {len(landmarks)} ids of images, such as "
            f"{next(iter(landmarks), '')!r}. Is it the sample of another competition?"
        )
    digest = hashlib.sha256()
    name = csv_shards.shard_name(0, 1, formats.EXTENSIONS[compression])
    with output.commit(name) as file:
        whole = formats.Output(file)
        with formats.compressed(compression, whole) as text:
            text.write(files.csv_line(SUBMISSION_COLUMNS).encode())
            for image_id in ids:
                digest.update(image_id.encode() + b"\0")
                row = [image_id, landmarks.get(image_id, "")]
                text.write(files.csv_line(row).encode())
    print(f"{known} of {len(ids)} rows of the submission say something")
    return Entry(name, len(ids), whole.length, whole.crc32c, digest.hexdigest(), 0)


def _rows(part: AnyPath) -> Iterator[list[str]]:
    with part.open(encoding="utf-8", newline="") as lines:
        rows = csv.reader(lines)
        next(rows)
        yield from rows


def _by_stem(rows: Iterable[list[str]]) -> dict[str, str]:
    """`landmarks` by the stem of the id: what stands between the last / and the dot."""
    found: dict[str, str] = {}
    for image_id, landmarks in rows:
        stem = PurePosixPath(image_id).stem
        if stem in found:
            raise RunError(
                f"two images have the stem {stem!r}, one of them {image_id!r}; a "
                "submission has a row for each stem. Rename one, or use another "
                "--format."
            )
        found[stem] = landmarks
    return found
