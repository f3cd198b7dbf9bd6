"""What the rates mean: who waits for whom, and the one change that helps most."""

import math
from dataclasses import dataclass

_AMPLE = 1.1  # the input is as fast as this many times the model: nobody waits
_SLOW_READ = 1.3  # reading alone, in multiples of the whole chain: the disk's fault


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Images/s.

    Attributes:
        read: off the disk, as they are stored.
        shards: from shards to the device.
        encoded, decoded: from a cache in memory.
        model: that training steps take.
        cores: that all this was measured on.
        kind: of cache that `--cache=auto` takes for the dataset: none, encoded or
            decoded.
    """

    read: float
    shards: float
    encoded: float
    decoded: float
    model: float
    cores: int
    kind: str

    @property
    def fed(self) -> float:
        """What every epoch gets."""
        rates = {"none": self.shards, "encoded": self.encoded, "decoded": self.decoded}
        return rates[self.kind]


def in_words(rates: Rates) -> list[str]:
    """Two sentences and an advice."""
    source = "from shards" if rates.kind == "none" else f"from --cache={rates.kind}"
    also = "" if rates.kind == "none" else f" ({rates.shards:,.0f} from shards)"
    fed = f"this node feeds {rates.fed:,.0f} images/s {source}{also}"
    taken = f"your model takes {rates.model:,.0f}"
    if rates.fed >= _AMPLE * rates.model:
        state = (
            f"compute-bound: the input could feed {rates.fed / rates.model:,.1f} times "
            "as much"
        )
        return [f"{fed}; {taken}; {state}", f"what helps most: {_more_compute(rates)}"]
    idle = max(0.0, 1 - rates.fed / rates.model)
    state = f"input-bound: the model waits {idle:.0%} of the time"
    return [f"{fed}; {taken}; {state}", f"what helps most: {_more_input(rates)}"]


def _more_compute(rates: Rates) -> str:
    return (
        "a faster device, or more of them: up to "
        f"{math.floor(rates.fed / rates.model):,} times these wait for nothing"
    )


def _more_input(rates: Rates) -> str:
    """The cheapest change first."""
    needed = _AMPLE * rates.model
    if rates.kind != "decoded" and rates.decoded > 1.5 * rates.fed:
        return (
            "--cache=decoded, with --cache_dir on a fast local disk: up to "
            f"{rates.decoded:,.0f} images/s from the second epoch on"
        )
    if rates.kind == "none" and rates.read < _SLOW_READ * rates.shards:
        return (
            f"DATASET on a local disk: reading alone gives {rates.read:,.0f} images/s "
            "here"
        )
    cores = math.ceil(rates.cores * needed / rates.fed)
    return f"{cores} cores instead of {rates.cores}: each feeds an equal share"
