"""tensorboard/: history.csv once more, for TensorBoard; every epoch once."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from trainer.training.history import Row

_SPLITS = {"train": "", "validation": "val_"}
_OF_SPLIT = ("loss", "accuracy", "top5_accuracy")
_OF_RUN = ("learning_rate", "images_per_second", "input_wait")


class TensorBoardLog:
    """Writes event files.

    Args:
        folder: what an earlier run left there goes, as a kill may have come between an
            event and the state that it belongs to; it is written again.
        rows: of the epochs that are done.
    """

    def __init__(self, folder: Path, rows: Sequence[Row]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._writers = {
            split: tf.summary.create_file_writer(str(folder / split))
            for split in _SPLITS
        }
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        """Writes the row of an epoch."""
        for split, prefix in _SPLITS.items():
            names = {name: prefix + name for name in _OF_SPLIT}
            if split == "train":
                names |= {name: name for name in _OF_RUN}
            with self._writers[split].as_default(step=row["epoch"]):
                for name, column in names.items():
                    if (value := row[column]) is not None:
                        tf.summary.scalar(name, value)
            self._writers[split].flush()
