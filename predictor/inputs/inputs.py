"""What is predicted: a split of DATASET, or photos as they lie."""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np

from pipeline.dataset import manifest, record, shard_cache
from pipeline.dataset.ledger import Reject
from pipeline.dataset.manifest import Dataset, ImageContract, Shard
from pipeline.images.conversion import BadImage
from pipeline.shards import plan
from pipeline.system import resources
from pipeline.system.errors import RunError
from predictor.inputs.photo_decoding import PHOTOS_TOGETHER, Decoders
from predictor.inputs.photo_listing import PhotoListing, Unlabelled


class Batch(NamedTuple):
    """Images of one input shard, in order.

    Attributes:
        shard: its position.
        ids: of the rows.
        images: uint8[rows, height, width, 3].
        rejects: images among these that are no rows.
        last: of the shard; it may have no rows.
        labels: int64[rows] of records, -1 for none; None of photos.
    """

    shard: int
    ids: list[str]
    images: np.ndarray
    rejects: list[Reject]
    last: bool
    labels: np.ndarray | None = None


class Input(Protocol):
    """Images in shards, which never depend on how they are read.

    Attributes:
        key: what decides the images, for predictions.json.
        sizes: images of every shard.
        rejects: images that are in no shard.
        has_rejects: whether there can be any rejects.
        left_out: a line on files that are no part of it; "" where there are none.
    """

    key: Mapping[str, Any]
    sizes: Sequence[int]
    rejects: Sequence[Reject]
    has_rejects: bool
    left_out: str

    def ids(self) -> Iterator[str]:
        """Yields the ids of all images, shard by shard; nothing is decoded."""

    def batches(
        self, shards: Sequence[int], *, batch_size: int, at_once: int
    ) -> Generator[Batch, None, None]:
        """Yields every image of some shards once.

        Args:
            shards: their positions.
            batch_size: rows of a batch, the last of each shard excepted.
            at_once: shards that are read side by side, a batch of each in turn.
        """

    def end(self) -> None:
        """Ends the processes that are kept from one call of `batches` to the next."""


class FromDataset:
    """The records of a split; what was rejected, DATASET has the account of.

    Raises:
        RunError: there is no such split, or nothing in it.
    """

    rejects: Sequence[Reject] = ()
    has_rejects = False
    left_out = ""

    def __init__(self, dataset: Dataset, split: str) -> None:
        found = dataset.split(split)
        if not found.examples:
            raise RunError(
                f"split {split} of {dataset.folder} has no examples, and "
                f"{found.rejected} rejects: there is nothing to predict. Choose "
                "another split (--split)."
            )
        self.key: Mapping[str, Any] = {
            "dataset": dataset.fingerprint,
            "images": None,
            "split": split,
        }
        self.sizes: Sequence[int] = [shard.examples for shard in found.shards]
        self._dataset, self._shards = dataset, found.shards

    def ids(self) -> Iterator[str]:
        """Reads them from the records.

        Raises:
            RunError: a shard is missing or damaged.
        """
        for entry in self._shards:
            for stored in records(self._dataset, entry):
                yield stored.id

    def batches(
        self, shards: Sequence[int], *, batch_size: int, at_once: int
    ) -> Generator[Batch, None, None]:
        """See Input."""
        # Here: TensorFlow takes seconds.
        from trainer.data import input_pipeline, verified_shards

        image = self._dataset.image
        nothing = np.empty((0, image.height, image.width, 3), np.uint8)
        for position in shards:
            if not self.sizes[position]:  # it was all rejects
                yield Batch(position, [], nothing, [], last=True)
        left = list(self.sizes)
        batches = input_pipeline.by_shard(
            self._dataset,
            [self._shards[position] for position in shards],
            batch_size=batch_size,
            at_once=at_once,
        )
        with verified_shards.naming_damage(self._dataset):
            for index, (ids, images, labels) in batches.as_numpy_iterator():
                position = shards[index]
                left[position] -= len(ids)
                names = [image_id.decode() for image_id in ids]
                last = not left[position]
                yield Batch(position, names, images, [], last, labels)

    def end(self) -> None:
        """See Input; there are none."""


def records(dataset: Dataset, shard: Shard) -> Iterator[record.Record]:
    """Yields every record of a shard, which is fetched once where it is in a store.

    Raises:
        RunError: the shard is missing or damaged.
    """
    try:
        for stored in record.read(shard_cache.shard_file(dataset, shard)):
            yield stored.record
    except (FileNotFoundError, record.BadRecordError) as error:
        raise RunError(manifest.damage_of(dataset, shard) or str(error)) from error


class FromImages:
    """Photos of a folder, a CSV list or a tar archive.

    Args:
        listed: the photos.
        split: of those, where there are several.
        contract: the size and resize rule of the model.
    """

    has_rejects = True

    def __init__(
        self, listed: PhotoListing, split: str, contract: ImageContract
    ) -> None:
        self.left_out = str(listed.ignored) if listed.ignored else ""
        count = plan.default_count(len(listed.images)) or 1
        cuts = [len(listed.images) * n // count for n in range(count + 1)]
        self.key: Mapping[str, Any] = {
            "dataset": None,
            "images": listed.fingerprint(),
            "split": split,
        }
        self.sizes: Sequence[int] = [end - start for start, end in pairwise(cuts)]
        self.rejects: Sequence[Reject] = listed.rejects
        self.listed = listed
        self._starts, self._split = cuts, split
        self._contract = contract
        self._shape = (contract.height, contract.width, 3)
        self._decoders: Decoders | None = None

    def ids(self) -> Iterator[str]:
        """See Input."""
        return (image.id for image in self.listed.images)

    def batches(
        self, shards: Sequence[int], *, batch_size: int, at_once: int
    ) -> Generator[Batch, None, None]:
        """See Input; a batch has fewer rows where images of it are rejected."""
        turns = list(_turns(self.sizes, shards, batch_size, at_once))
        if self._decoders is None:
            requests = math.ceil(len(self.listed.images) / PHOTOS_TOGETHER)
            count = min(resources.cores(), requests)
            self._decoders = Decoders(self._contract, count=count)
        uris = (one.uri for turn in turns for one in self._taken(turn))
        decoded = self._decoders.decode(uris)
        yield from _ahead(self._batches(turns, decoded), abandon=self.end)

    def end(self) -> None:
        """See Input; children that nobody ends do so when they are idle."""
        if self._decoders:
            self._decoders.end()
            self._decoders = None

    def _taken(self, turn: "_Turn") -> list[Unlabelled]:
        start = self._starts[turn.shard] + turn.first
        return self.listed.images[start : start + turn.images]

    def _batches(
        self, turns: Sequence["_Turn"], decoded: Iterator[np.ndarray | BadImage]
    ) -> Iterator[Batch]:
        for turn in turns:
            images = np.empty((turn.images, *self._shape), np.uint8)
            ids: list[str] = []
            rejects: list[Reject] = []
            for image, found in zip(self._taken(turn), decoded, strict=False):
                if isinstance(found, BadImage):
                    why = (found.reason, found.detail)
                    rejects.append(Reject(image.id, self._split, "", *why))
                else:
                    images[len(ids)] = found
                    ids.append(image.id)
            yield Batch(turn.shard, ids, images[: len(ids)], rejects, turn.last)


class _Turn(NamedTuple):
    """Images of a shard that make a batch: from one on, so many."""

    shard: int
    first: int
    images: int
    last: bool


def _turns(
    sizes: Sequence[int], shards: Sequence[int], batch_size: int, at_once: int
) -> Iterator[_Turn]:
    """A batch of each of so many shards in turn; of an empty one, an empty batch."""
    waiting, begun = deque(shards), deque[tuple[int, int]]()
    while waiting or begun:
        while waiting and len(begun) < at_once:
            begun.append((waiting.popleft(), 0))
        position, first = begun.popleft()
        left = sizes[position] - first
        yield _Turn(position, first, min(batch_size, left), left <= batch_size)
        if left > batch_size:
            begun.append((position, first + batch_size))


def _ahead(
    batches: Iterator[Batch], *, abandon: Callable[[], None], count: int = 2
) -> Iterator[Batch]:
    """Yields the same, a few of them made before they are asked for, by a thread.

    Args:
        batches: in order.
        abandon: ends what a batch waits for, as a photo that hangs; called where not
            all batches are taken.
        count: of batches that are made ahead.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
    try:
        made = deque(thread.submit(next, batches, None) for _ in range(count))
        while (batch := made.popleft().result()) is not None:
            made.append(thread.submit(next, batches, None))
            yield batch
    except BaseException:
        abandon()
        raise
    finally:
        thread.shutdown(cancel_futures=True)
