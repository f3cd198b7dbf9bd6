"""Near copies: found where they are, and nowhere else."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from pipeline import preprocess
from pipeline.dataset import manifest
from pipeline.dataset.manifest import ImageContract
from pipeline.inspection import near_copies
from pipeline.inspection.near_copies import LIMIT
from pipeline.options import ShardsOptions
from pipeline.system.errors import RunError
from tests.support.photos import jpeg, photo


def picture(seed: int) -> Image.Image:
    return Image.fromarray(photo(seed % 3, seed, 120, 160))


def hashed(image: Image.Image, quality: int = 90) -> tuple[np.ndarray, np.ndarray]:
    encoded = io.BytesIO()
    image.convert("RGB").resize((200, 150)).save(encoded, "JPEG", quality=quality)
    found = near_copies.hash_picture(encoded.getvalue())
    assert found is not None
    return found


def differ(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.bitwise_count(one ^ other).sum())


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((80, 60)),
        lambda image: image.convert("L"),
        lambda image: ImageEnhance.Brightness(image).enhance(0.9),
        lambda image: ImageEnhance.Contrast(image).enhance(1.1),
    ],
    ids=["smaller", "grey", "darker", "more contrast"],
)
def test_a_copy_has_nearly_the_same_hash(change) -> None:
    for seed in range(20):
        bits, cells = hashed(picture(seed))
        again, those = hashed(change(picture(seed)), quality=50)
        assert differ(bits, again) <= LIMIT
        assert near_copies.correlations(cells[None], those[None])[0] > 0.98


def test_other_pictures_have_other_hashes() -> None:
    bits = np.array([hashed(picture(seed))[0] for seed in range(60)])
    for number, own in enumerate(bits):
        assert all(differ(own, other) > LIMIT for other in bits[number + 1 :])


def test_a_picture_of_one_colour_has_none() -> None:
    assert near_copies.hash_picture(jpeg(np.full((150, 200, 3), 200, np.uint8))) is None


def test_every_near_pair_is_found() -> None:
    """As by comparing all with all."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**64, (300, 2), np.uint64)
    for number in range(0, 200, 2):  # up to 10 bits of the next one are other ones
        bits[number + 1] = bits[number]
        for bit in rng.choice(128, number // 20 + 1, replace=False):
            bits[number + 1, bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    pairs = np.stack(near_copies.near_pairs(bits), axis=1)
    found = {(int(min(pair)), int(max(pair))) for pair in pairs}
    expected = {
        (one, other)
        for one in range(300)
        for other in range(one + 1, 300)
        if differ(bits[one], bits[other]) <= LIMIT
    }
    assert found == expected
    assert len(found) >= 60


def test_groups() -> None:
    """0, 2 and 4 look the same, 4 by way of 2; 1 is there twice; cells keep 5 apart."""
    bits = np.zeros((7, 2), np.uint64)
    bits[1] = bits[3] = 0xFFFF_FFFF_FFFF
    bits[2, 0], bits[4, 0], bits[5, 0] = 0b111_1111, 0b11_1111_1111_1111, 0b1
    bits[6] = 0xFFFF_0000_FFFF_0000
    cells = np.tile(np.arange(81, dtype=np.uint8), (7, 1))
    cells[5] = cells[5, ::-1]
    groups = near_copies.components(bits, cells)
    assert sorted(group.tolist() for group in groups) == [[0, 2, 4], [1, 3]]
    assert near_copies.components(bits[:0], cells[:0]) == []


def test_a_part_that_very_many_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies are found all the same: they are near in the order of the rest."""
    monkeypatch.setattr(near_copies, "_NEIGHBOURS", 3)
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**64, (500, 2), np.uint64)
    bits[:, 0] &= np.uint64(0xFF << 56)
    bits = np.concatenate([bits, bits ^ np.uint64(1)])
    first, second = near_copies.near_pairs(np.unique(bits, axis=0))
    assert len({*zip(first.tolist(), second.tolist(), strict=True)}) >= 500


def test_of_a_dataset(tmp_path: Path) -> None:
    root = tmp_path / "images"

    def save(path: str, seed: int, **options: object) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        picture(seed).save(root / path, **options)

    for seed in range(8):
        save(f"train/a/{seed}.jpg", seed)
    save("validation/a/again.png", 3)
    save("train/b/other.jpg", 5, quality=60)
    (root / "train/b/white.jpg").write_bytes(jpeg(np.full((9, 9, 3), 255, np.uint8)))
    folder = tmp_path / "dataset"
    contract = ImageContract(height=60, width=80)
    preprocess.run(
        ShardsOptions(images=root, dataset=folder, contract=contract, workers=1)
    )
    found = near_copies.find(manifest.load(folder), workers=1, most=9, of_each=9)
    assert [
        [(shown.split, shown.record.text, shown.record.id) for shown in group]
        for group in map(sorted, found.shown)
    ] == [
        [("train", "a", "a/3.jpg"), ("validation", "a", "a/again.png")],
        [("train", "a", "a/5.jpg"), ("train", "b", "b/other.jpg")],
    ]
    assert (found.images, found.across_splits, found.several_labels) == (2, 1, 1)
    assert found.flat == 1
    path = next(folder.glob("train-*"))
    path.write_bytes(path.read_bytes()[:-9] + bytes(9))
    with pytest.raises(RunError, match=r"train-.* is damaged: record"):
        near_copies.find(manifest.load(folder), workers=1, most=9, of_each=9)
