"""The keyed hashes that choose validation images and order the shards."""

import random

import numpy as np
import pytest

from pipeline.sources.hashing import order_key, split_key, validation_ids

IDS = [f"red/{i:05d}.jpg" for i in range(10_000)]


@pytest.mark.parametrize(
    ("seed", "image_id", "split", "order"),
    [
        (0, "red/00.jpg", 0.6852589519177611, 18178286051940701184),
        (7, "é/1,2.jpg", 0.3799909913342269, 15025391725419673507),
        (-1, "x", 0.7134418072777156, 5292532864877276138),
    ],
)
def test_the_keys_never_change(
    seed: int, image_id: str, split: float, order: int
) -> None:
    """Else a dataset that is made again has other images in validation."""
    assert split_key(seed, image_id) == split
    assert order_key(seed, image_id) == order


def test_the_keys_are_uniform() -> None:
    keys = np.array([split_key(0, image_id) for image_id in IDS])
    orders = np.array([order_key(0, image_id) / 2**64 for image_id in IDS])
    for uniform in (keys, orders):
        counts, _ = np.histogram(uniform, bins=10, range=(0, 1))
        assert counts.sum() == len(IDS)
        assert counts.min() > 850
        assert counts.max() < 1150
    assert abs(np.corrcoef(keys, orders)[0, 1]) < 0.05


def test_the_order_is_not_that_of_the_split() -> None:
    """Else the images beside the validation images would stand in the first shard."""
    by_split = sorted(IDS[:100], key=lambda image_id: split_key(0, image_id))
    by_order = sorted(IDS[:100], key=lambda image_id: order_key(0, image_id))
    assert by_split != by_order
    assert by_order != sorted(by_order)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.9])
def test_about_the_fraction_validates(fraction: float) -> None:
    chosen = validation_ids(IDS, fraction=fraction, seed=0)
    deviation = (len(IDS) * fraction * (1 - fraction)) ** 0.5
    assert abs(len(chosen) - fraction * len(IDS)) < 4 * deviation


def test_a_fraction_of_0_chooses_none() -> None:
    assert validation_ids(IDS, fraction=0, seed=0) == set()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_one_image_of_every_class_trains(count: int) -> None:
    sizes = set()
    for label in range(100):
        ids = [f"{label}/{i}.jpg" for i in range(count)]
        chosen = validation_ids(ids, fraction=0.9, seed=0)
        assert chosen < set(ids)
        sizes.add(len(chosen))
    assert max(sizes) == count - 1  # the rule was needed


def test_the_image_with_the_largest_key_trains() -> None:
    ids = IDS[:5]
    largest = max(ids, key=lambda image_id: split_key(3, image_id))
    assert validation_ids(ids, fraction=1.0, seed=3) == set(ids) - {largest}


@pytest.mark.parametrize(("count", "validate"), [(4, 0), (5, 1), (12, 1)])
def test_one_image_of_five_or_more_validates(count: int, validate: int) -> None:
    """The one with the smallest key, where none has a key below the fraction."""
    ids = IDS[:count]
    fraction = min(split_key(0, image_id) for image_id in ids) / 2
    chosen = validation_ids(ids, fraction=fraction, seed=0)
    smallest = min(ids, key=lambda image_id: split_key(0, image_id))
    assert chosen == {smallest} if validate else chosen == set()
    assert validation_ids(ids, fraction=0, seed=0) == set()


def test_an_image_that_is_added_may_take_the_place_of_the_one_that_validates() -> None:
    ids = sorted(IDS[:20], key=lambda image_id: split_key(0, image_id))
    fraction = split_key(0, ids[0]) / 2
    before = validation_ids(ids[1:], fraction=fraction, seed=0)
    assert before == {ids[1]}
    assert validation_ids(ids, fraction=fraction, seed=0) == {ids[0]}


def test_the_order_of_the_listing_has_no_effect() -> None:
    shuffled = random.Random(0).sample(IDS, len(IDS))
    assert shuffled != IDS
    assert validation_ids(shuffled, fraction=0.1, seed=0) == validation_ids(
        IDS, fraction=0.1, seed=0
    )


@pytest.mark.parametrize("seed", range(5))
def test_adding_images_moves_no_other(seed: int) -> None:
    before = validation_ids(IDS[:1000], fraction=0.1, seed=seed)
    after = validation_ids(IDS, fraction=0.1, seed=seed)
    assert after & set(IDS[:1000]) == before
    assert len(after) > len(before)


def test_adding_images_moves_at_most_the_one_that_saved_its_class() -> None:
    """Some image of a class must train, and which depends on the others."""
    moves = 0
    for label in range(300):
        ids = [f"{label}/{i}.jpg" for i in range(4)]
        before = validation_ids(ids[:2], fraction=0.5, seed=0)
        moved = (validation_ids(ids, fraction=0.5, seed=0) & set(ids[:2])) ^ before
        if min(split_key(0, ids[0]), split_key(0, ids[1])) >= 0.5:
            assert not moved
        saved = max(ids[:2], key=lambda image_id: split_key(0, image_id))
        assert moved <= ({saved} if split_key(0, saved) < 0.5 else set())
        moves += len(moved)
    assert moves > 0


def test_seeds_differ() -> None:
    assert validation_ids(IDS, fraction=0.1, seed=0) != validation_ids(
        IDS, fraction=0.1, seed=1
    )
    assert order_key(0, "x") != order_key(1, "x")
