"""The network, its weights, and MODEL."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset import manifest
from pipeline.system.errors import RunError
from tests.support.photos import HEIGHT, WIDTH
from trainer.contract import Contract, read_contract
from trainer.recipe import RECIPES

FROZEN = [
    *("pixels", "preprocess", "block1_conv1", "block1_conv2", "block1_pool"),
    *("block2_conv1", "block2_conv2", "block2_pool"),
    *("block3_conv1", "block3_conv2", "block3_conv3", "block3_pool"),
    *("block4_conv1", "block4_conv2", "block4_conv3", "block4_pool"),
]
TRAINABLE = [
    *("block5_conv1", "block5_conv2", "block5_conv3", "block5_pool"),
    *("flatten", "hidden", "normalization", "dropout", "probabilities"),
]

RELEASE_01 = Path(__file__).parents[1] / "testdata/release-0.1/finished/model"
FACTS = {"epochs": 1, "recipe": {"preprocessing": "scale"}}


@pytest.fixture
def model(tf):
    from trainer import model

    return model


def network(model, weights: str = "none", **size: int):
    options = {"height": HEIGHT, "width": WIDTH, "classes": 3, **size}
    return model.build(weights=weights, **{"recipe": RECIPES["article"], **options})


def test_the_article_at_its_size(model) -> None:
    """The parameters are counted by hand, layer by layer."""
    made = network(model, height=150, width=200, classes=10)
    model.train_only(made, RECIPES["article"].trainable)
    assert [layer.name for layer in made.layers] == FROZEN + TRAINABLE
    assert [layer.name for layer in made.layers if not layer.trainable] == FROZEN
    convolutions = 14_714_688  # keras.applications.VGG16(include_top=False)
    block5 = 3 * (9 * 512 * 512 + 512)
    head = (12_288 * 256 + 256) + 4 * 256 + (256 * 10 + 10)
    assert made.count_params() == convolutions + head
    trainable = sum(int(np.prod(w.shape)) for w in made.trainable_variables)
    assert trainable == block5 + head - 2 * 256  # less the moving statistics
    assert made.get_layer("dropout").rate == 0.5
    assert made.get_layer("normalization").synchronized
    initializer = made.get_layer("hidden").kernel_initializer
    assert type(initializer).__name__ == "HeNormal"


def test_images_that_are_too_small(model) -> None:
    with pytest.raises(RunError, match=r"31x40.*at least 32x32"):
        network(model, height=31)


def test_pixels_are_scaled_inside(model) -> None:
    made = network(model)
    pixels = np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
    np.testing.assert_array_equal(made(pixels), made(pixels.astype(np.float32)))
    np.testing.assert_allclose(np.sum(made(pixels), axis=1), 1, atol=1e-6)
    scaled = made.get_layer("preprocess")(pixels)
    np.testing.assert_allclose(scaled, pixels / 255, rtol=1e-6)


def test_random_weights_keep_the_signal(model) -> None:
    """He initialisation; Keras' default would leave 1/90 of it after 13 layers."""
    import keras

    made = network(model, height=64, width=64)
    features = keras.Model(made.input, made.get_layer("block5_conv3").output)
    noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    assert 0.05 < float(np.std(features(noise))) < 5


def write_legacy(network, path: Path) -> None:
    """The layout of the published `…_notop.h5` (Keras 1 and 2)."""
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name for layer in network.layers]
        for layer in network.layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{weight.name}:0" for weight in layer.weights]
            group.attrs["weight_names"] = names
            for name, weight in zip(names, layer.weights, strict=True):
                group[name] = weight.numpy()


@pytest.mark.parametrize("name", ["notop.weights.h5", "notop.h5"])
def test_weights_from_a_file(tf, model, tmp_path: Path, name: str) -> None:
    import keras

    theirs = keras.applications.VGG16(include_top=False, weights=None)
    path = tmp_path / name
    if name == "notop.h5":
        write_legacy(theirs, path)
    else:
        theirs.save_weights(path)
    made = network(model, str(path))
    convolutions = [layer for layer in theirs.layers if "conv" in layer.name]
    assert len(convolutions) == 13
    for layer in convolutions:
        ours = made.get_layer(layer.name).get_weights()
        for mine, wanted in zip(ours, layer.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, wanted)


@pytest.mark.parametrize("kind", ["MODEL", "model.keras", "notop.keras"])
def test_convolutions_of_a_model(model, dataset: Path, kind: str) -> None:
    """Of any classes and any image size; or of the file of such a network."""
    import keras

    folder = dataset.parent
    theirs = network(model, height=64)
    if kind == "notop.keras":
        theirs = keras.applications.VGG16(include_top=False, weights=None)
        theirs.save(folder / kind)
    else:
        model.save(theirs, folder, manifest.load(dataset), FACTS)
    made = network(model, str(folder if kind == "MODEL" else folder / kind), classes=5)
    convolutions = [layer for layer in theirs.layers if "conv" in layer.name]
    assert len(convolutions) == 13
    for layer in convolutions:
        ours = made.get_layer(layer.name).get_weights()
        for mine, wanted in zip(ours, layer.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, wanted)


@pytest.mark.parametrize("kind", ["folder", "no VGG16", "damaged", "cut"])
def test_what_has_no_convolutions_is_refused(
    model, tmp_path: Path, dataset: Path, kind: str
) -> None:
    path, reason = tmp_path / kind, "is incomplete: it has no model.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "no VGG16":
        path, reason = RELEASE_01, "it has no layer 'block1_conv1'; it has pixels"
    else:
        whole = Path(shutil.copytree(RELEASE_01, path)) / "model.keras"
        if kind == "damaged":
            whole.write_bytes(whole.read_bytes()[:-100])
            reason = "model.keras is not the file"
        else:
            path = tmp_path / "cut.keras"
            path.write_bytes(whole.read_bytes()[:-100])
            reason = f"--weights={path} has not the convolutions of VGG16"
    with pytest.raises(RunError, match=reason):
        network(model, str(path))


@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize("kind", ["missing", "damaged", "another"])
def test_wrong_weights_are_refused(model, tmp_path: Path, kind: str) -> None:
    import keras

    path = tmp_path / f"{kind}.weights.h5"
    if kind == "damaged":
        path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    elif kind == "another":
        inputs = keras.Input((8,))
        keras.Model(inputs, keras.layers.Dense(3)(inputs)).save_weights(path)
    with pytest.raises(RunError, match=f"--weights={path}"):
        network(model, str(path))


def test_saved_and_loaded_with_plain_keras(model, dataset: Path) -> None:
    import keras

    folder = dataset.parent / "model"
    folder.mkdir()
    made = network(model)
    model.save(made, folder, manifest.load(dataset), FACTS)
    assert {path.name for path in folder.iterdir()} == {
        "model.keras",
        "model.json",
        "classes.txt",
    }
    loaded = keras.models.load_model(folder / "model.keras")
    assert not loaded.compiled
    pixels = np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
    np.testing.assert_array_equal(made(pixels), loaded(pixels))
    contract = read_contract(folder)
    assert contract.image == {"height": HEIGHT, "width": WIDTH, "resize": "stretch"}
    contract.check(manifest.load(dataset))


def test_an_incomplete_or_damaged_model_is_refused(model, dataset: Path) -> None:
    folder = dataset.parent / "model"
    with pytest.raises(RunError, match="does not exist"):
        read_contract(folder)
    folder.mkdir()
    with pytest.raises(RunError, match=r"no model\.json"):
        read_contract(folder)
    model.save(network(model), folder, manifest.load(dataset), FACTS)
    with (folder / "model.keras").open("ab") as file:
        file.write(b"x")
    with pytest.raises(RunError, match=r"model\.keras is not the file"):
        read_contract(folder)


def contract_of(model, dataset: manifest.Dataset, **changes: object):
    fields = {
        "image": dataset.image.pixels(),
        "classes": dataset.classes,
        "fingerprint": "",
        "scaling": "",
    }
    return Contract(**(fields | changes))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"height": 33}, "image.height is 32 there and 33 here"),
        ({"width": HEIGHT}, "image.width is 40 there and 32 here"),
        ({"resize": "pad"}, "image.resize is stretch there and pad here"),
    ],
)
def test_another_image_is_refused(model, made_dataset: Path, image, message) -> None:
    dataset = manifest.load(made_dataset)
    contract = contract_of(model, dataset, image=dataset.image.pixels() | image)
    with pytest.raises(RunError, match=message):
        contract.check(dataset)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("blue", "green"), r"has 3 classes, .* the first 2 .*: 'red' is new \(1 in"),
        (("blue", "green", "red", "x"), "3 classes in DATASET and 4 in MODEL"),
        (("blue", "grey", "red"), "label 1 is 'green' in DATASET and 'grey' in MODEL"),
    ],
)
def test_other_classes_are_refused(model, made_dataset, classes, message) -> None:
    dataset = manifest.load(made_dataset)
    contract = contract_of(model, dataset, classes=classes)
    with pytest.raises(RunError, match=message):
        contract.check(dataset)


def test_an_unlabelled_dataset_needs_no_classes(model, made_dataset: Path) -> None:
    dataset = manifest.load(made_dataset)
    contract_of(model, dataset).check(replace(dataset, classes=()))


@pytest.mark.parametrize(
    ("part", "last_frozen"),
    [("head", "block5_pool"), ("block5", "block4_pool"), ("all", "preprocess")],
)
def test_train_only(model, part: str, last_frozen: str) -> None:
    made = network(model)
    model.train_only(made, part)
    names = [layer.name for layer in made.layers]
    frozen = [layer.name for layer in made.layers if not layer.trainable]
    assert frozen == names[: names.index(last_frozen) + 1]


@pytest.mark.parametrize("part", ["head", "block5", "all"])
def test_parts_make_up_the_whole(model, part: str) -> None:
    made = network(model)
    model.train_only(made, part)
    pixels = np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
    parts = model.cut(made)
    features = parts.frozen(pixels)
    if parts.convolutions:
        features = parts.convolutions(features)
    hidden = parts.before_dropout(features)
    np.testing.assert_array_equal(parts.after_dropout(hidden), made(pixels))
    assert (parts.convolutions is None) == (part == "head")
    assert not parts.frozen.trainable_variables
    own = parts.convolutions.trainable_variables if parts.convolutions else []
    trainable = [
        *own,
        *parts.before_dropout.trainable_variables,
        *parts.after_dropout.trainable_variables,
    ]
    assert [v.path for v in trainable] == [v.path for v in made.trainable_variables]


def test_the_preprocessing_of_imagenet(tf, model) -> None:
    """Exactly keras.applications.vgg16.preprocess_input."""
    import keras

    made = network(model, recipe=RECIPES["finetune"])
    pixels = np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
    expected = keras.applications.vgg16.preprocess_input(pixels.astype(np.float32))
    found = keras.Model(made.input, made.get_layer("preprocess").output)(pixels)
    assert found.dtype == tf.float32
    np.testing.assert_array_equal(found, expected)
    model.train_only(made, "all")
    assert not made.get_layer("preprocess").trainable


def test_mixed_precision_leaves_no_trace(tf, model) -> None:
    import keras

    made = network(model, recipe=replace(RECIPES["finetune"], hidden=8))
    assert keras.config.dtype_policy().name == "float32"
    assert made.get_layer("block1_conv1").compute_dtype == "bfloat16"
    assert {v.dtype for v in made.trainable_variables} == {"float32"}
    assert made.output.dtype == "float32"
