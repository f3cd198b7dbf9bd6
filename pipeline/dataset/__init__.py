"""DATASET on disk: records, manifest, ledger, and their checks.

To read one in a program of one's own:

    from pipeline import dataset

    data = dataset.load("/scratch/dataset")  # or s3://, gs://, az://
    data.image.height, data.image.width, data.classes
    {name: split.examples for name, split in data.splits.items()}
    for example in data.examples("train"):
        example.id, example.label, example.text, example.encoded  # a JPEG
"""

from pipeline.dataset import manifest
from pipeline.dataset.manifest import Dataset, ImageContract, Shard, Split
from pipeline.dataset.record import Record
from pipeline.storage import object_paths
from pipeline.storage.object_paths import AnyPath

__all__ = ["Dataset", "ImageContract", "Record", "Shard", "Split", "load"]


def load(folder: str | AnyPath) -> Dataset:
    """Reads what a complete dataset is; no image is read.

    Args:
        folder: DATASET, here or in a store.

    Returns:
        Its image contract, classes, splits and shards; `Dataset.examples` reads images.

    Raises:
        pipeline.system.errors.RunError: there is no such folder, it is incomplete, of
            another version, or a shard is missing or has another length than promised.
    """
    return manifest.load(object_paths.locate(str(folder)))
