"""What a training run does, as a value: the recipes and their fields."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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
        """Returns whether anything is on."""
        return self != NO_AUGMENTATION


NO_AUGMENTATION = Augmentation()

# Layers that a phase trains, as a person would say it.
LAYERS = {
    "head": "the head alone",
    "block5": "block5 and the head",
    "all": "all layers",
}

# What a text field may say.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "preprocessing": ("scale", "imagenet"),
    "trainable": ("head", "block5", "all"),
    "optimizer": ("rmsprop", "adamw"),
    "schedule": ("inverse_time", "cosine"),
    "precision": ("float32", "mixed_bfloat16", "mixed_float16"),
}


@dataclass(frozen=True)
class Phase:
    """Consecutive epochs with the same trainable layers and one optimizer.

    Attributes:
        first_epoch: how many epochs come before it.
        epochs: how many it has.
        trainable: `head`, `block5` (and the head), or `all`.
        learning_rate: where its schedule begins, or what its warm-up leads to.
    """

    first_epoch: int
    epochs: int
    trainable: str
    learning_rate: float

    @property
    def end(self) -> int:
        """Returns how many epochs are done at its end."""
        return self.first_epoch + self.epochs


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything about a run that is a choice.

    Attributes:
        name: the recipe it came from.
        epochs: of examples // batch_size steps each.
        batch_size: global, over all replicas.
        preprocessing: of the pixels, inside the model: `scale` (x 1/255), or
            `imagenet` (what the ImageNet weights were trained with: BGR, less the
            mean of ImageNet).
        hidden: units of the head's hidden layer.
        dropout: of the hidden layer's output, in training.
        batch_norm_momentum: of the head's moving statistics.
        trainable: `head`, `block5` (and the head), or `all`.
        head_epochs: of these, how many come first and train the head alone.
        head_learning_rate: of those epochs.
        optimizer: `rmsprop` (as Keras 2 had it), or `adamw`.
        weight_decay: of adamw; biases and normalization have none.
        learning_rate: of the epochs after the head's.
        schedule: `inverse_time`: learning_rate / (1 + decay * updates), as Keras 2
            had it; `cosine`: a linear warm-up, then half a cosine down to zero, once
            in each phase.
        decay: of inverse_time.
        warmup_epochs: of cosine.
        label_smoothing: share of the target that is spread over all classes; 0 … 1.
        class_weights: power p of the weights (1 / examples of the class) ** p of the
            loss, whose mean over the training examples is 1; 0 is none.
        augmentation: of the training images.
        precision: the Keras dtype policy; `mixed_…` computes in 16 bits and keeps
            variables, head statistics and probabilities in float32.
        tf32: let GPUs since Ampere round the inputs of float32 convolutions and matrix
            products to 10 bits of mantissa; no other device does, whatever this says.
        jit: compile the frozen layers with XLA.
        steps_per_execution: training steps in one call of TensorFlow.
        accumulate: parts that a batch goes through the convolutions in, one after
            the other, for batches that the memory of the device cannot hold at once.
    """

    name: str
    epochs: int
    batch_size: int
    preprocessing: str = "scale"
    hidden: int = 256
    dropout: float = 0.5
    batch_norm_momentum: float = 0.99
    trainable: str = "block5"
    head_epochs: int = 0
    head_learning_rate: float = 0.0
    optimizer: str = "rmsprop"
    weight_decay: float = 0.0
    learning_rate: float
    schedule: str = "inverse_time"
    decay: float = 0.0
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    class_weights: float = 0.0
    augmentation: Augmentation = NO_AUGMENTATION
    precision: str = "float32"
    tf32: bool = False
    jit: bool = False
    steps_per_execution: int = 1
    accumulate: int = 1

    def __post_init__(self) -> None:
        self._check_ranges()
        self._check_against_each_other()

    def phases(self) -> tuple[Phase, ...]:
        """Returns one phase, or two with `head_epochs`."""
        rest = Phase(
            self.head_epochs,
            self.epochs - self.head_epochs,
            self.trainable,
            self.learning_rate,
        )
        if not self.head_epochs:
            return (rest,)
        return (Phase(0, self.head_epochs, "head", self.head_learning_rate), rest)

    def phase(self, epoch: int) -> Phase:
        """Returns the phase of an epoch, counted from 0."""
        return next(
            phase for phase in reversed(self.phases()) if phase.first_epoch <= epoch
        )

    def _check_ranges(self) -> None:
        for name in (
            *("epochs", "batch_size", "learning_rate", "hidden"),
            *("steps_per_execution", "accumulate"),
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in (
            *("head_epochs", "head_learning_rate", "weight_decay", "decay"),
            *("warmup_epochs", "class_weights"),
        ):
            if not getattr(self, name) >= 0:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must be 0 or more"
                )
        for name in ("dropout", "label_smoothing", "batch_norm_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must be in [0, 1)"
                )
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; it must be "
                    f"{' or '.join(allowed)}"
                )

    def _check_against_each_other(self) -> None:
        if bool(self.head_epochs) != bool(self.head_learning_rate):
            raise ValueError(
                f"head_epochs is {self.head_epochs} and head_learning_rate is "
                f"{self.head_learning_rate}; give both or neither"
            )
        if self.head_epochs >= self.epochs:
            raise ValueError(
                f"head_epochs is {self.head_epochs} of {self.epochs} epochs; it must "
                "be less. To train nothing but the head, use trainable=head"
            )
        if self.head_epochs and self.trainable == "head":
            raise ValueError("trainable is 'head'; head_epochs must then be 0")
        for field, needs, value in (
            ("weight_decay", "optimizer", "adamw"),
            ("decay", "schedule", "inverse_time"),
            ("warmup_epochs", "schedule", "cosine"),
        ):
            if getattr(self, field) and getattr(self, needs) != value:
                raise ValueError(
                    f"{field} is {getattr(self, field)}, which {needs} "
                    f"{getattr(self, needs)!r} does not have; only {value!r} has it"
                )
        shortest = min(phase.epochs for phase in self.phases())
        if self.warmup_epochs and self.warmup_epochs >= shortest:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs}, and a phase has {shortest} "
                "epochs; it must be less"
            )
        if self.jit and self.trainable == "all":
            raise ValueError(
                "jit is True and trainable is 'all'; jit compiles the frozen layers, "
                "of which there would be none"
            )
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size is {self.batch_size}, which does not divide by "
                f"accumulate, {self.accumulate}"
            )

    def in_words(self) -> list[str]:
        """Returns what the run does, as a person would say it, in a few lines.

        What is off is left out, and what is not as in RECIPES is named at the end.
        """
        lines = [
            f"recipe {self.name}: {self.epochs} epoch{'s' * (self.epochs > 1)} of "
            f"batches of {self.batch_size}",
            f"  {self._phases_in_words()}",
            f"  {self._updates_in_words()}",
            f"  head of {self.hidden} units, batch normalization with momentum "
            f"{self.batch_norm_momentum:g}, dropout {self.dropout:g}; "
            f"{self._loss_in_words()}",
            f"  {self._images_in_words()}",
            f"  {self._arithmetic_in_words()}",
        ]
        if replaced := self.replaced():
            named = (
                "no augmentation" if x == "augmentation" else f"{x} {new} (not {old})"
                for x, (old, new) in replaced.items()
            )
            lines.append(f"  other than the recipe: {', '.join(named)}")
        return lines

    def replaced(self) -> dict[str, tuple[Any, Any]]:
        """Returns the recipe's value and this one, of the fields where they differ."""
        own, known = vars(self), vars(RECIPES.get(self.name, self))
        return {x: (known[x], own[x]) for x in own if own[x] != known[x]}

    def _phases_in_words(self) -> str:
        said = []
        for phase in self.phases():
            last = phase.first_epoch + phase.epochs
            epochs = f"epochs {phase.first_epoch + 1} to {last} train"
            if phase.epochs == 1:
                epochs = f"epoch {last} trains"
            said.append(
                f"{epochs} {LAYERS[phase.trainable]} at a learning rate of "
                f"{phase.learning_rate:g}"
            )
        return "; ".join(said)

    def _updates_in_words(self) -> str:
        optimizer = "RMSprop as Keras 2 had it"
        if self.optimizer == "adamw":
            optimizer = f"AdamW, weight decay {self.weight_decay:g}"
        if self.schedule == "cosine":
            epochs = f"{self.warmup_epochs:g} epoch{'s' * (self.warmup_epochs != 1)}"
            warmup = f"{epochs} of linear warm-up, then "
            each = " in each phase" if self.head_epochs else ""
            return (
                f"{optimizer}; {warmup if self.warmup_epochs else ''}a cosine to zero"
                f"{each}"
            )
        if self.decay:
            return f"{optimizer}; the learning rate decays by {self.decay:g} per update"
        return f"{optimizer}; a constant learning rate"

    def _loss_in_words(self) -> str:
        said = ["cross-entropy"]
        if self.label_smoothing:
            said.append(f"labels smoothed by {self.label_smoothing:g}")
        if self.class_weights:
            said.append(f"classes weighted by (1 / examples) ^ {self.class_weights:g}")
        return ", ".join(said)

    def _images_in_words(self) -> str:
        scaled = {
            "scale": "pixels x 1/255",
            "imagenet": "pixels as the ImageNet weights expect them",
        }[self.preprocessing]
        changes = self.augmentation
        if not changes.changes:
            return f"{scaled}; images are not augmented"
        said = ["mirrored"] if changes.flip else []
        if changes.crop < 1:
            said.append(f"cropped to {changes.crop:.0%} of their area or more")
        for name in ("brightness", "contrast", "saturation"):
            if share := getattr(changes, name):
                said.append(f"{name} ± {share:.0%}")
        return f"{scaled}; images are augmented at random: {', '.join(said)}"

    def _arithmetic_in_words(self) -> str:
        said = [self.precision]
        if self.tf32:
            said.append("TF32 on GPUs that have it")
        if self.jit:
            said.append("frozen layers compiled by XLA")
        if self.steps_per_execution > 1:
            said.append(f"{self.steps_per_execution} steps in a call")
        if self.accumulate > 1:
            said.append(f"each batch in {self.accumulate} micro-batches")
        return ", ".join(said)


RECIPES = {
    # The reference: fine-tuning block5 and a new head, with every number as published.
    "article": Recipe(
        name="article", epochs=50, batch_size=64, learning_rate=5e-7, decay=5e-5
    ),
    # What is usual today. Where its numbers come from:
    "finetune": Recipe(
        name="finetune",
        epochs=20,
        batch_size=128,
        # The convolutions expect what they were trained with (arXiv:1409.1556, 2.1).
        preprocessing="imagenet",
        # First the head alone: its random gradients would wreck the convolutions; then
        # the last block, 100 times slower (Keras' guide to transfer learning).
        head_epochs=4,
        head_learning_rate=1e-3,
        trainable="block5",
        learning_rate=1e-5,
        # Decoupled weight decay (arXiv:1711.05101), for kernels only (arXiv:1812.01187,
        # section 3.1).
        optimizer="adamw",
        weight_decay=1e-4,
        # Warm-up (arXiv:1706.02677, section 2.2) and cosine (arXiv:1608.03983).
        schedule="cosine",
        warmup_epochs=1,
        # arXiv:1512.00567, section 7.
        label_smoothing=0.1,
        # The square root of the frequency, for long tails (arXiv:1805.00932, 2.2).
        class_weights=0.5,
        # Crops of Inception, but no smaller than a third: of photos that are resized
        # already. Colours of arXiv:1312.5402, milder.
        augmentation=Augmentation(
            flip=True, crop=0.35, brightness=0.2, contrast=0.2, saturation=0.2
        ),
        # No loss scaling, unlike float16: the range is that of float32.
        precision="mixed_bfloat16",
        tf32=True,
    ),
    # Shows the whole job within minutes, on a CPU and from random weights: statistics
    # that settle within an epoch's few steps, and steps large enough to be seen.
    "demo": Recipe(
        name="demo",
        epochs=6,
        batch_size=16,
        learning_rate=3e-5,
        batch_norm_momentum=0.9,
        augmentation=Augmentation(flip=True),
    ),
}
