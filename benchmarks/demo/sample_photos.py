"""Sample photos for `make demo`: painted landscapes, as large as a camera's.

Five kinds of scene in different light, with grain; a few broken files among them, as
in any real collection. A seed decides every byte.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pipeline.system import console
from pipeline.system.console import progress

HEIGHT, WIDTH = 1200, 1600
IMAGES = {"train": 48, "validation": 12, "test": 10}  # per class, once

Colour = tuple[int, int, int]
Painter = Callable[[ImageDraw.ImageDraw, np.random.Generator], None]


def write(root: Path, *, seed: int = 0, times: int = 1) -> None:
    """Writes `train/<class>/`, `validation/<class>/` and a flat `test/`.

    A `root` that exists is left as it is.

    Args:
        root: the folder to make.
        seed: of all that is painted.
        times: as many photos as the demo needs.
    """
    if root.exists():
        console.conclude(f"IMAGES {root} is there already; nothing to paint.")
        return
    unfinished = root.with_name(f".{root.name}.unfinished")
    total = times * len(SCENES) * sum(IMAGES.values())
    rng = np.random.default_rng(seed)
    with progress(total, "painting") as bar:
        for split, count in IMAGES.items():
            for label, painter in sorted(SCENES.items()):
                folder = unfinished / split / (label if split != "test" else "")
                folder.mkdir(parents=True, exist_ok=True)
                for _ in range(times * count):
                    name = f"{rng.integers(16**8):08x}.jpg"
                    (folder / name).write_bytes(paint(painter, rng))
                    bar.update()
    _break_some(unfinished)
    unfinished.rename(root)
    console.conclude(f"IMAGES {root} is complete: {total} photos, some files broken")


def paint(painter: Painter, rng: np.random.Generator) -> bytes:
    """Paints one JPEG of HEIGHT x WIDTH: a scene, the light of the day, and grain."""
    canvas = Image.new("RGB", (WIDTH, HEIGHT))
    painter(ImageDraw.Draw(canvas), rng)
    grain = rng.integers(-12, 13, (HEIGHT // 2, WIDTH // 2, 1), np.int16)
    grain = grain.repeat(2, axis=0).repeat(2, axis=1)
    light = rng.uniform(0.7, 1.15) * rng.uniform(0.93, 1.07, 3)
    pixels = np.asarray(canvas) * light.astype(np.float32) + grain
    encoded = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
        encoded, "JPEG", quality=88
    )
    return encoded.getvalue()


def _beach(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    horizon, shore = int(rng.integers(350, 550)), int(rng.integers(700, 900))
    _band(draw, 0, horizon, (110, 180, 235), (200, 225, 245))
    _band(draw, horizon, shore, (20, 90, 140), (80, 170, 180))
    _band(draw, shore, HEIGHT, (235, 215, 165), (205, 180, 125))
    for _ in range(12):  # foam
        x, y = int(rng.integers(0, WIDTH)), int(rng.integers(horizon, shore + 40))
        length = int(rng.integers(60, 300))
        draw.ellipse((x, y, x + length, y + 8), fill=(235, 245, 245))
    _sun(draw, rng, horizon)


def _city(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _band(draw, 0, HEIGHT, (12, 14, 40), (60, 45, 80))
    for x in range(-50, WIDTH, 130):
        top, shade = int(rng.integers(250, 800)), int(rng.integers(25, 60))
        draw.rectangle((x, top, x + 118, HEIGHT), fill=(shade, shade, shade + 12))
        for wx in range(x + 12, x + 100, 26):
            for wy in range(top + 15, HEIGHT, 40):
                if rng.random() < 0.5:
                    draw.rectangle((wx, wy, wx + 14, wy + 22), fill=(250, 215, 120))


def _forest(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _band(draw, 0, HEIGHT, (175, 200, 190), (40, 60, 30))
    for y in np.sort(rng.integers(500, 1250, 70)):
        x, size = int(rng.integers(-50, WIDTH)), int(y) // 3
        green = (int(rng.integers(10, 50)), int(rng.integers(70, 120)), 35)
        draw.rectangle((x - 9, y - 20, x + 9, y + 60), fill=(70, 45, 25))
        for part in (0.0, 0.35, 0.7):
            tip, half = int(y - size * (1.6 - part)), int(size * (0.25 + part / 3))
            base = int(y - size * (0.7 - part))
            draw.polygon([(x, tip), (x - half, base), (x + half, base)], fill=green)


def _meadow(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    horizon = int(rng.integers(250, 450))
    _band(draw, 0, horizon, (140, 195, 240), (215, 230, 240))
    _band(draw, horizon, HEIGHT, (150, 195, 80), (70, 140, 40))
    colours = [(225, 50, 60), (245, 225, 70), (240, 240, 245), (170, 80, 200)]
    for y in np.sort(rng.integers(horizon, HEIGHT, 500)):
        x, size = int(rng.integers(0, WIDTH)), 3 + (int(y) - horizon) // 45
        colour = colours[rng.integers(len(colours))]
        draw.ellipse((x - size, y - size, x + size, y + size), fill=colour)


def _mountains(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _band(draw, 0, HEIGHT, (90, 150, 215), (220, 230, 240))
    for layer in range(3):
        for _ in range(5):
            x, peak = int(rng.integers(0, WIDTH)), int(rng.integers(250, 550))
            peak += 160 * layer
            half, grey = int(rng.integers(300, 600)), 130 - 30 * layer
            foot = peak + int(1.3 * half)
            slope = [(x, peak), (x - half, foot), (x + half, foot)]
            draw.polygon(slope, fill=(grey, grey, grey + 12))
            cap, line = half // 4, peak + (foot - peak) // 4
            draw.polygon(
                [(x, peak), (x - cap, line), (x + cap, line)], fill=(245, 248, 252)
            )
    _band(draw, 1050, HEIGHT, (120, 110, 95), (90, 85, 75))


SCENES: dict[str, Painter] = {
    "beach": _beach,
    "city": _city,
    "forest": _forest,
    "meadow": _meadow,
    "mountains": _mountains,
}


def _band(
    draw: ImageDraw.ImageDraw, top: int, bottom: int, above: Colour, below: Colour
) -> None:
    """A vertical gradient over the rows top … bottom."""
    for y in range(top, bottom):
        part = (y - top) / (bottom - top)
        colour = tuple(
            round(a + part * (b - a)) for a, b in zip(above, below, strict=True)
        )
        draw.line((0, y, WIDTH, y), fill=colour)


def _sun(draw: ImageDraw.ImageDraw, rng: np.random.Generator, horizon: int) -> None:
    x, y = int(rng.integers(150, WIDTH - 150)), int(rng.integers(80, horizon))
    draw.ellipse((x - 60, y - 60, x + 60, y + 60), fill=(255, 240, 190))


def _break_some(root: Path) -> None:
    """Cuts one file short, and adds an empty one and one that is no image."""
    cut = min((root / "train" / "city").iterdir())
    cut.write_bytes(cut.read_bytes()[:40_000])
    (root / "train" / "beach" / "upload-failed.jpg").write_bytes(b"")
    (root / "test" / "not-a-photo.jpg").write_text("<html>404 Not Found</html>")
