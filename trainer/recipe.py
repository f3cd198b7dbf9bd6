"""What a training run does, as a value: the recipes and their fields."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything about a run that is a choice.

    Attributes:
        name: the recipe it came from.
        epochs: of examples // batch_size steps each.
        batch_size: global, over all replicas.
        learning_rate: of RMSprop, before decay.
        decay: learning_rate / (1 + decay * updates), as Keras 2 had it.
        hidden: units of the head's hidden layer.
        dropout: of the hidden layer's output, in training.
        batch_norm_momentum: of the head's moving statistics.
    """

    name: str
    epochs: int
    batch_size: int
    learning_rate: float
    decay: float
    hidden: int = 256
    dropout: float = 0.5
    batch_norm_momentum: float = 0.99

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "hidden"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must be in [0, 1)")


RECIPES = {
    # The reference: fine-tuning block5 and a new head, with every number as published.
    "article": Recipe(
        name="article", epochs=50, batch_size=64, learning_rate=5e-7, decay=5e-5
    ),
    # Shows the whole job within minutes, on a CPU and from random weights: statistics
    # that settle within an epoch's few steps, and steps large enough to be seen.
    "demo": Recipe(
        name="demo",
        epochs=6,
        batch_size=16,
        learning_rate=3e-5,
        decay=0.0,
        batch_norm_momentum=0.9,
    ),
}
