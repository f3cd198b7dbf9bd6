"""What is said when a loss is no finite number any more."""

import math
from collections.abc import Sequence

from pipeline.system.errors import RunError
from trainer.training.loop import DivergenceError

_ADVICE = (
    "What was saved before is kept. Lower --learning_rate; or look at these images "
    "and their labels"
)


def of_batch(error: DivergenceError, epoch: int, ids: Sequence[str]) -> RunError:
    """Names the ids of the first batch whose loss is not finite."""
    return RunError(
        f"training diverged: the loss is {error.loss} in step {error.step + 1} of "
        f"epoch {epoch}. {_ADVICE}: {', '.join(ids)}"
    )


def refuse_validation(loss: float) -> None:
    """Raises RunError for a loss that is not finite."""
    if not math.isfinite(loss):
        raise RunError(
            f"training diverged: the validation loss is {loss}, though that of "
            "training was finite. What was saved before is kept. Lower --learning_rate."
        )
