"""The photos that a DATASET was made of, where they are at hand, made small.

Some of them ended the process that decoded them, so they are decoded in a child.
"""

import io
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile

from pipeline.dataset.manifest import MAX_PIXELS, ImageContract
from pipeline.images import conversion, image_bytes
from pipeline.images.conversion import BadImage
from pipeline.page import pictures
from pipeline.sources import named_files
from pipeline.storage import side_files
from pipeline.storage.object_paths import AnyPath
from pipeline.system import child_process
from pipeline.system.child_process import ChildLostError, ChildPool
from pipeline.system.console import in_bytes
from pipeline.system.errors import UnavailableError

SIDE = 200  # pixels of the longer side
_QUALITY = 80
_SECONDS = 10.0  # that a photo may take
# That Pillow may decode of a file that was rejected for its pixels: of a JPEG 1/64.
_DRAFT_PIXELS = 4 * MAX_PIXELS


class Thumbnail(NamedTuple):
    """A photo, made small.

    Attributes:
        jpeg: of SIDE pixels at most.
        about: size, format and bytes of the photo in words.
        whole: False where only a part of it could be decoded.
    """

    jpeg: bytes
    about: str
    whole: bool


class Originals:
    """Finds the file of an id, without listing a folder.

    Args:
        roots: IMAGES; none where nothing says where they are.
        layout: of dataset.json: `splits`, `classes` or `manifest`.
    """

    def __init__(self, roots: Sequence[AnyPath], layout: str) -> None:
        self.roots, self._layout = roots, layout

    @classmethod
    def of(
        cls,
        dataset: AnyPath,
        value: Mapping[str, Any],
        images: AnyPath | Sequence[AnyPath] | None,
    ) -> "Originals":
        """Returns those of a dataset.

        Args:
            dataset: the folder.
            value: its dataset.json.
            images: IMAGES, in place of what DATASET.source.json says.
        """
        noted = side_files.read_source(dataset)
        if images is None:
            images = [side_files.located(x, noted) for x in noted.get("images", ())]
        roots = images if isinstance(images, Sequence) else [images]
        return cls(roots, value["source"]["layout"])

    def find(self, split: str, image_id: str) -> str | None:
        """Returns the uri of a photo; None where no file is where it should be."""
        path, _ = named_files.reading(image_id)
        if not path or ".." in path.split("/") or "\0" in path:
            return None
        for root in self.roots:
            for name in self._names(split, path):
                # An id may be longer than the name of a file.
                if _is_file(found := root / name):
                    return str(found)
        return None

    def _names(self, split: str, path: str) -> Iterator[str]:
        """Yields where a photo may be below a root."""
        if self._layout == "splits":
            yield f"{split}/{path}"
        elif self._layout == "classes":
            yield path
        else:
            for spelled in named_files.spellings(path):
                yield spelled
                # Google's landmarks lie three folders deep: 0/a/1/0a1b.jpg.
                if "/" not in spelled and len(posixpath.splitext(spelled)[0]) > 2:
                    yield "/".join([*spelled[:3], spelled])


def _is_file(path: AnyPath) -> bool:
    try:
        return path.is_file()
    except (OSError, UnavailableError):
        return False


class PhotoDecoder:
    """A child process that makes photos small; to be closed."""

    def __init__(self) -> None:
        self._pool = ChildPool(1)

    def close(self) -> None:
        """Ends the process."""
        self._pool.end()

    def thumbnail(self, uri: str | None) -> Thumbnail | None:
        """Returns a small picture of a photo; None where nothing can be shown.

        Args:
            uri: of `Originals.find`.
        """
        if uri is None:
            return None
        try:
            return self._pool.call(partial(_thumbnail, uri), seconds=_SECONDS)
        except ChildLostError:
            return None


def _thumbnail(uri: str) -> Thumbnail | None:
    """Decodes a photo, or as much of it as there is; in a child."""
    child_process.at(0)
    try:
        data = image_bytes.read(uri)
    except (BadImage, UnavailableError):
        return None
    try:
        contract = ImageContract(height=SIDE, width=SIDE, resize="pad")
        pixels, original = conversion.decode_described(data, contract)
    except BadImage:
        return _insisting(data)
    about = _in_words(original.width, original.height, original.format, len(data))
    small = pictures.small_jpeg(pixels, side=SIDE, quality=_QUALITY)
    return Thumbnail(small, about, whole=True)


def _insisting(data: bytes) -> Thumbnail | None:
    """Shows what Pillow can make of a file that was rejected."""
    ImageFile.LOAD_TRUNCATED_IMAGES = True  # this process does nothing else
    try:
        image = Image.open(io.BytesIO(data))
        kind, (width, height) = str(image.format).lower(), image.size
        image.draft("RGB", (2 * SIDE, 2 * SIDE))
        drafted = image.size != (width, height) and "progressive" not in image.info
        if width * height > (_DRAFT_PIXELS if drafted else MAX_PIXELS):
            return None
        pixels = np.asarray(image.convert("RGB"))
    except Exception:  # noqa: BLE001 (decoders of broken files raise anything)
        return None
    if not np.ptp(pixels, axis=(0, 1)).any():  # nothing of it was decoded
        return None
    about = _in_words(width, height, kind, len(data))
    small = pictures.small_jpeg(pixels, side=SIDE, quality=_QUALITY)
    return Thumbnail(small, about, whole=False)


def _in_words(width: int, height: int, kind: str, size: int) -> str:
    amount = in_bytes(size) if size >= 1000 else f"{size} bytes"
    return f"{width}×{height} {kind.upper()}, {amount}"  # noqa: RUF001
