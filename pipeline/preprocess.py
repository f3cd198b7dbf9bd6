"""IMAGES → DATASET: list, plan, have the job done, report."""

import functools
import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pipeline.dataset import closing_summary, manifest
from pipeline.dataset.manifest import SPLITS
from pipeline.images import conversion
from pipeline.options import ShardsOptions
from pipeline.runners.local import LocalRunner
from pipeline.runners.remote_shards import RemoteShardRunner
from pipeline.shards import finalize, plan
from pipeline.sources import layout
from pipeline.sources.listing import Listing
from pipeline.storage import folder_lock
from pipeline.storage.atomic import log_path
from pipeline.storage.noted_error import raising_noted_error
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import WORK, ResumableFolder
from pipeline.system.errors import RunError


def run(options: ShardsOptions) -> None:
    """Makes a dataset, or goes on where an earlier run of the same job stopped.

    Raises:
        RunError: the images or the folder are at fault, or the runner.
        UsageError: Beam does not know the runner, or an option.
    """
    started = time.monotonic()
    images, dataset, contract = options.images, options.dataset, options.contract
    roots = images if isinstance(images, Sequence) else [images]
    _refuse_inside(dataset, roots, named=options.manifest is not None)
    # Before the listing, which may take minutes: a second run is refused at once.
    with folder_lock.held(dataset, notes=WORK):
        folders = {"images": roots, "dataset": [dataset]}
        new_runner = (
            LocalRunner
            if options.runner == "local"
            else functools.partial(RemoteShardRunner, options.runner, folders=folders)
        )
        shard_runner = new_runner(
            workers=options.workers,
            image_timeout=options.image_timeout,
            beam_arguments=options.beam_arguments,
        )
        listing = layout.list_images(
            images,
            csv=options.manifest,
            validation_fraction=options.validation_fraction,
            seed=options.seed,
            labelled_test=options.labelled_test,
            classes=options.classes,
        )
        if listing.ignored:
            named = ", ".join(sorted(listing.ignored)[:5])
            print(f"ignored: {len(listing.ignored)} files or folders, such as {named}")
        slices = plan.cut_slices(listing, count=options.shards, seed=options.seed)
        key = _key(listing, slices, options)
        folder = ResumableFolder(dataset, manifest=manifest.MANIFEST)
        parts = sum(len(refs) for refs in slices.values())
        if options.overwrite and not folder.resumes(key, parts=parts):
            folder.clear(manifest.SHARD_PATTERN, manifest.CLASSES, manifest.REJECTS)
        if folder.start(key):
            manifest.load(dataset)  # or names the shard that is gone since
            print(f"DATASET {dataset} is complete already; nothing to do.")
            return
        planned = plan.write_plan(dataset, slices, listing.classes)
        finalize.prepare(
            dataset,
            listing,
            planned,
            max_reject_fraction=options.max_reject_fraction,
        )
        complete = True
        with raising_noted_error(folder):
            complete = shard_runner.write(dataset, planned, contract)
        if complete:
            _report(dataset, time.monotonic() - started)


def _refuse_inside(dataset: AnyPath, roots: Sequence[AnyPath], *, named: bool) -> None:
    """Refuses a dataset among the images: a listing would take it for a class.

    Args:
        dataset: perhaps not there yet.
        roots: of the images.
        named: a CSV names the images, so that splits have no folders.
    """
    around = dataset.resolve().parents
    for root in roots:
        if root.resolve() not in around or not root.is_dir():
            continue
        names = {path.name.partition(".")[0] for path in root.iterdir()}  # or a .tar
        splits = [root / name for name in SPLITS if name in names and not named]
        # Beside the folders of splits nothing is listed.
        if not splits or any(split.resolve() in around for split in splits):
            raise RunError(
                f"DATASET {dataset} is among the images of {root}. Name a folder "
                "elsewhere."
            )


def _key(
    listing: Listing,
    slices: Mapping[str, plan.Slices],
    options: ShardsOptions,
) -> dict[str, Any]:
    """Everything that decides the bytes of the dataset; part of dataset.json."""
    refs = sorted((ref.split, ref.id, ref.label or "") for ref in listing.refs)
    return {
        "version": manifest.VERSION,
        "image": asdict(options.contract),
        "classes": manifest.classes_entry(listing.classes),
        "source": {
            "layout": listing.layout,
            "images": len(refs),
            "images_sha256": _sha256_json(refs),
            "seed": options.seed,
            "shards": {split: len(parts) for split, parts in slices.items()},
            "validation_fraction": float(options.validation_fraction)
            if listing.carved
            else None,
        },
        "versions": conversion.versions(),
    }


def _sha256_json(values: Iterable[Sequence[str]]) -> str:
    """The SHA-256 of the JSON of a list, without all of it in memory."""
    digest = hashlib.sha256(b"[")
    for number, value in enumerate(values):
        digest.update((", " * bool(number) + json.dumps(value)).encode())
    digest.update(b"]")
    return digest.hexdigest()


def _report(dataset: AnyPath, seconds: float) -> None:
    """Prints the closing summary, and logs it beside the dataset."""
    text = "\n".join(closing_summary.lines(dataset, manifest.read(dataset), seconds))
    print(text)
    with log_path(dataset).open("a") as log:
        print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=log)
