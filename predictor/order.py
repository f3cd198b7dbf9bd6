"""What is predicted, and where it goes: all that is known before a device is asked."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import files, ledger, manifest
from pipeline.console import RunError, in_bytes
from pipeline.manifest import ImageContract
from pipeline.objects import AnyPath
from pipeline.workfolder import WorkFolder
from predictor import csv_shards, submission, volume
from predictor.formats import Format
from predictor.inputs import FromDataset, FromImages, Input
from predictor.parts import Parts
from trainer import model


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a run is asked for.

    Attributes:
        model: MODEL.
        folder: PREDICTIONS, to make.
        format: of the files.
        dataset: DATASET, whose split is predicted; it need not be labelled.
        images: in place of that, photos; see unlabelled.list_images.
        split: of either.
        sample_submission: of format `submission`: the ids that it has to have.
    """

    model: AnyPath
    folder: AnyPath
    format: Format
    dataset: AnyPath | None = None
    images: AnyPath | None = None
    split: str = "test"
    sample_submission: AnyPath | None = None


class Begun:
    """PREDICTIONS of an order, begun or gone on with.

    Args:
        order: what is asked for.
        alone: nobody else writes there now; a worker is one of several.

    Attributes:
        contract: of the model.
        source: the images.
        output: PREDICTIONS.
        complete: whether there is nothing to do.
        parts: the shards; where there is something to do.

    Raises:
        RunError: MODEL and the images do not fit, or the folder holds the predictions
            of others.
        UsageError: the model has fewer classes than the format asks for.
    """

    def __init__(self, order: Order, *, alone: bool = True) -> None:
        self.contract = model.read_contract(order.model)
        _refuse_repeated(self.contract.classes, order.format)
        order.format.check(self.contract.classes)
        sample = order.sample_submission
        self._sample = submission.read_sample(sample) if sample else None
        self.source = _source(self.contract, order)
        self._key = _key(self.contract, self.source, order)
        self.output = WorkFolder(order.folder, manifest=csv_shards.MANIFEST)
        _refuse_other_version(self.output)
        self.complete = self.output.start(self._key, alone=alone)
        if self.complete:
            _refuse_missing(order.folder)
        else:
            self.parts = Parts(
                self.output, self._key, order.format, self.source.sizes, alone=alone
            )

    def announce(self, missing: Sequence[int], *, writers: int) -> None:
        """Says how much will be written; see volume.announce.

        Args:
            missing: positions of shards.
            writers: processes.
        """
        volume.announce(
            self.output.folder,
            self.parts.format,
            self.contract.classes,
            rows=sum(self.source.sizes[position] for position in missing),
            writers=writers,
        )

    def finish(self) -> None:
        """Balances rows against images, and completes the folder.

        Raises:
            RunError: they do not balance, or there are no rows.
        """
        entries, rejects = self.parts.balance(self.source.rejects)
        predicted = sum(entry.rows for entry in entries)
        if not predicted:
            first = rejects[0]
            raise RunError(
                f"none of the {len(rejects)} images could be predicted; the first is "
                f"{first.id!r}: {first.reason} ({first.detail}). Is it the right "
                f"folder? For another one remove {self.output.folder}, or name another."
            )
        if self._key["format"] == "submission":
            paths = [self.parts.folder / entry.file for entry in entries]
            compression = self._key["compression"]
            entries = [
                submission.assemble(paths, self._sample, self.output, compression)
            ]
        if self.source.has_rejects:
            self.output.write_text(csv_shards.REJECTS, ledger.rejects_csv(rejects))
        account = {
            "examples": predicted + len(rejects),
            "predicted": predicted,
            "rejected": len(rejects),
        }
        rows = sum(entry.rows for entry in entries)
        described = [entry._asdict() for entry in entries]
        value = {**self._key, "files": described, "rows": rows, "ledger": account}
        self.output.finish(value)


def in_words(folder: AnyPath, seconds: float) -> str:
    """What finished PREDICTIONS are, in a line.

    Args:
        folder: PREDICTIONS.
        seconds: that the run took.
    """
    value = files.read_json(folder / csv_shards.MANIFEST)
    account, entries = value["ledger"], value["files"]
    rejects = folder / csv_shards.REJECTS
    rows = ledger.read_rejects(rejects) if rejects.is_file() else []
    reasons = Counter(reject.reason for reject in rows)
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    return (
        f"PREDICTIONS {folder}: {account['examples']} images = "
        f"{account['predicted']} predicted + {account['rejected']} rejected"
        f"{f' ({why})' if why else ''}; {value['rows']} rows in {len(entries)} files, "
        f"{in_bytes(sum(entry['bytes'] for entry in entries))}, {seconds:.1f} s"
    )


def _refuse_repeated(classes: Sequence[str], format: Format) -> None:
    """Columns of the same name could not be told apart."""
    repeated = [name for name, count in Counter(classes).items() if count > 1]
    if repeated:
        lines = [n for n, name in enumerate(classes, 1) if name == repeated[0]]
        raise RunError(
            f"MODEL has the class {repeated[0]!r} more than once, in the lines "
            f"{', '.join(map(str, lines))} of {manifest.CLASSES} ({len(repeated)} such "
            "classes in all): its columns could not be told apart. Train on a DATASET "
            "whose classes have names of their own."
        )
    if format.kind == "probabilities" and "id" in classes:
        raise RunError(
            "MODEL has a class 'id', which is the name of the first column, too: they "
            "could not be told apart. Use --format=top_k, which has no column of that "
            "name."
        )


def _refuse_other_version(output: WorkFolder) -> None:
    """The key of another release would differ in more than its version."""
    version = {"version": csv_shards.VERSION}
    if output.manifest.is_file() and (different := output.other(version)):
        raise RunError(
            f"{output.folder} was made by another release: {different}. Name another "
            "folder, or remove this one and run again."
        )


def _source(contract: model.Contract, order: Order) -> Input:
    """What is predicted, held to what the model takes."""
    if order.images:
        image = ImageContract(**contract.image)
        return FromImages(order.images, order.split, image)
    assert order.dataset
    dataset = manifest.load(order.dataset)
    contract.check(dataset)
    return FromDataset(dataset, order.split)


def _key(contract: model.Contract, source: Input, order: Order) -> dict[str, Any]:
    """Everything that decides the content; part of predictions.json."""
    sample = order.sample_submission
    return {
        "version": csv_shards.VERSION,
        "model": contract.fingerprint,
        "classes": manifest.classes_entry(contract.classes),
        **source.key,
        **order.format.key(),
        "sample_submission": files.sha256(sample) if sample else None,
    }


def _refuse_missing(folder: AnyPath) -> None:
    """A finished folder may have lost a file since."""
    entries = files.read_json(folder / csv_shards.MANIFEST)["files"]
    names = [entry["file"] for entry in entries]
    there = files.sizes(folder)
    if missing := [name for name in names if name not in there]:
        raise RunError(
            f"{folder / missing[0]} is missing ({len(missing)} in all), though the "
            "predictions were complete. Restore it, or remove the folder and run again."
        )
