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


def test_a_recipe_in_words() -> None:
    assert RECIPES["article"].in_words() == [
        "recipe article: 50 epochs of batches of 64",
        "  epochs 1 to 50 train block5 and the head at a learning rate of 5e-07",
        "  RMSprop as Keras 2 had it; the learning rate decays by 5e-05 per update",
        "  head of 256 units, batch normalization with momentum 0.99, dropout 0.5; "
        "cross-entropy",
        "  pixels x 1/255; images are not augmented",
        "  float32",
    ]
    changed = dataclasses.replace(
        RECIPES["finetune"], epochs=5, warmup_epochs=0.5, accumulate=2
    )
    assert changed.in_words() == [
        "recipe finetune: 5 epochs of batches of 128",
        "  epochs 1 to 4 train the head alone at a learning rate of 0.001; epoch 5 "
        "trains block5 and the head at a learning rate of 1e-05",
        "  AdamW, weight decay 0.0001; 0.5 epochs of linear warm-up, then a cosine to "
        "zero in each phase",
        "  head of 256 units, batch normalization with momentum 0.99, dropout 0.5; "
        "cross-entropy, labels smoothed by 0.1, classes weighted by (1 / examples) ^ "
        "0.5",
        "  pixels as the ImageNet weights expect them; images are augmented at random: "
        "mirrored, cropped to 35% of their area or more, brightness ± 20%, contrast ± "
        "20%, saturation ± 20%",
        "  mixed_bfloat16, TF32 on GPUs that have it, each batch in 2 micro-batches",
        "  other than the recipe: epochs 5 (not 20), warmup_epochs 0.5 (not 1), "
        "accumulate 2 (not 1)",
    ]


OTHERS = {
    "epochs": 19,
    "batch_size": 64,
    "preprocessing": "scale",
    "hidden": 64,
    "dropout": 0.1,
    "batch_norm_momentum": 0.5,
    "trainable": "all",
    "head_epochs": 3,
    "head_learning_rate": 1e-4,
    "optimizer": "rmsprop",
    "weight_decay": 1e-3,
    "learning_rate": 1e-6,
    "schedule": "inverse_time",
    "warmup_epochs": 0.5,
    "label_smoothing": 0.2,
    "class_weights": 1.0,
    "augmentation": NO_AUGMENTATION,
    "precision": "float32",
    "tf32": False,
    "jit": True,
    "steps_per_execution": 2,
    "accumulate": 2,
}
# What must change with them.
TOGETHER = {"optimizer": {"weight_decay": 0.0}, "schedule": {"warmup_epochs": 0.0}}


@pytest.mark.parametrize("field", OTHERS)
def test_every_field_is_in_the_words_before_it_is_named(field: str) -> None:
    """What a recipe says of itself tells it from every other one."""
    changes = {field: OTHERS[field], **TOGETHER.get(field, {})}
    changed = dataclasses.replace(RECIPES["finetune"], **changes)
    *plain, last = changed.in_words()
    assert plain != RECIPES["finetune"].in_words()
    assert ("no augmentation" if field == "augmentation" else field) in last
    fields = {one.name for one in dataclasses.fields(changed)}
    assert fields - {*OTHERS} == {"name", "decay"}  # decay is of another schedule
