"""One table of all images: every prediction meets its label, by the id of the image."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pipeline.page import pictures
from pipeline.sources.names import stem
from pipeline.system.errors import RunError
from predictor.evaluation import metrics, per_image
from predictor.evaluation.labels import ClassIndex, Labels
from predictor.evaluation.source import Part, StoredImage
from predictor.format.row_batch import RowBatch

PICTURES = 48  # of the worst mistakes


class ImageTable:
    """Collects predictions part by part; keeps some 40 bytes an image, and its id.

    Args:
        classes: numbers of classes, those of the columns first.
        labels: of a CSV; without it, those of the images that come with the parts.
            An id of a CSV may be the stem of an image's id, as Kaggle's lists have it.

    Attributes:
        pictures: JPEGs of the worst mistakes so far, by id.
    """

    def __init__(self, classes: ClassIndex, labels: Labels | None) -> None:
        self._classes, self._stems = classes, labels is not None
        self._labels: Labels = labels or {}
        self._parts: list[pd.DataFrame] = []
        self._worst: pd.DataFrame | None = None
        self.pictures: dict[str, bytes] = {}

    def add(self, part: Part) -> None:
        """Adds rows of predictions."""
        rows, images = part
        if not self._stems:
            self._labels |= {name: image.labels for name, image in images.items()}
        if rows.classes is not None:
            rows, ranked = self._numbered(rows)
        else:
            ranked = None
        keys = [self._key(image_id) for image_id in rows.ids]
        labels = [self._labels.get(key, ()) for key in keys]
        found = per_image.results(rows, labels, ranked)
        self._parts.append(found.assign(key=pd.Series(keys, dtype=object)))
        if images:
            self._keep_pictures(found, images)

    def joined(self) -> pd.DataFrame:
        """Returns all images, sorted by id: nothing depends on files and their order.

        Returns:
            The table of per_image.results, without distractors that have no prediction,
            and `_merge`: "both", "left_only" for a label without a prediction,
            "right_only" for a prediction without a label.

        Raises:
            RunError: an id or a label has two predictions, or no label has one.
        """
        made = pd.concat(self._parts, ignore_index=True)
        if len(twice := made[made["key"].duplicated(keep=False)]):
            key = twice["key"].iloc[0]
            first, second = twice["id"][twice["key"] == key].iloc[:2]
            raise RunError(
                f"the label of {key!r} has two predictions, of {first!r} and of "
                f"{second!r}. An image is predicted once: remove one of them, or "
                "predict again."
            )
        told = pd.DataFrame({"key": pd.Series(list(self._labels), dtype=object)})
        both = told.merge(
            made, on="key", how="outer", validate="1:1", indicator=True, sort=True
        )
        missing = both.loc[both["_merge"] == "left_only", "key"].tolist()
        lost = per_image.without_prediction(
            missing, [self._labels[key] for key in missing]
        ).assign(_merge="left_only")
        there = both[both["_merge"] != "left_only"].drop(columns="key")
        there = there.astype(lost.dtypes.drop("_merge"))
        if not (there["_merge"] == "both").any():
            raise RunError(self._nothing(made))
        table = pd.concat([there.astype({"_merge": str}), lost[lost["labelled"]]])
        return table.sort_values("id", ignore_index=True)

    def _numbered(self, rows: RowBatch) -> tuple[RowBatch, np.ndarray]:
        """Returns the rows that have a class, and int[rows, k], its numbers."""
        assert rows.classes is not None
        kept = [row for row, names in enumerate(rows.classes) if names]
        names = [rows.classes[row] for row in kept]
        ranked = [[self._classes.number(name) for name in row] for row in names]
        values = rows.probabilities[kept]
        taken = RowBatch([rows.ids[row] for row in kept], names, values)
        return taken, np.array(ranked, int).reshape(values.shape)

    def _key(self, image_id: str) -> str:
        """Returns the id that an image has among the labels, or its own."""
        if not self._stems or image_id in self._labels:
            return image_id
        return short if (short := stem(image_id)) in self._labels else image_id

    def _keep_pictures(
        self, found: pd.DataFrame, images: Mapping[str, StoredImage]
    ) -> None:
        """Keeps the pictures of the worst mistakes of all parts so far."""
        worst = metrics.mistakes(pd.concat([self._worst, found])).head(PICTURES)
        self.pictures = {
            image_id: self.pictures.get(image_id)
            or pictures.small_jpeg(images[image_id].picture)
            for image_id in worst["id"]
            if image_id in self.pictures or image_id in images
        }
        self._worst = worst

    def _nothing(self, made: pd.DataFrame) -> str:
        there = f", such as {made['id'].iloc[0]!r}" if len(made) else " with a class"
        return (
            f"none of the {len(self._labels)} ids of labels, such as "
            f"{next(iter(self._labels))!r}, is that of one of the {len(made)} images "
            f"predicted{there}. Give the labels of these images, or predict those."
        )
