"""IMAGES → DATASET: list, plan, have the shards written, balance, report."""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pipeline import crew, duplicates, image, ledger, manifest, shard, sources
from pipeline.console import RunError
from pipeline.listing import Listing
from pipeline.manifest import ImageContract
from pipeline.objects import AnyPath
from pipeline.workfolder import WorkFolder


def run(
    images: AnyPath | Sequence[AnyPath],
    dataset: AnyPath,
    *,
    contract: ImageContract,
    csv: AnyPath | None = None,
    shards: int | None = None,
    validation_fraction: float = 0.1,
    labelled_test: bool = False,
    classes: AnyPath | None = None,
    seed: int = 0,
    max_reject_fraction: float = 0.01,
    workers: int,
    image_timeout: float = 60,
    overwrite: bool = False,
    beam_arguments: Sequence[str] = (),
) -> None:
    """Makes a dataset, or goes on where an earlier run of the same job stopped.

    Args:
        images: the roots of the photos; see sources.list_images.
        dataset: the folder to make.
        contract: of the stored images.
        csv: ids, labels and perhaps splits of the photos.
        shards: per split; None for `shard.default_count`.
        validation_fraction: of each class, where there are no splits.
        labelled_test: `test/` holds class folders.
        classes: an existing class list, so that labels agree with another dataset's.
        seed: of the order and of the split.
        max_reject_fraction: above it the run fails once everything is tried.
        workers: processes.
        image_timeout: seconds after which an image is given up; 0 for never.
        overwrite: remove what another run left in `dataset`.
        beam_arguments: options for Beam.

    Raises:
        RunError: the images or the folder are at fault.
        UsageError: Beam does not know an option.
    """
    started = time.monotonic()
    workforce = crew.Crew(
        workers=workers, image_timeout=image_timeout, beam_arguments=beam_arguments
    )
    listing = sources.list_images(
        images,
        csv=csv,
        validation_fraction=validation_fraction,
        seed=seed,
        labelled_test=labelled_test,
        classes=classes,
    )
    _refuse_inside(dataset, listing)
    if listing.ignored:
        named = ", ".join(sorted(listing.ignored)[:5])
        print(f"ignored: {len(listing.ignored)} files or folders, such as {named}")
    slices = shard.plan(listing, count=shards, seed=seed)
    key = _key(listing, slices, contract, validation_fraction, seed)
    folder = WorkFolder(dataset, manifest=manifest.MANIFEST)
    parts = sum(len(refs) for refs in slices.values())
    if overwrite and not folder.resumes(key, parts=parts):
        folder.clear(manifest.SHARD_PATTERN, manifest.CLASSES, manifest.REJECTS)
    if folder.start(key):
        manifest.load(dataset)  # or names the shard that is gone since
        print(f"DATASET {dataset} is complete already; nothing to do.")
        return
    planned = shard.write_plan(dataset, slices, listing.classes)
    workforce.write(dataset, planned, contract)
    twins = duplicates.find(dataset, _images_by_shard(slices, planned))
    account = _finish(folder, key, listing, planned, twins, max_reject_fraction)
    _report(dataset, account, twins, time.monotonic() - started)


def _refuse_inside(dataset: AnyPath, listing: Listing) -> None:
    """A dataset among the images would be listed by the next run."""
    for root in listing.roots:
        if root.resolve() in dataset.resolve().parents:
            raise RunError(
                f"DATASET {dataset} is among the images of {root}. Name a folder "
                "elsewhere."
            )


def _key(
    listing: Listing,
    slices: Mapping[str, shard.Slices],
    contract: ImageContract,
    validation_fraction: float,
    seed: int,
) -> dict[str, Any]:
    """Everything that decides the bytes of the dataset; part of dataset.json."""
    refs = sorted((ref.split, ref.id, ref.label or "") for ref in listing.refs)
    return {
        "version": manifest.VERSION,
        "image": asdict(contract),
        "classes": manifest.classes_entry(listing.classes),
        "source": {
            "layout": listing.layout,
            "images": len(refs),
            "images_sha256": _sha256_json(refs),
            "seed": seed,
            "shards": {split: len(parts) for split, parts in slices.items()},
            "validation_fraction": float(validation_fraction)
            if listing.carved
            else None,
        },
        "versions": image.versions(),
    }


def _sha256_json(values: Iterable[Sequence[str]]) -> str:
    """The SHA-256 of the JSON of a list, without all of it in memory."""
    digest = hashlib.sha256(b"[")
    for number, value in enumerate(values):
        digest.update((", " * bool(number) + json.dumps(value)).encode())
    digest.update(b"]")
    return digest.hexdigest()


def _finish(
    folder: WorkFolder,
    key: Mapping[str, Any],
    listing: Listing,
    planned: Mapping[str, int],
    twins: Mapping[str, Any],
    max_reject_fraction: float,
) -> ledger.Ledger:
    """Balances the ledger and completes the dataset, unless too much was rejected."""
    account = ledger.balance(listing, _notes(folder.folder, planned))
    folder.write_text(manifest.REJECTS, ledger.rejects_csv(account.rejects))
    folder.write_text(manifest.CLASSES, manifest.classes_text(listing.classes))
    rejects = folder.folder / manifest.REJECTS
    if not account.written:
        raise RunError(
            f"none of the {account.listed.total()} images could be decoded; {rejects} "
            "says why. Is IMAGES the right folder?"
        )
    if account.reject_fraction > max_reject_fraction:
        raise RunError(
            f"{account.rejected.total()} of {account.listed.total()} images were "
            f"rejected ({account.reject_fraction:.2%}); --max_reject_fraction allows "
            f"{max_reject_fraction:.2%}. {rejects} says which and why. Allow more and "
            "run again: the shards are kept. Or mend the files and run again with "
            "--overwrite."
        )
    splits = {name: asdict(split) for name, split in account.splits.items()}
    balance = {**account.to_json(), "duplicates": twins}
    folder.finish({**key, "splits": splits, "ledger": balance})
    return account


def _images_by_shard(
    slices: Mapping[str, shard.Slices], planned: Mapping[str, int]
) -> Iterator[tuple[str, Iterator[str]]]:
    """The name of every shard, and `split/id` of its images."""
    parts = (refs for parts in slices.values() for refs in parts)
    for name, refs in zip(planned, parts, strict=True):
        yield name, (f"{ref.split}/{ref.id}" for ref in refs)


def _notes(dataset: AnyPath, planned: Mapping[str, int]) -> dict[str, list[shard.Note]]:
    """The sidecars of all shards by split."""
    notes: dict[str, list[shard.Note]] = {}
    for name, note in shard.read_notes(dataset, planned).items():
        if note is None:
            raise RunError(
                f"shard {dataset / name} was not written. Run the same command again; "
                "it makes only what is missing."
            )
        notes.setdefault(name.partition("-")[0], []).append(note)
    return notes


def _report(
    dataset: AnyPath, account: ledger.Ledger, twins: Mapping[str, Any], seconds: float
) -> None:
    """Prints the closing summary, and logs it beside the dataset."""
    images = account.listed.total()
    lines = [
        f"DATASET {dataset}: {images} images listed = {account.written.total()} "
        f"written + {account.rejected.total()} rejected",
        *(_split_line(name, account) for name in account.splits),
        f"{seconds:.1f} s, {images / seconds:.0f} images/s, "
        f"{account.bytes_read / seconds / 1e6:.1f} MB/s",
    ]
    if emptied := account.emptied_classes():
        lines.insert(-1, f"  classes without a training image: {', '.join(emptied)}")
    if twins["images"]:
        lines.insert(-1, f"  {_twins_line(twins)}")
    text = "\n".join(lines)
    print(text)
    with crew.log_path(dataset).open("a") as log:
        print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=log)


def _split_line(name: str, account: ledger.Ledger) -> str:
    split = account.splits[name]
    size = sum(part.bytes for part in split.shards) / 1e6
    line = (
        f"  {name:<10} {split.examples} written in {len(split.shards)} shards "
        f"({size:.1f} MB), {split.rejected} rejected"
    )
    reasons = account.reasons(name)
    if not reasons:
        return line
    return f"{line}: {', '.join(f'{n} {reason}' for reason, n in reasons.items())}"


def _twins_line(twins: Mapping[str, Any]) -> str:
    line = f"{twins['images']} images are copies of another, byte for byte"
    across = twins["across_splits"]
    if not across:
        return line
    return (
        f"{line}; {len(across)} sets of copies straddle splits, such as "
        f"{' = '.join(across[0][:1] + across[0][-1:])}"
    )
