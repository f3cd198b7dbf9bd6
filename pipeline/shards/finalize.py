"""The last step of the job: the ledger is balanced, and dataset.json written.

It runs wherever the job runs, and knows nothing but the folder. The launcher leaves
there what it knows:

    _work/outset.json       what was listed, the classes, the images of every shard

What is added to a finished dataset is completed in the same way: the ledger of what is
new is added to the one that is there, and all lists but dataset.json come first.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from pipeline.dataset import ledger, manifest, sidecar
from pipeline.dataset.ledger import Ledger, Listed
from pipeline.dataset.manifest import MANIFEST, ShardName
from pipeline.shards import duplicates, generation, plan
from pipeline.shards.duplicates import Source
from pipeline.sources.listing import Listing
from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import WORK, ResumableFolder
from pipeline.system.errors import RunError


def prepare(
    dataset: AnyPath,
    listing: Listing,
    planned: Mapping[str, int],
    *,
    max_reject_fraction: float,
    retried: Collection[tuple[str, str]] = (),
) -> None:
    """Leaves what `complete` needs in a dataset that was started.

    Args:
        dataset: the folder.
        listing: what there is.
        planned: images by shard name, in order.
        max_reject_fraction: more than this is a failure.
        retried: (split, id) of rejects of the dataset that are tried again.
    """
    outset = {
        "listed": listing.listed().to_json(),
        "classes": listing.classes,
        "planned": list(planned.items()),
        "max_reject_fraction": max_reject_fraction,
        "retried": sorted(retried),
    }
    work = dataset / WORK
    atomic.write_json(work / "outset.json", outset, scratch=work)


def complete(dataset: AnyPath) -> None:
    """Completes a dataset whose shards are all committed; again does nothing.

    Raises:
        RunError: a shard is missing, the ledger does not balance, or too much was
            rejected.
    """
    folder = ResumableFolder(dataset, manifest=MANIFEST)
    if folder.complete():
        return
    _complete(folder, atomic.read_json(folder.work / "outset.json"))


def _complete(folder: ResumableFolder, outset: Mapping[str, Any]) -> None:
    dataset, planned = folder.folder, dict(outset["planned"])
    account = ledger.balance(
        Listed.from_json(outset["listed"]), _notes(dataset, planned)
    )
    copies = duplicates.find(dataset, _images_by_shard(dataset, planned))
    twins, conflicts = copies.to_json(), copies.conflicts
    fraction = outset["max_reject_fraction"]
    if folder.manifest.is_file():  # it is added to
        base, retried = generation.read_base(dataset), outset["retried"]
        if retried and not account.written:
            generation.withdraw(base)
            return
        account = ledger.together(
            base.ledger, account, retried={(split, name) for split, name in retried}
        )
        twins, conflicts = duplicates.together(
            base.value["ledger"], base.conflicts, copies
        )
        rejects = ledger.rejects_csv(account.rejects)
        # The lists of the dataset are those of its readers until nothing can fail.
        if account.reject_fraction > fraction:
            folder.write_text(f"{WORK}/{manifest.REJECTS}", rejects)
        _refuse_too_many(account, fraction, folder.work / manifest.REJECTS)
    lists = {
        manifest.REJECTS: ledger.rejects_csv(account.rejects),
        manifest.CLASSES: manifest.classes_text(outset["classes"]),
    }
    for name, text in lists.items():
        folder.write_text(name, text)
    _refuse_too_many(account, fraction, dataset / manifest.REJECTS)
    if conflicts:
        lists[manifest.CONFLICTS] = duplicates.conflicts_csv(conflicts)
        folder.write_text(manifest.CONFLICTS, lists[manifest.CONFLICTS])
    else:  # perhaps of a step that was killed, before photos were mended
        (dataset / manifest.CONFLICTS).unlink(missing_ok=True)
    folder.finish(
        {
            **folder.key(),
            "files": {name: atomic.sha256_text(text) for name, text in lists.items()},
            "ledger": {**account.to_json(), **twins},
            "originals": account.originals,
            "splits": {name: asdict(split) for name, split in account.splits.items()},
        }
    )


def _refuse_too_many(account: Ledger, fraction: float, rejects: AnyPath) -> None:
    if not account.written:
        raise RunError(
            f"none of the {account.listed.total()} images could be decoded; {rejects} "
            "says why. Is IMAGES the right folder?"
        )
    if account.reject_fraction > fraction:
        raise RunError(
            f"{account.rejected.total()} of {account.listed.total()} images were "
            f"rejected ({account.reject_fraction:.2%}); --max_reject_fraction allows "
            f"{fraction:.2%}. {rejects} says which and why. Allow more and "
            "run again: the shards are kept. Or mend the files and run again: shards "
            "with a mended file are made again (where files came, went or moved: with "
            "--overwrite)."
        )


def _notes(
    dataset: AnyPath, planned: Mapping[str, int]
) -> dict[str, list[sidecar.ShardResult]]:
    """The sidecars of all shards by split."""
    notes: dict[str, list[sidecar.ShardResult]] = {}
    for name, note in sidecar.read_notes(dataset, planned).items():
        if note is None:
            raise RunError(
                f"shard {dataset / name} was not written. Run the same command again; "
                "it makes only what is missing."
            )
        notes.setdefault(ShardName.parse(name).split, []).append(note)
    return notes


def _images_by_shard(
    dataset: AnyPath, planned: Mapping[str, int]
) -> Iterator[tuple[str, Iterator[Source]]]:
    """The name of every shard, and its images."""
    for name in planned:
        yield name, _images(dataset, name)


def _images(dataset: AnyPath, name: str) -> Iterator[Source]:
    split = ShardName.parse(name).split
    for image in plan.read_plan(dataset, name):
        yield Source(split, image.id, image.text)
