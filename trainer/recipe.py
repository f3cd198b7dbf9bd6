"""What a training run does, as a value: the recipes and their fields."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training images are changed at random; validation's never are.

    Attributes:
        flip: swap left and right in every second image.
        crop: the least share of an image's area that a random crop keeps, which is
            then scaled back to full size; 1 is no crop.
        brightness: add up to so much of 255, or subtract it.
        contrast: spread around the image's mean by a factor within 1 ± so much.
        saturation: the same for colour, around the grey of its luminance.
    """

    flip: bool = False
    crop: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop is {self.crop}; it must be in (0, 1]")
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must be in [0, 1]"
                )

    @property
    def changes(self) -> bool:
        """Whether anything is on."""
        return self != NO_AUGMENTATION


NO_AUGMENTATION = Augmentation()


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
        augmentation: of the training images.
    """

    name: str
    epochs: int
    batch_size: int
    learning_rate: float
    decay: float
    hidden: int = 256
    dropout: float = 0.5
    batch_norm_momentum: float = 0.99
    augmentation: Augmentation = NO_AUGMENTATION

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
        augmentation=Augmentation(flip=True),
    ),
}
