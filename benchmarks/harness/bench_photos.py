"""The photos that a benchmark reads."""

from pathlib import Path

from pipeline.dataset.manifest import ImageContract
from pipeline.estimate import sample
from pipeline.images import conversion, image_bytes
from pipeline.sources import layout
from pipeline.system.errors import RunError

_JPEG = b"\xff\xd8\xff"


def jpegs(
    images: Path, contract: ImageContract, *, at_most: int, seed: int
) -> list[Path]:
    """JPEGs that can be decoded, for a benchmark; reading them warms the page cache.

    Raises:
        RunError: there is none.
    """
    listed = layout.list_images(images, seed=seed).refs
    refs = [
        ref for ref in listed if image_bytes.is_file(ref.uri)
    ]  # they will be linked
    chosen = [Path(ref.uri) for ref in sample(refs, at_most, seed=seed)]
    good = [path for path in chosen if _is_good(path, contract)]
    if not good:
        raise RunError(
            f"none of {len(chosen)} files of {images} is a JPEG that can be decoded; "
            "the benchmark needs one at least, outside archives. Name another folder."
        )
    return good


def _is_good(path: Path, contract: ImageContract) -> bool:
    try:
        data = image_bytes.read(str(path))
        conversion.convert(data, contract)
    except conversion.BadImage:
        return False
    return data.startswith(_JPEG)
