"""Small photos, and a small collection of them."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("blue", "green", "red")
PER_CLASS = {"train": 8, "validation": 3}
TEST = 7
HEIGHT, WIDTH = 32, 40  # the least that VGG16 takes


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    """Encodes uint8[height, width, 3] as a JPEG of quality 95."""
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG", **{"quality": 95, **options})
    return encoded.getvalue()


def photo(channel: int, seed: int, height: int = 96, width: int = 120) -> np.ndarray:
    """A smooth picture; `channel`, of red, green and blue, is the brightest."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 90, (6, 8, 3), np.uint8)
    coarse[..., channel] += 130
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.BICUBIC))


def write_images(root: Path) -> None:
    """train/ and validation/ of three classes, a flat test/, two broken files."""
    for split, count in PER_CLASS.items():
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                seed = len(split) * 1000 + label * 100 + index
                pixels = photo(2 - label, seed)
                (folder / f"{index:02d}.jpg").write_bytes(jpeg(pixels))
    (root / "test").mkdir()
    for index in range(TEST):
        (root / "test" / f"photo {index}.jpg").write_bytes(
            jpeg(photo(index % 3, index))
        )
    whole = (root / "train" / "red" / "00.jpg").read_bytes()
    (root / "train" / "red" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "test" / "page.jpg").write_text("<html>not found</html>")
