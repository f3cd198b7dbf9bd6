"""The state of a run: by what its variables are called, in every process."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.photos import HEIGHT, WIDTH
from tests.support.small_network import small_convolutions
from trainer.recipe import RECIPES

KEY = {"order": "permutation", "seed": 3}


@pytest.fixture
def checkpoint(tf):
    from trainer.training import checkpoint

    return checkpoint


def build(recipe: str, precision: str, seed: int):
    """Returns a network and the optimizer of its last phase."""
    import keras

    from trainer import model
    from trainer.training import optimizer

    chosen = replace(RECIPES[recipe], precision=precision)
    keras.utils.set_random_seed(seed)
    with small_convolutions():
        network = model.build(
            height=HEIGHT, width=WIDTH, classes=3, weights="none", recipe=chosen
        )
    for phase in chosen.phases():  # an optimizer for each, as in a run
        model.train_only(network, phase.trainable)
        updates = optimizer.build(chosen, phase, 10)
        updates.build(network.trainable_variables)
    return network, updates


def values(*owners) -> list[np.ndarray]:
    return [variable.numpy() for owner in owners for variable in owner.variables]


@pytest.mark.parametrize(
    ("recipe", "precision"),
    [("article", "float32"), ("finetune", "float32"), ("finetune", "mixed_float16")],
)
def test_another_process_knows_every_variable(
    checkpoint, tmp_path: Path, recipe: str, precision: str
) -> None:
    """Here it is the same one, in which Keras has counted on meanwhile."""
    path = tmp_path / "state.npz"
    first, second = (build(recipe, precision, seed) for seed in (1, 2))
    for variable in first[1].variables:
        variable.assign(variable + 1)
    state = checkpoint.RunState(key=KEY, stream=3)
    checkpoint.save(path, state, *first)
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(values(*first), values(*second), strict=True)
    )
    checkpoint.restore(path, *second)
    for ours, theirs in zip(values(*second), values(*first), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_variables_have_the_names_of_their_layers(checkpoint, tmp_path: Path) -> None:
    made = build("article", "float32", 1)
    checkpoint.save(
        tmp_path / "state.npz", checkpoint.RunState(key=KEY, stream=3), *made
    )
    with np.load(tmp_path / "state.npz") as arrays:
        assert len(arrays.files) == 1 + len(values(*made))
        assert {
            *("block4_conv1/kernel", "normalization/moving_mean", "rmsprop/iteration"),
            *("dropout/seed_generator_state", "rmsprop/hidden_kernel_velocity"),
        } < set(arrays.files)


def test_a_state_is_read_as_it_was_saved(checkpoint, tmp_path: Path) -> None:
    from trainer.training.loop import Trained

    path = tmp_path / "state.npz"
    assert checkpoint.read(path) is None
    made = build("article", "float32", 1)
    middle = Trained(3, (1.5, 2.0, 3.0, 24.0), 0.25, 0.125)
    for state in (
        checkpoint.RunState(key=KEY, stream=3),
        checkpoint.RunState(
            key=KEY, stream=3, epoch=7, trained=middle, best_val_loss=0.5
        ),
    ):
        checkpoint.save(path, state, *made)
        assert checkpoint.read(path) == state


def test_a_weight_that_is_no_number_is_named_and_not_saved(
    checkpoint, tmp_path: Path
) -> None:
    from pipeline.system.errors import RunError

    path = tmp_path / "state.npz"
    network, updates = build("article", "float32", 1)
    state = checkpoint.RunState(key=KEY, stream=3)
    checkpoint.save(path, state, network, updates)
    saved = path.read_bytes()
    bias = network.get_layer("hidden").bias
    bias.assign(bias + np.inf)
    with pytest.raises(RunError, match="hidden/bias is no finite number"):
        checkpoint.save(path, state, network, updates)
    assert path.read_bytes() == saved
