"""What a finished MODEL was trained on, read without TensorFlow."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.dataset.manifest import CLASSES, Dataset, read_classes
from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath
from pipeline.storage.resumable_folder import difference
from pipeline.system.errors import RunError

MANIFEST = "model.json"
MODEL = "model.keras"
SCALING = {  # by Recipe.preprocessing
    "scale": "pixels x 1/255, inside the model",
    "imagenet": "BGR less the mean of ImageNet, inside the model",
}


@dataclass(frozen=True)
class Contract:
    """What a model was trained on; it takes nothing else.

    Attributes:
        image: height, width and resize rule (ImageContract.pixels).
        classes: class names; the position is the output's.
        fingerprint: SHA-256 of model.keras.
        scaling: of the pixels, one of SCALING.
    """

    image: Mapping[str, Any]
    classes: tuple[str, ...]
    fingerprint: str
    scaling: str

    def check(self, dataset: Dataset) -> None:
        """Refuses a dataset that the model was not made for.

        A dataset with only an unlabelled split has no classes, and need not have any.

        Raises:
            RunError: with both values.
        """
        pixels = dataset.image.pixels()
        if different := difference(pixels, self.image, "image"):
            raise RunError(
                f"DATASET {dataset.folder} does not fit MODEL: {different} (DATASET "
                "there, MODEL here). Make the dataset with the model's size and "
                "resize rule."
            )
        new = len(dataset.classes) - len(self.classes)
        if new > 0 and dataset.classes[: len(self.classes)] == self.classes:
            raise RunError(
                f"DATASET {dataset.folder} has {len(dataset.classes)} classes, and "
                f"MODEL knows the first {len(self.classes)} of them: "
                f"{dataset.classes[-new]!r} is new ({new} in all). Train a new MODEL "
                "that starts from this one: `make train` with ARGS=--extend=MODEL."
            )
        if dataset.classes and dataset.classes != self.classes:
            raise RunError(
                f"DATASET {dataset.folder} and MODEL have different classes: "
                f"{_first_difference(dataset.classes, self.classes)}. Use the model "
                "that was trained on these classes."
            )


def read_contract(folder: AnyPath) -> Contract:
    """Reads what a model was trained on, and holds model.keras to its checksum.

    Raises:
        RunError: there is no finished model, or a file of it is missing or damaged.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise RunError(f"MODEL {folder} does not exist. `make train` makes it.")
    if not path.is_file():
        raise RunError(
            f"MODEL {folder} is incomplete: it has no {MANIFEST}, which is written at "
            "the end of training. Run the same `make train` again; it goes on where "
            "it stopped."
        )
    manifest = atomic.read_json(path)
    weights = folder / MODEL
    found = atomic.sha256(weights) if weights.is_file() else "no such file"
    if found != manifest["sha256"]:
        raise RunError(
            f"{weights} is not the file that {MANIFEST} describes: sha256 {found}, "
            f"expected {manifest['sha256']}. Restore it, or train again."
        )
    classes = read_classes(folder / CLASSES, manifest["classes"])
    return Contract(manifest["image"], classes, manifest["sha256"], manifest["scaling"])


def _first_difference(there: tuple[str, ...], here: tuple[str, ...]) -> str:
    for label, (a, b) in enumerate(zip(there, here, strict=False)):
        if a != b:
            return f"label {label} is {a!r} in DATASET and {b!r} in MODEL"
    return f"{len(there)} classes in DATASET and {len(here)} in MODEL"
