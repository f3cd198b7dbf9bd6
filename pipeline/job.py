"""IMAGES → DATASET: the Beam graph and its runner. Only this module imports Beam."""

import json
import logging
import shlex
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

logging.basicConfig(level=logging.ERROR)  # Beam warns of every extra that is not there

import apache_beam as beam  # noqa: E402
from apache_beam.options.pipeline_options import (  # noqa: E402
    DirectOptions,
    PipelineOptions,
)
from apache_beam.portability.api import beam_provision_api_pb2  # noqa: E402
from apache_beam.runners.portability.fn_api_runner import fn_runner  # noqa: E402
from apache_beam.runners.portability.portable_runner import (  # noqa: E402
    JobServiceHandle,
)
from apache_beam.transforms.environments import (  # noqa: E402
    SubprocessSDKEnvironment,
)

from pipeline import files, image, ledger, manifest, shard, sources  # noqa: E402
from pipeline.console import RunError, UsageError, progress  # noqa: E402
from pipeline.manifest import ImageContract  # noqa: E402
from pipeline.workfolder import WorkFolder  # noqa: E402

_WORKER = "apache_beam.runners.worker.sdk_worker_main"


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
        overwrite: remove what an earlier run left in `dataset`.
        beam_arguments: options for Beam.

    Raises:
        RunError: the images or the folder are at fault.
        UsageError: Beam does not know an option.
    """
    started = time.monotonic()
    options = beam_options(beam_arguments, workers)
    listing = sources.list_images(
        images,
        validation_fraction=validation_fraction,
        seed=seed,
        labelled_test=labelled_test,
    )
    slices = shard.plan(listing, count=shards, seed=seed)
    key = _key(listing, slices, contract, validation_fraction, seed)
    folder = WorkFolder(dataset, manifest=manifest.MANIFEST)
    if overwrite:
        folder.clear("*.tfrecord", manifest.CLASSES, manifest.REJECTS)
    if folder.start(key):
        print(f"DATASET {dataset} is complete already; nothing to do.")
        return
    planned = shard.write_plan(dataset, slices, listing.classes)
    _write_shards(dataset, planned, contract, options)
    account = _finish(folder, key, listing, planned, max_reject_fraction)
    _report(dataset, account, time.monotonic() - started)


def beam_options(arguments: Sequence[str], workers: int) -> PipelineOptions:
    """Beam's options for the local runner, with ours as defaults.

    Raises:
        UsageError: Beam does not know one of them; it would drop it in silence.
    """
    options = PipelineOptions(
        [
            f"--direct_num_workers={workers}",
            "--direct_running_mode=multi_processing",
            "--default_sdk_harness_log_level=ERROR",
            *arguments,
        ]
    )
    known = options.get_all_options()
    unknown = options.get_all_options(retain_unknown_options=True).keys() - known
    if unknown:
        names = ", ".join(f"--{name}" for name in sorted(unknown))
        raise UsageError(f"Beam {beam.__version__} knows no option {names}")
    return options


def _write_shards(
    dataset: Path,
    planned: Mapping[str, int],
    contract: ImageContract,
    options: PipelineOptions,
) -> None:
    """Runs the Beam job over the shards that are not committed yet."""
    missing = [name for name in planned if shard.read_note(dataset, name) is None]
    if not missing:
        return
    watch = _Watch(dataset, planned, missing)
    watch.start()
    try:
        _run_beam(missing, dataset, contract, options)
    finally:
        watch.stop()


def _run_beam(
    names: Sequence[str],
    dataset: Path,
    contract: ImageContract,
    options: PipelineOptions,
) -> None:
    runner = _local_runner(options, log=_log_path(dataset))
    try:
        with beam.Pipeline(runner=runner, options=options) as pipeline:
            _ = (
                pipeline
                | "Shards" >> beam.Create(names)  # str, a few bytes each
                | "Spread" >> beam.Reshuffle()  # else one worker gets them all
                | "Write"
                >> beam.Map(shard.write, folder=str(dataset), contract=contract)
            )
    except RuntimeError as error:  # what FnApiRunner makes of any failure of a worker
        last = str(error).strip().splitlines()[-1]
        raise RunError(
            f"a shard worker failed: {last}. {_log_path(dataset)} has the rest. What "
            "was committed is kept: mend the cause and run the same command again."
        ) from error


def _local_runner(options: PipelineOptions, *, log: Path) -> fn_runner.FnApiRunner:
    """The runner that DirectRunner ends up with, less its attempt to download Prism.

    Its worker processes learn the options from the provision info. Their command is
    FnApiRunner's own for `multi_processing`, but quoted for the shell that runs it,
    and with stderr in a file.
    """
    direct = options.view_as(DirectOptions)
    environment = None
    if direct.direct_running_mode == "multi_processing":
        direct.direct_running_mode = "in_memory"  # else it would set its own command
        environment = SubprocessSDKEnvironment.from_command_string(
            f"exec {shlex.quote(sys.executable)} -m {_WORKER} 2>> "
            f"{shlex.quote(str(log))}"
        )
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    info = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    return fn_runner.FnApiRunner(
        default_environment=environment,
        provision_info=fn_runner.ExtendedProvisionInfo(info),
    )


class _Watch(threading.Thread):
    """Shows progress: the runner itself says nothing until the end.

    Looks for new sidecars every half second, and once more when stopped.
    """

    def __init__(
        self, dataset: Path, planned: Mapping[str, int], missing: Sequence[str]
    ) -> None:
        super().__init__(daemon=True)
        self._dataset = dataset
        self._planned = planned
        self._missing = missing
        self._bytes_read = 0
        self._rejected = 0
        self._stopped = threading.Event()
        total = sum(planned.values())
        there = total - sum(planned[name] for name in missing)
        if there:
            print(f"going on: {there} of {total} images are in committed shards")
        self._bar = progress(total, "shards", done=there)

    def run(self) -> None:
        while not self._stopped.wait(0.5):
            self._look()

    def stop(self) -> None:
        """Ends the display."""
        self._stopped.set()
        self.join()
        self._look()
        self._bar.close()

    def _look(self) -> None:
        notes = {name: shard.read_note(self._dataset, name) for name in self._missing}
        self._missing = [name for name, note in notes.items() if note is None]
        for name, note in notes.items():
            if note is not None:
                self._bytes_read += note.tally.bytes_read
                self._rejected += len(note.tally.rejects)
                self._bar.set_postfix_str(
                    f"{self._bytes_read / 1e6:,.0f} MB read, {self._rejected} rejected",
                    refresh=False,
                )
                self._bar.update(self._planned[name])


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
        f"written + {account.rejected.total()} rejected, {account.ignored} other "
        "files ignored",
        *(_split_line(name, account) for name in account.splits),
        f"{seconds:.1f} s, {images / seconds:.0f} images/s, "
        f"{account.bytes_read / seconds / 1e6:.1f} MB/s",
    ]
    if emptied := account.emptied_classes():
        lines.insert(-1, f"  classes without a training image: {', '.join(emptied)}")
    text = "\n".join(lines)
    print(text)
    with _log_path(dataset).open("a") as log:
        print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=log)


def _log_path(dataset: Path) -> Path:
    """The log beside a dataset: nothing in DATASET itself depends on the run."""
    return dataset.absolute().with_name(f"{dataset.name}.log")


def _split_line(name: str, account: ledger.Ledger) -> str:
    split = account.splits[name]
    size = sum(part.bytes for part in split.shards) / 1e6
    reasons = ", ".join(f"{n} {reason}" for reason, n in account.reasons(name).items())
    return (
        f"  {name:<10} {split.examples} written in {len(split.shards)} shards "
        f"({size:.1f} MB), {split.rejected} rejected" + (f": {reasons}" * bool(reasons))
    )
