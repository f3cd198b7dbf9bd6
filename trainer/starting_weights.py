"""The weights that a run begins with: downloaded, random, of a file, or of a MODEL."""

from pathlib import Path

import keras

from pipeline.dataset.manifest import Dataset
from pipeline.storage import atomic
from pipeline.storage.resumable_folder import difference
from pipeline.system import io_errors
from pipeline.system.errors import RunError
from trainer.contract import MODEL, SCALING, read_contract
from trainer.recipe import Recipe

_HEAD = "probabilities"  # the layer with a column for each class
_DAMAGE = (OSError, ValueError, KeyError, TypeError)  # what Keras makes of other files


def name(weights: str) -> str:
    """Returns --weights by what they are: a file by its content, wherever it lies.

    Raises:
        RunError: a folder of that name is no MODEL, or a damaged one.
    """
    path = Path(weights)
    if weights in ("imagenet", "none") or not path.exists():
        return weights
    if path.is_dir():
        return f"sha256:{read_contract(path).fingerprint}"
    return f"sha256:{atomic.sha256(path)}"


def convolutions(inputs: keras.KerasTensor, weights: str) -> keras.Model:
    """Builds the 13 convolutions of VGG16 (arXiv:1409.1556) on `inputs`.

    Args:
        inputs: preprocessed, float[batch, height, width, 3].
        weights: `imagenet`, `none` (He initialisation), a MODEL folder, or a file: one
            of the weights of VGG16 without its top, or a `.keras` model that has
            these convolutions.

    Raises:
        RunError: the weights cannot be had, or are of another architecture.
    """
    path = Path(weights)
    if weights in ("imagenet", "none"):
        path = Path()
    elif path.is_dir():
        read_contract(path)
        path /= MODEL
    elif not path.is_file():
        raise RunError(
            f"--weights={weights} is no file and no folder. Name a weights file or a "
            "MODEL, or use imagenet or none."
        )
    of_model = path.suffix == ".keras"
    try:
        base = keras.applications.VGG16(
            include_top=False,
            weights=None if of_model or weights == "none" else weights,
            input_tensor=inputs,
        )
        if of_model:
            _take(base, keras.models.load_model(path, compile=False))
    except _DAMAGE as error:
        if weights != "imagenet" and not io_errors.is_about_file(error):
            raise
        raise RunError(_message(weights, error)) from error
    except Exception as error:  # Keras raises a bare Exception when it cannot download
        if weights != "imagenet":
            raise
        raise RunError(_message(weights, error)) from error
    if weights == "none":
        for layer in base.layers:
            if isinstance(layer, keras.layers.Conv2D):
                # Keras' default halves the variance at every ReLU: 1/90 after 13.
                initial = keras.initializers.HeNormal()(layer.kernel.shape)
                layer.kernel.assign(initial)
    return base


def check_extension(folder: Path, dataset: Dataset, recipe: Recipe) -> None:
    """Refuses a MODEL that a run cannot extend; reads no weights.

    Args:
        folder: MODEL, finished.
        dataset, recipe: of the run.

    Raises:
        RunError: MODEL is incomplete or damaged; it takes other images, scales pixels
            otherwise, or its classes are not the first of the dataset's.
    """
    contract = read_contract(folder)
    flag = f"--extend={folder}"
    pixels = dataset.image.pixels()
    if different := difference(contract.image, pixels, "image"):
        raise RunError(
            f"{flag} does not fit DATASET {dataset.folder}: {different} (MODEL there, "
            "DATASET here). Make the dataset with the model's size and resize rule; "
            f"or take the convolutions alone, at any size: --weights={folder}."
        )
    if contract.scaling != SCALING[recipe.preprocessing]:
        raise RunError(
            f"{flag} does not fit recipe {recipe.name}: MODEL takes "
            f"{contract.scaling!r}, the recipe {SCALING[recipe.preprocessing]!r}. Use "
            "a recipe like the one that MODEL was trained with (model.json names it)."
        )
    for label, wanted in enumerate(contract.classes):
        if dataset.classes[label : label + 1] == (wanted,):
            continue
        found = "nothing"
        if label < len(dataset.classes):
            found = repr(dataset.classes[label])
        elsewhere = "no such class"
        if wanted in dataset.classes:
            elsewhere = f"it as label {dataset.classes.index(wanted)}"
        raise RunError(
            f"{flag}: the {len(contract.classes)} classes of MODEL are not the first "
            f"of the {len(dataset.classes)} of DATASET {dataset.folder}: label {label} "
            f"is {wanted!r} in MODEL and {found} in DATASET, which has {elsewhere}. "
            "Add the new classes to the DATASET that MODEL was trained on (`make "
            "shards` with ARGS=--append puts them behind the old ones), or make one "
            f"with --classes=FILE, a list that begins with {folder / 'classes.txt'}; "
            f"or take the convolutions alone: --weights={folder}."
        )


def extend(network: keras.Model, folder: Path) -> None:
    """Gives a new network all weights of a MODEL, whose classes are its first.

    The columns of the other classes stay as they are initialised.

    Args:
        network: of model.build.
        folder: MODEL, after `check_extension`.

    Raises:
        RunError: MODEL has another architecture.
    """
    try:
        earlier = keras.models.load_model(folder / MODEL, compile=False)
        _take(network, earlier, wider=_HEAD)
    except _DAMAGE as error:
        if not io_errors.is_about_file(error):
            raise
        raise RunError(
            f"--extend={folder}: its network is not the one that this run builds: "
            f"{error}. Use the recipe that MODEL was trained with; or take the "
            f"convolutions alone: --weights={folder}."
        ) from error


def _take(network: keras.Model, earlier: keras.Model, *, wider: str = "") -> None:
    """Assigns the weights of the layers of the same names.

    Args:
        network: gets them; all of its layers that have weights.
        earlier: has them; it may have other layers, too.
        wider: a layer of `network` that may have more columns.

    Raises:
        ValueError: a layer is missing, or has other shapes; nothing is said of values.
    """
    known = {layer.name: layer for layer in earlier.layers}
    for layer in network.layers:
        if not layer.weights:
            continue
        if layer.name not in known:
            some = ", ".join([*known][:3])
            raise ValueError(f"it has no layer {layer.name!r}; it has {some}, …")
        theirs = known[layer.name].weights
        if len(theirs) != len(layer.weights):
            raise ValueError(f"layer {layer.name!r} has {len(theirs)} weights")
        for ours, weight in zip(layer.weights, theirs, strict=True):
            columns = weight.shape[-1]
            value = ours.numpy()
            part = value[..., :columns] if layer.name == wider else value
            if part.shape != tuple(weight.shape):
                raise ValueError(
                    f"layer {layer.name!r} has {_size(weight.shape)} weights there "
                    f"and {_size(ours.shape)} here"
                )
            part[...] = weight.numpy()
            ours.assign(value)


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _message(weights: str, error: Exception) -> str:
    reason = " ".join(str(error).split())
    if weights == "imagenet":
        return (
            f"the ImageNet weights could not be downloaded: {reason}. Copy "
            "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5 from a machine with a "
            "network (keras.applications.VGG16(include_top=False) puts it in "
            "~/.keras/models) and use --weights=PATH; or start from random weights "
            "with --weights=none."
        )
    return (
        f"--weights={weights} has not the convolutions of VGG16: {reason}. Name a "
        "MODEL, or the file that keras.applications.VGG16(include_top=False) saves."
    )
