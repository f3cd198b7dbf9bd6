"""What a finished dataset is, in a few lines for people: dataset.json and no more."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.dataset.manifest import CONFLICTS, REJECTS, SPLITS
from pipeline.dataset.sidecar import ShardResult
from pipeline.storage.object_paths import AnyPath
from pipeline.system import console


def lines(
    dataset: AnyPath,
    value: Mapping[str, Any],
    before: Sequence[ShardResult],
    seconds: float,
) -> Iterator[str]:
    """Yields the closing lines of a run: the content, and how fast it was made.

    Args:
        dataset: the folder.
        value: its dataset.json.
        before: the shards that an earlier run has made; they are no part of the rates.
        seconds: that the run took.
    """
    yield from content(dataset, value)
    ledger = value["ledger"]
    listed = sum(split["listed"] for split in ledger["splits"].values())
    there = sum(note.shard.examples + len(note.tally.rejects) for note in before)
    read = ledger["bytes_read"] - sum(note.tally.bytes_read for note in before)
    earlier = f"; {there} images were there before" if there else ""
    yield (
        f"  {seconds:.1f} s, {(listed - there) / seconds:,.0f} images/s, "
        f"{read / seconds / 1e6:,.1f} MB/s{earlier}"
    )


def following(dataset: AnyPath, value: Mapping[str, Any]) -> str:
    """Returns the command that comes after a dataset was made, or read.

    Args:
        dataset: the folder.
        value: its dataset.json.
    """
    if value["splits"].get("train", {"examples": 0})["examples"]:
        return console.command("trainer", "train", dataset=dataset, model=None)
    given = {"model": None, "dataset": dataset, "predictions": None}
    return console.command("predictor", "predict", **given)


def content(dataset: AnyPath, value: Mapping[str, Any]) -> Iterator[str]:
    """Yields what a dataset is; the arguments are those of `lines`."""
    ledger = value["ledger"]
    listed, written, rejected = (
        sum(split[what] for split in ledger["splits"].values())
        for what in ("listed", "written", "rejected")
    )
    yield (
        f"DATASET {dataset} is complete: {listed} images listed = {written} written + "
        f"{rejected} rejected"
    )
    for name in sorted(value["splits"], key=SPLITS.index):
        yield _of_split(name, value["splits"][name], ledger["splits"][name]["reasons"])
    if ledger["duplicates"]["images"]:
        yield f"  {_of_twins(ledger['duplicates'])}"
    if ledger["conflicts"]["images"]:
        yield (
            f"  {ledger['conflicts']['images']} images have the bytes of another with "
            f"another label, such as {' = '.join(ledger['conflicts']['first'][:2])}: "
            f"see {CONFLICTS}"
        )
    if emptied := emptied_classes(value):
        yield f"  classes without a training image: {', '.join(emptied)}"
    if rejected:
        again = console.command("pipeline", "retry", dataset=dataset)
        yield f"  {REJECTS} says why; `{again}` adds what is mended"


def emptied_classes(value: Mapping[str, Any]) -> list[str]:
    """Classes that the rejections left without a training image.

    Args:
        value: dataset.json.
    """
    train = value["ledger"]["splits"].get("train", {"classes": {}})
    return sorted(
        name
        for name, counts in train["classes"].items()
        if name and not counts["written"]
    )


def _of_split(name: str, split: Mapping[str, Any], reasons: Mapping[str, int]) -> str:
    shards = split["shards"]
    size = console.in_bytes(sum(part["bytes"] for part in shards))
    count = f"{len(shards)} shard{'s' * (len(shards) != 1)}"
    line = (
        f"  {name:<10} {split['examples']} written in {count} ({size}), "
        f"{split['rejected']} rejected"
    )
    if not reasons:
        return line
    return f"{line}: {', '.join(f'{n} {reason}' for reason, n in reasons.items())}"


def _of_twins(twins: Mapping[str, Any]) -> str:
    line = f"{twins['images']} images are copies of another, byte for byte"
    across = twins["across_splits"]
    if not across:
        return line
    return (
        f"{line}; {len(across)} sets of copies straddle splits, such as "
        f"{' = '.join(across[0][:1] + across[0][-1:])}"
    )
