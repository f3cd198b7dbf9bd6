"""What --cache=auto decides, says, and keeps to."""

import dataclasses
from pathlib import Path

import pytest

from pipeline.dataset import manifest
from pipeline.system import resources
from pipeline.system.errors import RunError, UsageError
from trainer.cache import policy
from trainer.recipe import RECIPES

GB = 10**9


@pytest.fixture
def million(made_dataset: Path) -> manifest.Dataset:
    """The facts of a dataset of 1.2 million pictures: 108 GB as pixels, 12 as JPEGs."""
    shard = manifest.Shard("train-00000-of-00001.tfrecord", 1_200_000, 12 * GB, "")
    split = manifest.Split(1_200_000, 0, (shard,))
    empty = manifest.Split(0, 0, ())
    return dataclasses.replace(
        manifest.load(made_dataset),
        image=manifest.ImageContract(height=150, width=200),
        splits={"train": split, "validation": empty, "test": split},
    )


@pytest.mark.parametrize(
    ("wanted", "free", "order", "kind", "on_disk", "why"),
    [
        ("auto", 200, None, "decoded", False, "pixels take 108 GB, JPEGs 12 GB"),
        ("auto", 200, None, "decoded", False, "140 GB of memory may be used"),
        ("auto", 20, None, "encoded", False, "14 GB of memory may be used"),
        ("auto", 10, None, "none", False, "--cache=decoded would take local disk"),
        ("auto", 200, "window", "none", False, "as this run began"),
        ("auto", 20, "permutation", "encoded", False, "JPEGs 12 GB"),
        ("auto", 10, "permutation", "decoded", True, "as this run began"),
        ("none", 200, None, "none", False, "as asked for"),
        ("encoded", 200, None, "encoded", False, "JPEGs 12 GB"),
        ("decoded", 200, None, "decoded", False, "pixels take 108 GB"),
        ("decoded", 100, None, "decoded", True, "70 GB of memory may be used"),
    ],
)
def test_choices(million, monkeypatch, wanted, free, order, kind, on_disk, why) -> None:
    monkeypatch.setattr(resources, "free_memory", lambda: free * GB)
    choice = policy.choose(wanted, million, earlier=order and {"order": order})
    assert (choice.kind, choice.on_disk) == (kind, on_disk)
    assert why in choice.why
    assert "\n" not in str(choice)


@pytest.fixture
def of_million(tf, million):
    """What 1.2 million images make: 265 GB as float32, half of it as float16."""
    from trainer.cache import features

    def plan(dtype: str = "float32", **changes):
        recipe = dataclasses.replace(RECIPES["article"], **changes)
        return features.plan(recipe, million.image, dtype=dtype)

    return plan


BEGUN = {"features": {"layer": "block4_pool"}, "order": "permutation"}


@pytest.mark.parametrize(
    ("wanted", "dtype", "free", "disk", "earlier", "kind", "why"),
    [
        ("auto", "float32", 400, 300, {}, "features", "265 GB; ahead from epoch 2 on"),
        ("auto", "float32", 370, 300, {}, "decoded", "pixels take 108 GB"),
        ("auto", "float32", 400, 200, {}, "decoded", "pixels take 108 GB"),
        ("auto", "float16", 200, 200, {}, "features", "133 GB; ahead from epoch 2 on"),
        ("auto", "float16", 180, 200, {}, "decoded", "pixels take 108 GB"),
        ("auto", "float32", 400, 300, {"order": "permutation"}, "decoded", "108 GB"),
        ("auto", "float32", 10, 10, BEGUN, "features", "as this run began"),
        ("features", "float32", 10, 10, {}, "features", "block4_pool as float32"),
        ("decoded", "float32", 400, 300, {}, "decoded", "pixels take 108 GB"),
    ],
)
def test_features_where_they_fit(
    million, of_million, monkeypatch, wanted, dtype, free, disk, earlier, kind, why
) -> None:
    monkeypatch.setattr(resources, "free_memory", lambda: free * GB)
    choice = policy.choose(
        wanted, million, earlier=earlier, features=of_million(dtype), disk=disk * GB
    )
    assert choice.kind == kind
    assert why in choice.why
    assert (choice.key()["features"] is not None) == (kind == "features")


def test_under_a_seed_memory_does_not_choose_the_order(million, monkeypatch) -> None:
    """What does not fit is refused; what changes no number is taken all the same."""
    monkeypatch.setattr(resources, "free_memory", lambda: 10 * GB)
    with pytest.raises(UsageError, match=r"--cache=decoded, .* or --cache=none"):
        policy.choose("auto", million, seeded=True)
    assert policy.choose("none", million, seeded=True).kind == "none"
    for order, kind in (("window", "none"), ("permutation", "decoded")):
        earlier = {"order": order, "features": None}
        found = policy.choose("auto", million, earlier=earlier, seeded=True)
        assert (found.kind, found.order) == (kind, order)
    monkeypatch.setattr(resources, "free_memory", lambda: 20 * GB)
    assert policy.choose("auto", million, seeded=True).kind == "encoded"


@pytest.mark.parametrize("free", [10, 500])
def test_under_a_seed_memory_does_not_choose_rounding(
    million, of_million, monkeypatch, free: int
) -> None:
    monkeypatch.setattr(resources, "free_memory", lambda: free * GB)
    room = {"disk": free * GB, "seeded": True}
    for dtype in ("float16", "uint8"):
        with pytest.raises(UsageError, match=f"--feature_dtype={dtype} are rounded"):
            policy.choose("auto", million, features=of_million(dtype), **room)
        chosen = policy.choose("features", million, features=of_million(dtype), **room)
        assert chosen.kind == "features"


def test_pixels_of_a_later_phase_need_room_at_the_start(
    million, of_million, monkeypatch
) -> None:
    monkeypatch.setattr(resources, "free_memory", lambda: 10 * GB)
    kept = of_million(trainable="all", head_epochs=2, head_learning_rate=1e-3)
    first = policy.choose("features", million, features=kept)
    later = policy.after_features(first, million)
    assert (later.kind, later.on_disk) == ("decoded", True)
    policy.refuse_short_disk(later, million, 109 * GB)
    with pytest.raises(RunError, match="take 108 GB, and 90 GB will be free"):
        policy.refuse_short_disk(later, million, 90 * GB)


def test_a_single_epoch_is_not_worth_features(million, of_million, monkeypatch) -> None:
    monkeypatch.setattr(resources, "free_memory", lambda: 500 * GB)
    for epochs, kind in ((1, "decoded"), (2, "features")):
        plan = of_million(epochs=epochs)
        choice = policy.choose("auto", million, features=plan, disk=500 * GB)
        assert choice.kind == kind


def test_features_that_cannot_be(million) -> None:
    why = "trainable is 'all'"
    with pytest.raises(UsageError, match=f"--cache=features: {why}"):
        policy.choose("features", million, features=why)
    assert policy.choose("auto", million, features=why).kind != "features"


def test_jpegs_that_do_not_fit_are_refused(million, monkeypatch) -> None:
    monkeypatch.setattr(resources, "free_memory", lambda: 10 * GB)
    with pytest.raises(RunError, match=r"needs 12 GB of memory, and 7 GB may be used"):
        policy.choose("encoded", million)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (policy.CacheChoice("none", "because"), "cache: none: because"),
        (policy.CacheChoice("encoded", "so"), "cache: encoded, in memory: so"),
        (
            policy.CacheChoice("decoded", "so", on_disk=True),
            "cache: decoded, on disk: so",
        ),
    ],
)
def test_one_line_says_what_and_why(choice: policy.CacheChoice, words: str) -> None:
    assert str(choice) == words


@pytest.mark.parametrize("kind", ["none", "encoded", "decoded"])
@pytest.mark.parametrize("on_disk", [True, False])
def test_stores(tf, made_dataset: Path, tmp_path: Path, kind: str, on_disk) -> None:
    dataset = manifest.load(made_dataset)
    choice = policy.CacheChoice(kind, "", on_disk=on_disk and kind == "decoded")
    stores = policy.stores(choice, dataset, tmp_path)
    counts = {split: store.examples for split, store in stores.items()}
    assert counts == ({} if kind == "none" else {"train": 24, "validation": 9})
    assert (tmp_path / "train" / "pixels.npy").exists() == choice.on_disk


def test_a_dataset_without_validation(tf, million, made_dataset: Path) -> None:
    """There is nothing to keep of a split that is empty or not there."""
    made = manifest.load(made_dataset)
    splits = {"train": made.split("train"), "validation": manifest.Split(0, 0, ())}
    dataset = dataclasses.replace(made, splits=splits)
    stores = policy.stores(policy.CacheChoice("encoded", ""), dataset, Path("unused"))
    assert set(stores) == {"train"}
