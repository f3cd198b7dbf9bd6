"""Decoded pictures in a file on local disk, for splits larger than the memory.

    FOLDER/pixels.npy   uint8[examples, height, width, 3]
    FOLDER/labels.npy   int64[examples]
    FOLDER/cache.json   written last: what it was made from, and the checksum

Any number of runs may read a complete folder; while one fills it, it is that run's.
"""

import fcntl
import math
import os
import shutil
import weakref
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import tensorflow as tf

from pipeline import files
from pipeline.console import RunError, in_bytes
from pipeline.manifest import Dataset
from pipeline.workfolder import WorkFolder
from trainer import stores

MANIFEST = "cache.json"
PIXELS = "pixels.npy"
LABELS = "labels.npy"

_VERSION = 1
_CHECKED_TOGETHER = 1 << 24  # bytes


def on_disk(dataset: Dataset, split: str, folder: Path) -> stores.Decoded:
    """Maps the decoded pictures of a split, and fills the file before if need be.

    Args:
        dataset, split: what to decode.
        folder: on a local disk; made if it is not there.

    Raises:
        RunError: the disk is too small, another run has the folder, or it holds
            something that is no cache.
    """
    folder.mkdir(parents=True, exist_ok=True)
    work = WorkFolder(folder, manifest=MANIFEST)
    key = _key(dataset, split)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _claim(descriptor, work, key, dataset, split)
        store = stores.Decoded(_map(folder), np.load(folder / LABELS))
    except BaseException:
        os.close(descriptor)
        raise
    weakref.finalize(store, os.close, descriptor)  # the lock is held until then
    return store


def _claim(
    descriptor: int, work: WorkFolder, key: dict[str, Any], dataset: Dataset, split: str
) -> None:
    """Makes the folder complete, and locks it for a reader.

    The locks are the kernel's: a killed process holds none.
    """
    if _locks(descriptor, fcntl.LOCK_EX):
        _make_whole(work, key, dataset, split)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    elif not _locks(descriptor, fcntl.LOCK_SH) or work.other(key):
        raise RunError(
            f"another run uses the cache in {work.folder}. Wait for its end, or name "
            "another --cache_dir."
        )
    else:
        print(f"the cache in {work.folder} is complete; another run reads it, too")


def _key(dataset: Dataset, split: str) -> dict[str, Any]:
    """What decides the pictures; the decoder is TensorFlow's."""
    return {
        "version": _VERSION,
        "dataset": dataset.fingerprint,
        "split": split,
        "tensorflow": tf.__version__,
    }


def _locks(descriptor: int, kind: int) -> bool:
    """Takes a lock, if nobody is in the way."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make_whole(
    work: WorkFolder, key: dict[str, Any], dataset: Dataset, split: str
) -> None:
    """Keeps what an earlier run made of the same, or fills the folder anew."""
    if stale := work.other(key):
        print(f"the cache in {work.folder} is of something else ({stale}): made anew")
        work.clear(PIXELS, LABELS)
    if work.start(key):
        if _is_whole(work):
            print(f"the cache in {work.folder} is complete")
            return
        print(f"the cache in {work.folder} is damaged: made anew")
        work.clear(PIXELS, LABELS)
        work.start(key)
    _fill(work, key, dataset, split)


def _fill(work: WorkFolder, key: dict[str, Any], dataset: Dataset, split: str) -> None:
    image, examples = dataset.image, dataset.split(split).examples
    shape = (examples, image.height, image.width, 3)
    _look_at_disk(work.folder, math.prod(shape))
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    labels, checksum = [], 0
    with work.commit(PIXELS) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for pictures, classes in stores.decoded(dataset, split):
            file.write(pictures.data)
            checksum = google_crc32c.extend(checksum, pictures.tobytes())
            labels.append(classes)
    with work.commit(LABELS) as file:
        np.save(file, np.concatenate(labels))
    work.finish({**key, "crc32c": checksum})


def _look_at_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RunError(
            f"the disk of {folder} has {in_bytes(free)} free, and the decoded pictures "
            f"need {in_bytes(needed)}. Free some, name another --cache_dir, or use "
            "--cache=none."
        )


def _is_whole(work: WorkFolder) -> bool:
    """Reads all of it: at some GB a second, and then it is in the page cache."""
    try:
        pixels, labels = _map(work.folder), np.load(work.folder / LABELS)
    except (OSError, ValueError):  # gone, or cut short
        return False
    checksum = 0
    for start in range(0, pixels.size, _CHECKED_TOGETHER):
        part = pixels.reshape(-1)[start : start + _CHECKED_TOGETHER]
        checksum = google_crc32c.extend(checksum, part.tobytes())
    promised = files.read_json(work.manifest)["crc32c"]
    return len(labels) == len(pixels) and checksum == promised


def _map(folder: Path) -> np.ndarray:
    """Writable, as TensorFlow wants it, though nothing writes.

    Shared: a private mapping of this size would have to fit into memory and swap.
    """
    return np.lib.format.open_memmap(folder / PIXELS, mode="r+")
