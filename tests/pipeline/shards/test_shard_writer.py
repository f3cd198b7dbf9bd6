"""The plan of the shards, and one shard."""

from pathlib import Path

import pytest

from pipeline.dataset import sidecar
from pipeline.dataset.ledger import Reject
from pipeline.dataset.manifest import ImageContract
from pipeline.shards import plan, shard_writer
from pipeline.sources.listing import ImageRef, Listing
from pipeline.storage.resumable_folder import ResumableFolder
from tests.support.photos import jpeg, photo

CONTRACT = ImageContract(height=32, width=40)


def listing_of(train: int, test: int = 0) -> Listing:
    refs = [ImageRef(f"a/{i}.jpg", f"/x/a/{i}.jpg", "a", "train") for i in range(train)]
    refs += [ImageRef(f"{i}.jpg", f"/x/{i}.jpg", None, "test") for i in range(test)]
    return Listing("splits", refs=refs, classes=("a",))


@pytest.mark.parametrize(
    ("images", "shards"),
    [
        (1, 1),
        (64, 1),
        (65, 2),
        (1024, 16),
        (16_384, 16),
        (16_385, 17),
        (1_200_000, 1172),
    ],
)
def test_default_count(images: int, shards: int) -> None:
    assert plan.default_count(images) == shards


@pytest.mark.parametrize(
    ("images", "count", "sizes"),
    [(10, 1, [10]), (10, 3, [3, 3, 4]), (10, 10, [1] * 10), (3, 8, [1, 1, 1])],
)
def test_plan_cuts_equal_slices(images: int, count: int, sizes: list[int]) -> None:
    slices = plan.cut_slices(listing_of(images), count=count, seed=0)
    assert [len(part) for part in slices["train"]] == sizes


def test_plan_does_not_depend_on_the_order_of_the_listing() -> None:
    listing = listing_of(50, 20)
    slices = plan.cut_slices(listing, count=4, seed=1)
    listing.refs.reverse()
    assert plan.cut_slices(listing, count=4, seed=1) == slices
    assert plan.cut_slices(listing, count=4, seed=2) != slices


def test_plan_shuffles_and_loses_nothing() -> None:
    listing = listing_of(50, 20)
    slices = plan.cut_slices(listing, count=4, seed=1)
    for split in ("train", "test"):
        planned = [ref for part in slices[split] for ref in part]
        listed = [ref for ref in listing.refs if ref.split == split]
        assert planned != listed
        assert sorted(planned) == sorted(listed)


def test_a_split_of_rejections_alone_gets_an_empty_shard() -> None:
    listing = listing_of(2)
    listing.rejects.append(Reject("x.jpg", "validation", "", "no_class", ""))
    assert plan.cut_slices(listing, count=None, seed=0)["validation"] == [[]]


def test_write_counts_every_image(tmp_path: Path) -> None:
    good, cut, gone = (tmp_path / name for name in ("good.jpg", "cut.jpg", "gone.jpg"))
    good.write_bytes(jpeg(photo(0, 0)))
    cut.write_bytes(jpeg(photo(0, 0))[:500])
    refs = [
        ImageRef(f"a/{path.name}", str(path), "a", "train")
        for path in (good, cut, gone)
    ]
    output = tmp_path / "dataset"
    ResumableFolder(output, manifest="dataset.json").start({})
    (name,) = plan.write_plan(output, {"train": [refs]}, ["a"])
    assert sidecar.read_note(output, name) is None
    shard_writer.write(name, str(output), CONTRACT)
    note = sidecar.read_note(output, name)
    assert note is not None
    assert note.shard.examples == 1
    assert note.shard.bytes == (output / name).stat().st_size
    assert note.tally.written == {"a": 1}
    assert note.tally.bytes_read == good.stat().st_size + 500
    assert [(row[0], row[1], row[2]) for row in note.tally.rejects] == [
        ("a/cut.jpg", "a", "damaged"),
        ("a/gone.jpg", "a", "unreadable"),
    ]
