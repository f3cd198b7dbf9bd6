"""What --cache=auto decides, says, and keeps to."""

import dataclasses
from pathlib import Path

import pytest

from pipeline.dataset import manifest
from pipeline.system import resources
from pipeline.system.errors import RunError, UsageError
from trainer.cache import policy
from trainer.options import CacheOptions
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


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch):
    """Sets the gigabytes of memory and of disk that are free."""

    def free(memory: int, disk: int = 0) -> None:
        monkeypatch.setattr(resources, "free_memory", lambda: memory * GB)
        monkeypatch.setattr(resources, "free_disk", lambda _: disk * GB)

    return free


ARTICLE, AUGMENTED = RECIPES["article"], RECIPES["demo"]


@pytest.fixture
def choose(million, tmp_path: Path):
    """Chooses for 1.2 million pictures; for features the recipe must be ARTICLE."""

    def choose(wanted: str, recipe=AUGMENTED, dtype: str = "float32", **given):
        options = CacheOptions(cache=wanted, feature_dtype=dtype)
        return policy.choose(million, recipe, options, folder=tmp_path, **given)

    return choose


@pytest.mark.parametrize(
    ("wanted", "memory", "order", "kind", "on_disk", "why"),
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
def test_choices(free, choose, wanted, memory, order, kind, on_disk, why) -> None:
    free(memory)
    choice = choose(wanted, earlier=order and {"order": order})
    assert (choice.kind, choice.on_disk) == (kind, on_disk)
    assert why in choice.why
    assert "\n" not in str(choice)


BEGUN = {"features": {"layer": "block4_pool"}, "order": "permutation"}


@pytest.mark.parametrize(
    ("wanted", "dtype", "memory", "disk", "earlier", "kind", "why"),
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
    free, choose, wanted, dtype, memory, disk, earlier, kind, why
) -> None:
    free(memory, disk)
    choice = choose(wanted, ARTICLE, dtype, earlier=earlier)
    assert choice.kind == kind
    assert why in choice.why
    assert (choice.key()["features"] is not None) == (kind == "features")


def test_under_a_seed_memory_does_not_choose_the_order(free, choose) -> None:
    """What does not fit is refused; what changes no number is taken all the same."""
    free(10)
    with pytest.raises(UsageError, match=r"--cache=decoded, .* or --cache=none"):
        choose("auto", seeded=True)
    assert choose("none", seeded=True).kind == "none"
    for order, kind in (("window", "none"), ("permutation", "decoded")):
        earlier = {"order": order, "features": None}
        found = choose("auto", earlier=earlier, seeded=True)
        assert (found.kind, found.order) == (kind, order)
    free(20)
    assert choose("auto", seeded=True).kind == "encoded"


@pytest.mark.parametrize("room", [10, 500])
def test_under_a_seed_memory_does_not_choose_rounding(free, choose, room: int) -> None:
    free(room, room)
    for dtype in ("float16", "uint8"):
        with pytest.raises(UsageError, match=f"--feature_dtype={dtype} are rounded"):
            choose("auto", ARTICLE, dtype, seeded=True)
        chosen = choose("features", ARTICLE, dtype, seeded=True)
        assert chosen.kind == "features"


def test_pixels_of_a_later_phase_need_room_at_the_start(free, choose, million) -> None:
    """59 GB of features come first."""
    recipe = dataclasses.replace(
        ARTICLE, trainable="all", head_epochs=2, head_learning_rate=1e-3
    )
    free(10, 59 + 109)
    chosen = choose("features", recipe)
    head, everything = recipe.phases()
    assert policy.for_phase(chosen, head, million) == chosen
    later = policy.for_phase(chosen, everything, million)
    assert (later.kind, later.on_disk) == ("decoded", True)
    free(10, 59 + 90)
    with pytest.raises(RunError, match="take 108 GB, and 90 GB will be free"):
        choose("features", recipe)
    free(200, 59)
    assert choose("features", recipe).kind == "features"  # pixels fit into memory


def test_a_single_epoch_is_not_worth_features(free, choose) -> None:
    free(500, 500)
    for epochs, kind in ((1, "decoded"), (2, "features")):
        recipe = dataclasses.replace(ARTICLE, epochs=epochs)
        assert choose("auto", recipe).kind == kind


def test_features_that_cannot_be(free, choose) -> None:
    free(500, 500)
    with pytest.raises(UsageError, match="--cache=features: recipe demo augments"):
        choose("features")
    assert choose("auto").kind == "decoded"


def test_jpegs_that_do_not_fit_are_refused(free, choose) -> None:
    free(10)
    with pytest.raises(RunError, match=r"needs 12 GB of memory, and 7 GB may be used"):
        choose("encoded")


def test_the_space_of_an_earlier_cache_counts_as_free(
    million, monkeypatch, tmp_path: Path
) -> None:
    """Of sparse files, whose size is that of the features."""
    monkeypatch.setattr(resources, "free_memory", lambda: 400 * GB)
    monkeypatch.setattr(resources, "free_disk", lambda _: 0)
    (tmp_path / "train-features").mkdir()
    with (tmp_path / "train-features" / "features.npy").open("wb") as file:
        file.truncate(266 * GB)
    chosen = policy.choose(million, ARTICLE, CacheOptions(), folder=tmp_path)
    assert chosen.kind == "features"


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


def test_splits_that_every_epoch_reads(made_dataset: Path) -> None:
    """There is nothing to keep of a split that is empty or not there."""
    made = manifest.load(made_dataset)
    assert policy.splits(made) == ["train", "validation"]
    splits = {"train": made.split("train"), "validation": manifest.Split(0, 0, ())}
    assert policy.splits(dataclasses.replace(made, splits=splits)) == ["train"]
    del splits["validation"]
    assert policy.splits(dataclasses.replace(made, splits=splits)) == ["train"]
