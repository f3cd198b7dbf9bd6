"""What a training run is told besides its recipe."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.system.errors import UsageError

CHECKPOINT = "checkpoint"  # in MODEL: the state of the run, and who holds MODEL


@dataclass(frozen=True, kw_only=True)
class Options:
    """Of a run, besides its recipe.

    Attributes:
        seed: of everything random; makes the run deterministic.
        cache: see policy.choose.
        cache_folder: on a local disk, for a cache that is larger than the memory, or
            of features; it is kept. Without it MODEL/cache, which goes when the run is
            complete.
        feature_dtype: see features.plan.
        save_minutes: between two savings of the state inside an epoch.
        keep_snapshots: the newest, which are the best; without it, all.
        hang_minutes: without any progress, until the run is ended.
        virtual_devices, cpu, all_reduce: see distribution.strategy.
    """

    seed: int | None = None
    cache: str = "auto"
    cache_folder: Path | None = None
    feature_dtype: str = "float32"
    save_minutes: float = 15
    keep_snapshots: int | None = None
    hang_minutes: float = 30
    virtual_devices: int | None = None
    cpu: bool = False
    all_reduce: str = "nccl"

    def __post_init__(self) -> None:
        for name, allowed, fits in (
            ("save_minutes", "0 or more", self.save_minutes >= 0),
            ("hang_minutes", "above 0", self.hang_minutes > 0),
            (
                "keep_snapshots",
                "above 0",
                self.keep_snapshots is None or self.keep_snapshots > 0,
            ),
        ):
            if not fits:
                raise UsageError(
                    f"--{name} is {getattr(self, name)}; it must be {allowed}"
                )
