"""IMAGES → DATASET: list, plan, have the job done, report."""

import functools
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from pipeline.dataset import closing_summary, manifest
from pipeline.dataset.manifest import SPLITS
from pipeline.dataset.sidecar import ShardResult
from pipeline.images import conversion
from pipeline.options import JobOptions, PlanOptions, ShardsOptions
from pipeline.runners.local import LocalRunner
from pipeline.runners.remote_shards import RemoteShardRunner
from pipeline.shards import finalize, plan, resume
from pipeline.sources import layout
from pipeline.sources.listing import Listing
from pipeline.storage import folder_lock, side_files
from pipeline.storage.noted_error import raising_noted_error
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import WORK, ResumableFolder
from pipeline.system import console
from pipeline.system.errors import RunError


def run(options: ShardsOptions) -> None:
    """Makes a dataset, or goes on where an earlier run of the same job stopped.

    Raises:
        RunError: the images or the folder are at fault, or the runner.
        UsageError: Beam does not know the runner, or an option.
    """
    started = time.monotonic()
    dataset, roots = options.dataset, roots_of(options.images)
    refuse_inside(options)
    # Before the listing, which may take minutes: a second run is refused at once.
    with folder_lock.held(dataset, notes=WORK):
        shard_runner = new_runner(options, roots, dataset)
        if not options.overwrite:
            _refuse_grown(dataset)
        listing = list_images(options)
        layout.announce(options.images, listing)
        slices = plan.cut_slices(listing, count=options.shards, seed=options.seed)
        key = _key(listing, slices, options)
        folder = ResumableFolder(dataset, manifest=manifest.MANIFEST)
        fault = listing.beyond(options.max_reject_fraction)
        if fault and (options.overwrite or not folder.complete()):
            raise RunError(fault)
        if options.overwrite:
            if unfinished := len(folder.committed()):
                console.say(
                    f"--overwrite: {unfinished} shards of an unfinished run are "
                    "removed; without it a run goes on"
                )
            folder.clear(
                manifest.SHARD_PATTERN,
                manifest.CLASSES,
                manifest.REJECTS,
                manifest.CONFLICTS,
            )
        complete = folder.start(key)
        side_files.write_source(dataset, source_of(options, roots))
        if complete:
            manifest.load(dataset)  # or names the shard that is gone since
            value = manifest.read(dataset)
            console.conclude(
                f"DATASET {dataset} is complete already; nothing to do.",
                following=closing_summary.following(dataset, value),
            )
            return
        planned = plan.write_plan(dataset, slices, listing.classes)
        console.say(
            f"DATASET {dataset}: {len(planned):,} shards of images of "
            f"{manifest.size_in_words(options.contract)}, made by {_makers(options)}"
        )
        before = resume.committed(dataset, plan.by_shard(slices))
        finalize.prepare(
            dataset,
            listing,
            planned,
            max_reject_fraction=options.max_reject_fraction,
        )
        complete = True
        with raising_noted_error(folder):
            complete = shard_runner.write(dataset, planned, options.contract)
        if complete:
            _report(dataset, before, time.monotonic() - started)


def roots_of(images: AnyPath | Sequence[AnyPath]) -> Sequence[AnyPath]:
    """Returns IMAGES as a list."""
    return images if isinstance(images, Sequence) else [images]


def new_runner(
    options: JobOptions, roots: Sequence[AnyPath], dataset: AnyPath
) -> LocalRunner | RemoteShardRunner:
    """Returns what writes the shards.

    Raises:
        UsageError: Beam does not know the runner, or an option.
    """
    make = (
        LocalRunner
        if options.runner == "local"
        else functools.partial(
            RemoteShardRunner,
            options.runner,
            folders={"images": roots, "dataset": [dataset]},
        )
    )
    return make(
        workers=options.workers,
        image_timeout=options.image_timeout,
        beam_arguments=options.beam_arguments,
    )


def list_images(options: PlanOptions) -> Listing:
    """Lists all of IMAGES; see layout.list_images."""
    return layout.list_images(
        options.images,
        csv=options.manifest,
        validation_fraction=options.validation_fraction,
        seed=options.seed,
        labelled_test=options.labelled_test,
        classes=options.classes,
        layout=options.layout,
        id_column=options.id_column,
        label_column=options.label_column,
    )


def _refuse_grown(dataset: AnyPath) -> None:
    """Refuses a dataset that more runs than one have made, or are making."""
    if unfinished := manifest.unfinished_addition(dataset):
        raise RunError(f"{unfinished} Or ARGS=--overwrite makes all of it anew.")
    if not (dataset / manifest.MANIFEST).is_file():
        return
    if manifest.read(dataset)["version"] == manifest.GROWN:
        raise RunError(
            f"images were added to DATASET {dataset} after it was made. ARGS=--append "
            "adds what is not there yet; ARGS=--overwrite makes all of it anew."
        )


def refuse_inside(options: ShardsOptions) -> None:
    """Refuses a dataset among the images: a listing would take it for a class.

    Raises:
        RunError: it is there.
    """
    dataset = options.dataset
    may_have_splits = options.manifest is None and options.layout != "classes"
    around = dataset.resolve().parents
    for root in roots_of(options.images):
        if root.resolve() not in around or not root.is_dir():
            continue
        names = {path.name.partition(".")[0] for path in root.iterdir()}  # or a .tar
        splits = [root / x for x in SPLITS if x in names and may_have_splits]
        # Beside the folders of splits nothing is listed.
        if not splits or any(split.resolve() in around for split in splits):
            raise RunError(
                f"DATASET {dataset} is among the images of {root}. Name a folder "
                "elsewhere."
            )


def source_of(options: ShardsOptions, roots: Sequence[AnyPath]) -> dict[str, Any]:
    """Returns what DATASET.source.json says, which is no part of the bytes."""
    elsewhere = {"images", "dataset", "manifest", "classes", "contract"}
    here_alone = {"workers", "overwrite", "append"}
    flags = {
        field.name: getattr(options, field.name)
        for field in fields(options)
        if field.name not in elsewhere | here_alone
    }
    return {
        "images": [str(root) for root in roots],
        "manifest": str(options.manifest) if options.manifest else None,
        "classes": str(options.classes) if options.classes else None,
        "folder": os.getcwd(),  # where these paths begin
        "flags": flags | asdict(options.contract),
    }


def _key(
    listing: Listing,
    slices: Mapping[str, plan.Slices],
    options: ShardsOptions,
) -> dict[str, Any]:
    """Everything that decides the bytes of the dataset; part of dataset.json."""
    return {
        "version": manifest.VERSION,
        "image": options.contract.to_json(),
        "classes": manifest.classes_entry(listing.classes),
        "source": {
            "layout": listing.layout,
            **images_entry(listing, slices),
            "seed": options.seed,
            "validation_fraction": float(options.validation_fraction)
            if listing.carved
            else None,
        },
        "versions": conversion.versions(),
    }


def images_entry(listing: Listing, slices: Mapping[str, plan.Slices]) -> dict[str, Any]:
    """Returns what dataset.json says of the images of a run, and of their shards."""
    refs = sorted((ref.split, ref.id, ref.label or "") for ref in listing.refs)
    return {
        "images": len(refs),
        "images_sha256": _sha256_json(refs),
        "shards": {split: len(parts) for split, parts in slices.items()},
    }


def _sha256_json(values: Iterable[Sequence[str]]) -> str:
    """The SHA-256 of the JSON of a list, without all of it in memory."""
    digest = hashlib.sha256(b"[")
    for number, value in enumerate(values):
        digest.update((", " * bool(number) + json.dumps(value)).encode())
    digest.update(b"]")
    return digest.hexdigest()


def _makers(options: ShardsOptions) -> str:
    if options.runner != "local":
        return f"the workers of {options.runner}"
    return f"{options.workers} process{'es' * (options.workers > 1)}"


def _report(dataset: AnyPath, before: Sequence[ShardResult], seconds: float) -> None:
    """Prints the closing summary, and logs it beside the dataset.

    Args:
        dataset: complete.
        before: the shards that an earlier run has made.
        seconds: that this run took.
    """
    value = manifest.read(dataset)
    text = "\n".join(closing_summary.lines(dataset, value, before, seconds))
    console.conclude(text, following=closing_summary.following(dataset, value))
    side_files.append_to_log(dataset, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")
