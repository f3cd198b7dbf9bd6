"""DATASET and more images → DATASET with a generation of shards more.

A generation is made by the job that makes a dataset, of a shorter listing, under names
of its own. Until dataset.json is replaced, last, readers see the dataset as it was.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import replace

from pipeline import preprocess
from pipeline.dataset import closing_summary, manifest
from pipeline.dataset.manifest import ImageContract
from pipeline.images import conversion
from pipeline.options import RetryOptions, ShardsOptions
from pipeline.runners.local import LocalRunner
from pipeline.runners.remote_shards import RemoteShardRunner
from pipeline.shards import finalize, generation, plan, resume
from pipeline.shards.generation import Base
from pipeline.sources import layout
from pipeline.sources.listing import Listing
from pipeline.storage import folder_lock, side_files
from pipeline.storage.noted_error import raising_noted_error
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import WORK, ResumableFolder
from pipeline.system import console
from pipeline.system.errors import RunError


def append(options: ShardsOptions) -> None:
    """Adds the images that are not listed yet, or goes on with that.

    Raises:
        RunError: DATASET is not complete, or was made otherwise; IMAGES is at fault.
        UsageError: Beam does not know the runner, or an option.
    """
    dataset, roots = options.dataset, preprocess.roots_of(options.images)
    preprocess.refuse_inside(options)
    manifest.read(dataset)  # before a folder is made to be locked
    with folder_lock.held(dataset, notes=WORK):
        base = generation.open_base(dataset, "append")
        runner = preprocess.new_runner(options, roots, dataset)
        listing = preprocess.list_images(options)
        layout.announce(options.images, listing)
        base.refuse_other(
            listing,
            options.contract,
            seed=options.seed,
            validation_fraction=options.validation_fraction,
            class_list=options.classes,
        )
        if fault := listing.beyond(options.max_reject_fraction):
            raise RunError(fault)
        selected = generation.unlisted(base, listing)
        console.say("\n".join(selected.lines))
        side_files.write_source(dataset, preprocess.source_of(options, roots))
        if not len(selected.listing):
            generation.withdraw(base)  # what an earlier run has begun
            console.conclude(
                f"DATASET {dataset} has all images of IMAGES; nothing to do.",
                following=closing_summary.following(dataset, base.value),
            )
            return
        slices = plan.cut_slices(
            selected.listing, count=options.shards, seed=options.seed
        )
        _write(
            base,
            selected.listing,
            slices,
            verb="append",
            contract=options.contract,
            runner=runner,
            max_reject_fraction=options.max_reject_fraction,
        )


def retry(options: RetryOptions) -> None:
    """Tries the rejects again; those that are good now are added.

    Raises:
        RunError: DATASET is not complete; IMAGES is at fault, or has none of them.
        UsageError: Beam does not know the runner, or an option.
    """
    dataset = options.dataset
    manifest.read(dataset)  # before a folder is made to be locked
    with folder_lock.held(dataset, notes=WORK):
        base = generation.open_base(dataset, "retry")
        if not base.rejects:
            console.conclude(
                f"DATASET {dataset} has no rejects; nothing to do.",
                following=closing_summary.following(dataset, base.value),
            )
            return
        roots, listing = _list_again(options, base)
        runner = preprocess.new_runner(options, roots, dataset)
        selected = generation.rejected_again(base, listing)
        console.say("\n".join(selected.lines))
        if not selected.listing.refs:
            raise RunError(
                f"none of the {len(base.rejects):,} rejected images of DATASET "
                f"{dataset} can be tried again. Is IMAGES {layout.in_words(roots)} the "
                "right folder? IMAGES= names another."
            )
        contract = ImageContract(**base.value["image"])
        if options.max_pixels:
            contract = replace(contract, max_pixels=options.max_pixels)
        _write(
            base,
            selected.listing,
            plan.cut_slices(
                selected.listing, count=None, seed=base.value["source"]["seed"]
            ),
            verb="retry",
            contract=contract,
            runner=runner,
            max_reject_fraction=1,  # there can only be fewer
            retried=[(ref.split, ref.id) for ref in selected.listing.refs],
        )


def _write(
    base: Base,
    listing: Listing,
    slices: dict[str, plan.Slices],
    *,
    verb: str,
    contract: ImageContract,
    runner: LocalRunner | RemoteShardRunner,
    max_reject_fraction: float,
    retried: Collection[tuple[str, str]] = (),
) -> None:
    """Makes a generation of a listing, and prints what it added."""
    started = time.monotonic()
    dataset, number = base.folder, len(base.generations) + 1
    entry = {"verb": verb, **preprocess.images_entry(listing, slices)}
    key = {
        "version": manifest.GROWN,
        "image": contract.to_json(),
        "classes": manifest.classes_entry(listing.classes),
        "source": {**base.value["source"], "generations": [*base.generations, entry]},
        "versions": conversion.versions(),
    }
    generation.begin(base, key)
    planned = plan.write_plan(dataset, slices, listing.classes, generation=number)
    resume.committed(dataset, plan.by_shard(slices, number))
    finalize.prepare(
        dataset,
        listing,
        planned,
        max_reject_fraction=max_reject_fraction,
        retried=retried,
    )
    complete = True
    with raising_noted_error(ResumableFolder(dataset, manifest=manifest.MANIFEST)):
        complete = runner.write(dataset, planned, contract)
    if complete:
        _report(base, len(listing), time.monotonic() - started)


def _report(base: Base, tried: int, seconds: float) -> None:
    """Prints what was added, and logs it beside the dataset."""
    value = manifest.read(base.folder)
    before, now = (
        sum(split.examples for split in manifest.read_splits(one).values())
        for one in (base.value, value)
    )
    lines = [
        f"{now - before:,} of {tried:,} images were added to DATASET {base.folder}, "
        f"{seconds:.1f} s",
        *closing_summary.content(base.folder, value),
    ]
    text = "\n".join(lines)
    console.conclude(text, following=closing_summary.following(base.folder, value))
    side_files.append_to_log(
        base.folder, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}"
    )


def _list_again(options: RetryOptions, base: Base) -> tuple[Sequence[AnyPath], Listing]:
    """Lists IMAGES as the run did that made the dataset.

    Raises:
        RunError: it is not known where the images are, or how they were listed.
    """
    noted = side_files.read_source(options.dataset)
    source, ledger = base.value["source"], base.value["ledger"]["splits"]
    beside = f"{options.dataset}.source.json"
    if options.images:
        roots = preprocess.roots_of(options.images)
    elif noted:
        roots = [side_files.located(text, noted) for text in noted["images"]]
    else:
        raise RunError(
            f"{beside} is missing, which says where the photos are. Name them: IMAGES=."
        )
    csv = noted.get("manifest")
    if source["layout"] == "manifest" and not csv:
        raise RunError(
            f"{beside} is missing, or names no CSV, and DATASET was made by one. "
            "Restore it."
        )
    flags = noted.get("flags", {})
    test = ledger.get("test", {"classes": {}})["classes"]
    listing = layout.list_images(
        roots,
        csv=side_files.located(csv, noted) if csv else None,
        validation_fraction=source["validation_fraction"] or 0,
        seed=source["seed"],
        labelled_test=any(test),  # "" is the class of what has none
        layout="auto" if csv else source["layout"],
        id_column=flags.get("id_column", "id"),
        label_column=flags.get("label_column", "label"),
        any_classes=True,  # new ones are for an append; IMAGES may lack old ones
    )
    return roots, listing
