"""IMAGES → DATASET: list, plan, have the shards written, balance, report."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline import crew, files, image, ledger, manifest, shard, sources
from pipeline.console import RunError
from pipeline.manifest import ImageContract
from pipeline.workfolder import WorkFolder


def run(
    images: Path,
    dataset: Path,
    *,
    contract: ImageContract,
    shards: int | None = None,
    validation_fraction: float = 0.1,
    labelled_test: bool = False,
    seed: int = 0,
    max_reject_fraction: float = 0.01,
    workers: int,
    overwrite: bool = False,
    beam_arguments: Sequence[str] = (),
) -> None:
    """Makes a dataset, or goes on where an earlier run of the same job stopped.

    Args:
        images: the root of the photos (DESIGN: split folders, or class folders).
        dataset: the folder to make.
        contract: of the stored images.
        shards: per split; None for `shard.default_count`.
        validation_fraction: of each class of a root of class folders.
        labelled_test: `test/` holds class folders.
        seed: of the order and of the split.
        max_reject_fraction: above it the run fails once everything is tried.
        workers: processes.
        overwrite: remove what another run left in `dataset`.
        beam_arguments: options for Beam.

    Raises:
        RunError: the images or the folder are at fault.
        UsageError: Beam does not know an option.
    """
    started = time.monotonic()
    workforce = crew.Crew(workers=workers, beam_arguments=beam_arguments)
    listing = sources.list_images(
        images,
        validation_fraction=validation_fraction,
        seed=seed,
        labelled_test=labelled_test,
    )
    if listing.ignored:
        named = ", ".join(sorted(listing.ignored)[:5])
        print(f"ignored: {len(listing.ignored)} files or folders, such as {named}")
    slices = shard.plan(listing, count=shards, seed=seed)
    key = _key(listing, slices, contract, validation_fraction, seed)
    folder = WorkFolder(dataset, manifest=manifest.MANIFEST)
    if overwrite and not folder.resumes(key):
        folder.clear(manifest.SHARD_PATTERN, manifest.CLASSES, manifest.REJECTS)
    if folder.start(key):
        print(f"DATASET {dataset} is complete already; nothing to do.")
        return
    planned = shard.write_plan(dataset, slices, listing.classes)
    workforce.write(dataset, planned, contract)
    account = _finish(folder, key, listing, planned, max_reject_fraction)
    _report(dataset, account, time.monotonic() - started)


def _key(
    listing: sources.Listing,
    slices: Mapping[str, shard.Slices],
    contract: ImageContract,
    validation_fraction: float,
    seed: int,
) -> dict[str, Any]:
    """Everything that decides the bytes of the dataset; part of dataset.json."""
    carved = listing.layout == "classes"
    refs = sorted((ref.split, ref.id, ref.label or "") for ref in listing.refs)
    return {
        "version": manifest.VERSION,
        "image": asdict(contract),
        "classes": manifest.classes_entry(listing.classes),
        "source": {
            "layout": listing.layout,
            "images": len(refs),
            "images_sha256": files.sha256_text(json.dumps(refs)),
            "seed": seed,
            "shards": {split: len(parts) for split, parts in slices.items()},
            "validation_fraction": validation_fraction if carved else None,
        },
        "versions": image.versions(),
    }


def _finish(
    folder: WorkFolder,
    key: Mapping[str, Any],
    listing: sources.Listing,
    planned: Mapping[str, int],
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
            f"{max_reject_fraction:.2%}. {rejects} says which and why. Mend them, or "
            "run again with a higher fraction: the shards are kept."
        )
    splits = {name: asdict(split) for name, split in account.splits.items()}
    folder.finish({**key, "splits": splits, "ledger": account.to_json()})
    return account


def _notes(dataset: Path, planned: Mapping[str, int]) -> dict[str, list[shard.Note]]:
    """The sidecars of all shards by split."""
    notes: dict[str, list[shard.Note]] = {}
    for name in planned:
        note = shard.read_note(dataset, name)
        if note is None:
            raise RunError(
                f"shard {dataset / name} was not written. Run the same command again; "
                "it makes only what is missing."
            )
        notes.setdefault(name.partition("-")[0], []).append(note)
    return notes


def _report(dataset: Path, account: ledger.Ledger, seconds: float) -> None:
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
