"""The recipes."""

import dataclasses

import pytest

from trainer.recipe import NO_AUGMENTATION, RECIPES


def test_article_is_as_published() -> None:
    article = dataclasses.asdict(RECIPES["article"])
    assert article == {
        "name": "article",
        "epochs": 50,
        "batch_size": 64,
        "learning_rate": 5e-7,
        "decay": 5e-5,
        "hidden": 256,
        "dropout": 0.5,
        "batch_norm_momentum": 0.99,
        "augmentation": dataclasses.asdict(NO_AUGMENTATION),
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", 0), ("batch_size", -1), ("learning_rate", 0.0), ("dropout", 1.0)],
)
def test_a_recipe_validates_itself(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        dataclasses.replace(RECIPES["demo"], **{field: value})
