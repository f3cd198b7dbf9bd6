"""Images that crash or stop the decoder cost nothing but themselves.

Images go to a child process many at a time. When the child is lost, the image that it
was at is tried once more, alone in a fresh child. If that child is lost, too, the image
is given up, and the others go to a child again.
"""

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import numpy as np
import simplejpeg

from pipeline.dataset.manifest import ImageContract
from pipeline.images import conversion, image_bytes
from pipeline.images.conversion import BadImage
from pipeline.system import child_process, console
from pipeline.system.child_process import ChildLostError, ChildPool
from pipeline.system.errors import RunError, UnavailableError

REASONS = {
    "decoder_crash": "the decoder ended the process that tried this image alone",
    "timeout": "no result after --image_timeout seconds",
}
_LOSSES = 3  # of children in a row, for which no image is to blame
_ADVICE = (
    "What was committed is kept: free memory, use fewer processes (--workers) or mend "
    "the installation, and run the same command again."
)

Why = tuple[str, str]  # reason and detail, as in rejects.csv
Result = TypeVar("Result")


def new_pool(count: int) -> ChildPool:
    """Makes a pool of children that decode images.

    A child decodes a known photo first. So what ends it before that is the fault of the
    machine, and no image's.
    """
    return ChildPool(count, begin=_decode_known_photo)


def run(
    pool: ChildPool,
    work: Callable[[Mapping[int, Why]], Result],
    image: Callable[[int], tuple[str, str]],
    contract: ImageContract,
    *,
    seconds: float,
) -> Result:
    """Returns what `work` returns in a child, whatever its images do to the child.

    Args:
        pool: of `new_pool`.
        work: calls child_process.at with the number of every image before it touches
            it. It is given reason and detail of the images that it is to leave out. It
            can be pickled, and is done again after a loss.
        image: returns the id and the uri of an image.
        contract: of the images.
        seconds: that one image may take.

    Raises:
        RunError: children are lost again and again, and no image is to blame.
        Exception: what `work` raises.
    """
    rejected: dict[int, Why] = {}
    losses = 0
    while True:
        try:
            return pool.call(partial(work, rejected), seconds=seconds)
        except ChildLostError as error:
            if pool.ended:  # which has ended this child
                raise
            lost = error
        # The image is to blame if a fresh child, with nothing before it, is lost too.
        # A child that something from outside has killed says nothing about it.
        name, why = "", None
        if lost.item is not None:
            name, uri = image(lost.item)
            if lost.by_itself:
                why = _try_alone(pool, uri, contract, seconds)
        if why and lost.item is not None:
            console.warn(f"rejected: {name}: {why[0]} ({why[1]})")
            rejected[lost.item] = why
            losses = 0
            continue
        losses += 1
        where = f"at {name}" if name else "at no image"
        if losses == _LOSSES:
            raise RunError(
                f"processes that decode images were lost {_LOSSES} times in a row, "
                f"the last {where}, and no image is to blame: {lost}. Is there enough "
                f"memory for {pool.count} of them? {_ADVICE}"
            ) from lost
        console.warn(f"a process was lost {where} ({lost}); going on")


def _try_alone(
    pool: ChildPool, uri: str, contract: ImageContract, seconds: float
) -> Why | None:
    """Returns why an image is given up that crashes or hangs in a child of its own."""
    try:
        pool.call(partial(_convert, uri, contract), seconds=seconds, fresh=True)
    except ChildLostError as lost:
        if lost.item is None or not lost.by_itself:
            return None
        return ("decoder_crash", lost.ending) if lost.ending else ("timeout", str(lost))
    return None


def _convert(uri: str, contract: ImageContract) -> None:
    """Does to one image what is done to every image of a shard.

    An image that cannot be read now is not to blame; `work` meets the error again.
    """
    child_process.at(0)
    with contextlib.suppress(BadImage, UnavailableError):
        conversion.convert(image_bytes.read(uri), contract)


def _decode_known_photo() -> None:
    encoded = simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8))
    try:
        conversion.convert(encoded, ImageContract(height=8, width=8))
    except (BadImage, MemoryError) as error:
        raise RunError(
            "a process that decodes images cannot decode even a sound one of 16x16 "
            f"pixels: {error or type(error).__name__}. {_ADVICE}"
        ) from error
