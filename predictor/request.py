"""What is predicted, and where it goes: all that is known before a device is asked."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.dataset import ledger, manifest
from pipeline.dataset.ledger import Reject
from pipeline.dataset.manifest import ImageContract
from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import ResumableFolder
from pipeline.system import console
from pipeline.system.console import in_bytes
from pipeline.system.errors import RunError
from predictor.format import predictions_manifest, submission
from predictor.format.file_format import Format
from predictor.inputs import photo_listing
from predictor.inputs.inputs import FromDataset, FromImages, Input
from predictor.options import PredictionRequest
from predictor.writing import size_estimate
from predictor.writing.output_shards import OutputShards
from trainer.contract import Contract, read_contract

_LISTING = "photos.json"  # in the work folder: what workers predict
_LAST_STEP = ("sample_submission", "compression")  # in the key of a submission


class StartedRun:
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
            of others; or the last step would refuse what the listing tells already.
        UsageError: the model has fewer classes than the format asks for.
    """

    def __init__(self, order: PredictionRequest, *, alone: bool = True) -> None:
        self._order = order
        self.contract = read_contract(order.model)
        _refuse_repeated(self.contract.classes, order.format)
        order.format.check(self.contract.classes)
        sample = order.sample_submission
        self._sample = submission.read_sample(sample) if sample else None
        self.output = ResumableFolder(
            order.folder, manifest=predictions_manifest.MANIFEST
        )
        self.source = _source(
            self.contract, order, None if alone else self.output.work / _LISTING
        )
        self._key = _key(self.contract, self.source, order)
        self._max_reject_fraction = order.max_reject_fraction
        _refuse_other_version(self.output, order.format)
        finished = self.output.manifest.is_file()
        if alone and self.source.left_out:
            console.say(self.source.left_out)
        if alone and not finished:
            self._refuse_early()
        # A run that is not finished may go on with what only its last step needs.
        key = self._key if finished else _without_last_step(self._key)
        self.complete = self.output.start(key, alone=alone)
        if self.complete:
            _refuse_missing(order.folder)
        else:
            self.parts = OutputShards(
                self.output, key, order.format, self.source.sizes, alone=alone
            )

    def announce(self, missing: Sequence[int]) -> None:
        """Says what will be predicted.

        Args:
            missing: positions of shards.
        """
        rows = self._rows(missing)
        there = sum(self.source.sizes) - rows
        console.say(
            f"PREDICTIONS {self.output.folder}: {self.parts.format.kind} of "
            f"{len(self.contract.classes):,} classes for {rows:,} images of "
            f"{self._order.source_in_words()}"
            f"{f'; {there:,} are predicted already' if there else ''}"
        )

    def announce_size(self, missing: Sequence[int], *, writers: int) -> None:
        """Says how much will be written, if that is much.

        Args:
            missing: positions of shards.
            writers: processes.

        Raises:
            RunError: the disk cannot hold it; a folder without a committed shard is
                empty again.
        """
        try:
            size_estimate.announce(
                self.output.folder,
                self.parts.format,
                self.contract.classes,
                rows=self._rows(missing),
                writers=writers,
            )
        except RunError:
            # Another format may take a folder in which nothing was committed yet.
            if not self.parts.done():
                self.output.clear()
            raise

    def keep_listing(self) -> None:
        """Keeps the photos that were listed for workers, which need not list them."""
        if isinstance(self.source, FromImages):
            work = self.output.work
            self.source.listed.write(work / _LISTING, scratch=work)

    def finish(self) -> None:
        """Balances rows against images, and completes the folder.

        Raises:
            RunError: they do not balance, there are no rows, or too many rejects.
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
        if self.source.has_rejects:
            self.output.write_text(
                predictions_manifest.REJECTS, ledger.rejects_csv(rejects)
            )
            self._refuse_too_many(
                rejects,
                f"{self.output.folder / predictions_manifest.REJECTS} says which and "
                "why. Allow more and run again: what was predicted is kept. Or mend "
                "the files, and remove this folder or name another.",
            )
        if self._key["format"] == "submission":
            paths = [self.parts.folder / entry.file for entry in entries]
            compression = self._key["compression"]
            entries = [
                submission.assemble(paths, self._sample, self.output, compression)
            ]
        account = {
            "examples": predicted + len(rejects),
            "predicted": predicted,
            "rejected": len(rejects),
        }
        rows = sum(entry.rows for entry in entries)
        described = [entry._asdict() for entry in entries]
        value = {**self._key, "files": described, "rows": rows, "ledger": account}
        self.output.finish(value)

    def _rows(self, missing: Sequence[int]) -> int:
        return sum(self.source.sizes[position] for position in missing)

    def conclude(self, seconds: float | None = None) -> None:
        """Says what PREDICTIONS are, and what comes next.

        Args:
            seconds: that the run took; None where there was nothing to do.
        """
        folder = self.output.folder
        given = {"predictions": folder}
        if self._order.dataset:
            given["dataset"] = self._order.dataset
        console.conclude(
            f"PREDICTIONS {folder} is complete already; nothing to do."
            if seconds is None
            else in_words(folder, seconds),
            following=console.command("predictor", "verify", **given),
        )

    def _refuse_early(self) -> None:
        """Refuses before anything is predicted what would be refused at the end."""
        if self._key["format"] == "submission":
            submission.images_by_row(self.source.ids(), self._sample)
        self._refuse_too_many(
            sorted(self.source.rejects),
            "Allow more, or mend the files, and run again.",
        )

    def _refuse_too_many(self, rejects: Sequence[Reject], advice: str) -> None:
        """Refuses more rejects than --max_reject_fraction allows.

        Args:
            rejects: what is rejected of all images.
            advice: where to see them, and how to go on with them.
        """
        images = sum(self.source.sizes) + len(self.source.rejects)
        if len(rejects) <= self._max_reject_fraction * images:
            return
        counted = Counter(reject.reason for reject in rejects).most_common(3)
        reasons = ", ".join(f"{count} {reason}" for reason, count in counted)
        first = next(one for one in rejects if one.reason == counted[0][0])
        raise RunError(
            f"{len(rejects)} of {images} images were rejected "
            f"({len(rejects) / images:.2%}); --max_reject_fraction allows "
            f"{self._max_reject_fraction:.2%}. Reasons: {reasons}, such as "
            f"{first.id!r} ({first.detail}). {advice}"
        )


def in_words(folder: AnyPath, seconds: float) -> str:
    """Returns what finished PREDICTIONS are, in two lines.

    Args:
        folder: PREDICTIONS.
        seconds: that the run took.
    """
    value = atomic.read_json(folder / predictions_manifest.MANIFEST)
    account, entries = value["ledger"], value["files"]
    rejects = folder / predictions_manifest.REJECTS
    rows = ledger.read_rejects(rejects) if rejects.is_file() else []
    reasons = Counter(reject.reason for reject in rows)
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    return (
        f"PREDICTIONS {folder} is complete: {account['examples']} images = "
        f"{account['predicted']} predicted + {account['rejected']} rejected"
        f"{f' ({why})' if why else ''}\n"
        f"  {value['rows']} rows in {len(entries)} files, "
        f"{in_bytes(sum(entry['bytes'] for entry in entries))}; {seconds:.1f} s"
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


def _refuse_other_version(output: ResumableFolder, format: Format) -> None:
    """The key of another release would differ in more than its version."""
    if not output.manifest.is_file():
        return
    if atomic.read_json(output.manifest).get("parquet", False) != format.parquet:
        return  # Parquet has a version of its own: that it differs tells no release
    if different := output.other({"version": format.version}):
        raise RunError(
            f"{output.folder} was made by another release: {different}. Name another "
            "folder, or remove this one and run again."
        )


def _source(
    contract: Contract, order: PredictionRequest, kept: AnyPath | None
) -> Input:
    """Returns what is predicted, held to what the model takes.

    Args:
        contract: of the model.
        order: what is asked for.
        kept: for a worker, where the launcher has kept the photos that it listed.
    """
    if order.images:
        if kept:
            listed = photo_listing.read(kept)
        else:
            listed = photo_listing.list_photos(order.images, split=order.split)
        return FromImages(listed, order.split, ImageContract(**contract.image))
    assert order.dataset
    dataset = manifest.load(order.dataset)
    contract.check(dataset)
    return FromDataset(dataset, order.split)


def _key(contract: Contract, source: Input, order: PredictionRequest) -> dict[str, Any]:
    """Everything that decides the content; part of predictions.json."""
    sample = order.sample_submission
    return {
        "version": order.format.version,
        "model": contract.fingerprint,
        "classes": manifest.classes_entry(contract.classes),
        **source.key,
        **order.format.key(),
        "sample_submission": atomic.sha256(sample) if sample else None,
    }


def _without_last_step(key: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what of a key decides the parts, of which the last step makes the rest.

    That is all of it but for a submission: its parts are of all images, and plain text.
    """
    last = _LAST_STEP if key["format"] == "submission" else ()
    return {name: value for name, value in key.items() if name not in last}


def _refuse_missing(folder: AnyPath) -> None:
    """A finished folder may have lost a file since."""
    entries = atomic.read_json(folder / predictions_manifest.MANIFEST)["files"]
    names = [entry["file"] for entry in entries]
    there = atomic.sizes(folder)
    if missing := [name for name in names if name not in there]:
        raise RunError(
            f"{folder / missing[0]} is missing ({len(missing)} in all), though the "
            "predictions were complete. Restore it, or remove the folder and run again."
        )
