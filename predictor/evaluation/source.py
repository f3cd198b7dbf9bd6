"""What is evaluated: MODEL on a split of DATASET, or PREDICTIONS."""

import os
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.dataset import manifest
from pipeline.dataset.manifest import Dataset, Shard
from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath
from pipeline.system import startup_log
from pipeline.system.errors import RunError, UsageError
from predictor.format import reader
from predictor.format.reader import Predictions
from predictor.format.row_batch import RowBatch
from predictor.inputs.inputs import FromDataset, records
from trainer.contract import Contract, read_contract


class StoredImage(NamedTuple):
    """What a record of DATASET says of an image.

    Attributes:
        labels: the number of its class; empty for a distractor.
        picture: the JPEG, or uint8[height, width, 3].
    """

    labels: tuple[int, ...]
    picture: bytes | np.ndarray


# Rows of predictions, and by id what DATASET says of their images, if it was given.
Part = tuple[RowBatch, Mapping[str, StoredImage]]


@dataclass(frozen=True, kw_only=True)
class EvaluationSource:
    """What was given, loaded.

    Attributes:
        dataset: DATASET.
        model: the folder of MODEL.
        contract: of it.
        predictions: PREDICTIONS, in place of predicting the dataset with the model.
        split: of what was predicted.
    """

    dataset: Dataset | None
    model: AnyPath | None
    contract: Contract | None
    predictions: Predictions | None
    split: str

    @property
    def title(self) -> str:
        """Returns the title for people."""
        if self.predictions:
            return f"Evaluation of {_name(self.predictions.folder)}"
        model, dataset = self.given
        return (
            f"Evaluation of {_name(model)} on {self.split} of {_name(dataset.folder)}"
        )

    @property
    def source(self) -> dict[str, str | None]:
        """Fingerprints, for evaluation.json; null where there is no such thing."""
        if made := self.predictions:
            names = ("model", "dataset", "images", "split", "format")
            listed = atomic.sha256(made.folder / reader.MANIFEST)
            return {**{x: made.value[x] for x in names}, "predictions": listed}
        assert self.contract
        return {
            "model": self.contract.fingerprint,
            "dataset": self.given[1].fingerprint,
            "images": None,
            "split": self.split,
            "format": "probabilities",
            "predictions": None,
        }

    @property
    def given(self) -> tuple[AnyPath, Dataset]:
        """MODEL and DATASET, where there are no PREDICTIONS."""
        assert self.model
        assert self.dataset
        return self.model, self.dataset

    @property
    def predicted(self) -> Dataset | None:
        """The dataset, where its images are those that were predicted."""
        made, dataset = self.predictions, self.dataset
        if made and dataset and made.value["dataset"] != dataset.fingerprint:
            return None
        return dataset

    @property
    def images(self) -> int:
        """Returns how many are predicted."""
        if self.predictions:
            return int(self.predictions.value["rows"])
        return self.given[1].split(self.split).examples

    def classes(self) -> tuple[str, ...]:
        """The classes that the model has, by number; none where nothing tells.

        Raises:
            RunError: two of them have the same name.
        """
        found = self._classes()
        if len(set(found)) < len(found):
            twice = next(name for name in found if found.count(name) > 1)
            raise RunError(
                f"the class {twice!r} is there more than once, so that its columns "
                "cannot be told apart. Train on a DATASET whose classes have names of "
                "their own."
            )
        return found

    def frequency(self, names: tuple[str, ...]) -> np.ndarray | None:
        """int64[names], training images of classes; None without a train split."""
        if not self.dataset or "train" not in self.dataset.splits:
            return None
        counts = manifest.class_counts(self.dataset, "train")
        by_name = dict(zip(self.dataset.classes, counts, strict=True))
        return np.array([by_name.get(name, 0) for name in names], np.int64)

    def check_labels(self) -> None:
        """Refuses a split whose records do not say what its images show.

        Raises:
            RunError: there is no such split, none of its images is labelled, or the
                numbers of its classes are not those of the predictions.
        """
        assert self.dataset
        found = self.dataset.split(self.split)
        if not any(manifest.class_counts(self.dataset, self.split)):
            raise RunError(
                f"split {self.split} of {self.dataset.folder} is unlabelled: none of "
                f"its {found.examples} images has a class. Evaluate a labelled split "
                "(--split=validation), make the dataset with --labelled_test, or "
                "predict it and give the labels of PREDICTIONS as a CSV (--predictions "
                "--labels)."
            )
        if self.classes() != self.dataset.classes:
            raise RunError(
                f"{self.dataset.folder} has other classes than what was predicted: the "
                f"first are {self.dataset.classes[:3]} and {self.classes()[:3]}. "
                "Predict again with `make predict`."
            )

    def parts(self, *, batch_size: int, **devices: Any) -> Generator[Part, None, None]:
        """Yields every prediction once, read or made; nothing is written.

        A shard of DATASET is read once, for the images, their labels and the pictures.

        Args:
            batch_size: of what is made, over all replicas.
            devices: see distribution.strategy.
        """
        if not self.predictions:
            yield from self._predict(batch_size, devices)
            return
        for entry, shard in zip(self.predictions.files, self._shards(), strict=True):
            images: dict[str, StoredImage] = {}
            if shard:
                assert self.dataset
                images = {
                    stored.id: StoredImage(_labels(stored.label), stored.encoded)
                    for stored in records(self.dataset, shard)
                }
            for rows in reader.rows(self.predictions, entry):
                yield rows, images

    def _shards(self) -> list[Shard | None]:
        """Returns for each file of PREDICTIONS the shard that it was made of.

        None where that is not at hand, and for a submission, which is one file.
        """
        assert self.predictions
        files, dataset = self.predictions.files, self.predicted
        if not dataset or self.predictions.format.kind == "submission":
            return [None] * len(files)
        shards = dataset.split(self.split).shards
        images, rows = [x.examples for x in shards], [x.rows for x in files]
        if images != rows:
            raise RunError(
                f"the files of {self.predictions.folder} have {rows} rows, and the "
                f"shards of {self.split} of {dataset.folder} have {images} images: "
                "these are not their predictions. Predict again with `make predict`."
            )
        return [*shards]

    def _classes(self) -> tuple[str, ...]:
        made, dataset = self.predictions, self.dataset
        if self.contract:
            return self.contract.classes
        assert made
        if made.format.kind == "probabilities":
            return reader.classes(made)
        if dataset and manifest.classes_entry(dataset.classes) == made.value["classes"]:
            return dataset.classes
        return ()

    def _predict(self, batch_size: int, options: dict[str, Any]) -> Iterator[Part]:
        # Here: TensorFlow takes seconds that PREDICTIONS need not.
        with startup_log.kept():
            from predictor.forward_pass import ForwardPass, naming_shortage
            from trainer import model
            from trainer.data import verified_shards
            from trainer.training import distribution

        folder, data = self.given
        images = FromDataset(data, self.split)
        strategy = distribution.strategy(**options)
        with strategy.scope():
            forward = ForwardPass(model.load(folder), strategy)
        shards = range(len(images.sizes))
        batches = images.batches(shards, batch_size=batch_size, at_once=1)
        with verified_shards.naming_damage(data), naming_shortage(batch_size):
            for batch, probabilities in forward.stream(x for x in batches if x.ids):
                assert batch.labels is not None
                told = zip(map(_labels, batch.labels), batch.images, strict=True)
                found = dict(zip(batch.ids, map(StoredImage._make, told), strict=True))
                yield RowBatch(batch.ids, None, probabilities), found


def _name(folder: AnyPath) -> str:
    """Returns the name of a folder, whose bytes need not be UTF-8."""
    return os.fsencode(folder.resolve().name).decode(errors="replace")


def _labels(label: int) -> tuple[int, ...]:
    return () if label == manifest.UNLABELLED else (int(label),)


def load(
    *,
    dataset: AnyPath | None,
    model: AnyPath | None,
    split: str,
    predictions: AnyPath | None,
    labelled: bool,
) -> EvaluationSource:
    """Loads what was given, and holds one to the other.

    Args:
        dataset: DATASET.
        model: MODEL.
        split: of the dataset.
        predictions: PREDICTIONS.
        labelled: whether labels come from elsewhere than the dataset.

    Raises:
        UsageError: there is nothing to evaluate, or nothing to hold it to.
        RunError: something is damaged, or does not fit.
    """
    if not predictions and not (model and dataset):
        raise UsageError(
            "nothing to evaluate: give --model and --dataset, or --predictions"
        )
    if not dataset and not labelled:
        raise UsageError(
            "nothing tells what the images show: give --labels, or the --dataset that "
            "was predicted"
        )
    data = manifest.load(dataset) if dataset else None
    made = reader.load(predictions) if predictions else None
    contract = _contract(model, data) if model else None
    if made and contract:
        _check_model(made, contract)
    if made and data and not labelled:
        _check_images(made, data, split)
    return EvaluationSource(
        dataset=data,
        model=model,
        contract=contract,
        predictions=made,
        split=made.value["split"] if made else split,
    )


def _contract(folder: AnyPath, data: Dataset | None) -> Contract:
    contract = read_contract(folder)
    if data:
        contract.check(data)
    return contract


def _check_model(made: Predictions, contract: Contract) -> None:
    if made.value["model"] != contract.fingerprint:
        raise RunError(
            f"{made.folder} was predicted by another model: {made.value['model']} "
            f"there, {contract.fingerprint} here. Give the model that made it, or none."
        )


def _check_images(made: Predictions, data: Dataset, split: str) -> None:
    """Refuses predictions of other images than those that have the labels."""
    value, folder = made.value, made.folder
    if value["dataset"] != data.fingerprint:
        there = value["dataset"] or "photos, and no DATASET,"
        raise RunError(
            f"{folder} was predicted of other images: {there} there, "
            f"{data.fingerprint} here. Give the DATASET that was predicted, or labels "
            "as a CSV (--labels)."
        )
    if value["split"] != split:
        raise RunError(
            f"{folder} was predicted of split {value['split']!r}, not of {split!r}. "
            f"Use --split={value['split']}."
        )
    if made.format.kind == "submission":
        raise RunError(
            f"{folder} is a submission: its ids are stems, which {data.folder} does "
            "not have. Give labels as a CSV (--labels)."
        )
