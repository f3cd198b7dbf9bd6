"""The recipes."""

import dataclasses

import pytest

from trainer.recipe import NO_AUGMENTATION, RECIPES, Phase


def test_article_is_as_published() -> None:
    article = dataclasses.asdict(RECIPES["article"])
    assert article == {
        "name": "article",
        "epochs": 50,
        "batch_size": 64,
        "preprocessing": "scale",
        "hidden": 256,
        "dropout": 0.5,
        "batch_norm_momentum": 0.99,
        "trainable": "block5",
        "head_epochs": 0,
        "head_learning_rate": 0.0,
        "optimizer": "rmsprop",
        "weight_decay": 0.0,
        "learning_rate": 5e-7,
        "schedule": "inverse_time",
        "decay": 5e-5,
        "warmup_epochs": 0.0,
        "label_smoothing": 0.0,
        "class_weights": 0.0,
        "augmentation": dataclasses.asdict(NO_AUGMENTATION),
        "precision": "float32",
        "tf32": False,
        "jit": False,
        "steps_per_execution": 1,
        "accumulate": 1,
    }


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        ("demo", {"epochs": 0}, "epochs is 0"),
        ("demo", {"batch_size": -1}, "batch_size is -1"),
        ("demo", {"learning_rate": 0.0}, "learning_rate is 0.0"),
        ("demo", {"dropout": 1.0}, "dropout is 1.0"),
        ("demo", {"label_smoothing": -0.1}, "label_smoothing is -0.1"),
        ("demo", {"precision": "half"}, "precision is 'half'; it must be float32 or"),
        ("demo", {"head_epochs": 2}, "give both or neither"),
        ("demo", {"warmup_epochs": 1.0}, "only 'cosine' has it"),
        ("demo", {"weight_decay": 0.1}, "only 'adamw' has it"),
        ("demo", {"accumulate": 3}, "16, which does not divide by accumulate, 3"),
        ("finetune", {"decay": 1e-3}, "only 'inverse_time' has it"),
        ("finetune", {"epochs": 4}, "head_epochs is 4 of 4 epochs"),
        ("finetune", {"trainable": "head"}, "head_epochs must then be 0"),
        ("finetune", {"warmup_epochs": 4.0}, "a phase has 4 epochs"),
    ],
)
def test_a_recipe_validates_itself(recipe: str, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(RECIPES[recipe], **changes)


def test_phases() -> None:
    assert RECIPES["article"].phases() == (Phase(0, 50, "block5", 5e-7),)
    head, rest = RECIPES["finetune"].phases()
    assert head == Phase(0, 4, "head", 1e-3)
    assert rest == Phase(4, 16, "block5", 1e-5)
    phases = [RECIPES["finetune"].phase(epoch) for epoch in (0, 3, 4, 19, 25)]
    assert phases == [head, head, rest, rest, rest]
