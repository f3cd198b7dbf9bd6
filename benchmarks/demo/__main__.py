"""`python -m benchmarks.demo`: what `make demo` begins and ends with."""

import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline.dataset.manifest import SPLITS
from pipeline.storage.flag_paths import local_path_option, path_option
from pipeline.storage.object_paths import AnyPath
from pipeline.system import command_line
from pipeline.system.command_line import Verb, option


@dataclass(frozen=True, kw_only=True)
class PhotosOptions:
    """What `photos` paints."""

    images: Path = local_path_option("Names the folder for the sample photos.")
    seed: int = option("Seeds the sample photos.", 0)
    times: int = option(
        "Paints so many times as many photos as the demo needs.", 1, lower_bound=1
    )


@dataclass(frozen=True, kw_only=True)
class SummaryOptions:
    """What `summary` looks at: a finished job."""

    dataset: AnyPath = path_option("Names DATASET.")
    model: Path = local_path_option("Names MODEL.")
    predictions: AnyPath = path_option("Names PREDICTIONS.")
    split: str = option("Says which split was predicted.", "test", choices=SPLITS)


def photos(options: PhotosOptions) -> None:
    """Paints sample photos into IMAGES."""
    from benchmarks.demo import sample_photos

    sample_photos.write(options.images, seed=options.seed, times=options.times)


def summary(options: SummaryOptions) -> None:
    """Says in plain words, and with one picture, what a finished job did."""
    from benchmarks.demo import contact_sheet

    contact_sheet.show(
        options.dataset, options.model, options.predictions, split=options.split
    )


VERBS = {
    "photos": Verb(PhotosOptions, photos),
    "summary": Verb(SummaryOptions, summary),
}

if __name__ == "__main__":
    sys.exit(command_line.main("benchmarks.demo", VERBS, argv=sys.argv, about=__doc__))
