"""From the samples of the benchmark of features to its figures and their targets."""

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.harness.figures import Figure, divide

PIXELS, EXACT = "pixels", "float32"
DTYPES = (EXACT, "float16", "uint8")

# What is measured of pixels or of a dtype; in seconds, but for FORWARD, in images/s.
FORWARD = "the frozen layers alone"
EXTRACT, EXTRACT_REST = "extraction, {}", "extraction of validation, {}"
TRAIN, VALIDATE = "an epoch from {}", "its validation, {}"
WAIT = "input wait, {}"  # a share
LOSS, VALIDATION_LOSS = "loss, {}", "validation loss, {}"
APART, ASTRAY = "weights: largest difference", "weights: difference / way"

Samples = Mapping[str, Sequence[float]]


def speed(samples: Samples, *, images: int) -> list[Figure]:
    """Epochs, extraction, and both together.

    Args:
        samples: of everything named above.
        images: of the train split.
    """
    return [
        *_epochs(samples),
        *_extraction(samples, images),
        *_together(samples),
        *(_wait(samples, dtype) for dtype in DTYPES),
    ]


def sameness(samples: Samples, *, epochs: int) -> list[Figure]:
    """How far from each other training from float32 features and from pixels are.

    Args:
        samples: of losses, one for each epoch, and of weights.
        epochs: how many are compared.
    """
    found = []
    for what in (LOSS, VALIDATION_LOSS):
        ours, theirs = (samples.get(what.format(way)) for way in (EXACT, PIXELS))
        if ours and theirs:
            apart = [abs(ratio - 1) for ratio in divide(ours, theirs)[:epochs]]
            name = f"{what.format(EXACT)} / pixels - 1, {epochs} epochs"
            found.append(Figure(name, "", tuple(apart), at_most=1e-4))
    after = f"after {epochs} epochs"
    return [
        *found,
        Figure(f"{APART}, {after}", "", tuple(samples[APART]), at_most=1e-6),
        Figure(f"{ASTRAY}, {after}", "", tuple(samples[ASTRAY]), at_most=0.02),
    ]


def _epochs(samples: Samples) -> list[Figure]:
    """Of training and of validation: seconds, and pixels beside each dtype."""
    found = []
    for what, least in ((TRAIN, 4.7), (VALIDATE, None)):
        pixels = samples.get(what.format(PIXELS))
        if not pixels:  # no validation split
            continue
        found.append(Figure(what.format(PIXELS), "s", tuple(pixels)))
        for dtype in DTYPES:
            seconds = samples[what.format(dtype)]
            ratios = divide(pixels[: len(seconds)], seconds)
            found += [
                Figure(what.format(dtype), "s", tuple(seconds)),
                Figure("pixels / these", "times", ratios, least),
            ]
    return found


def _extraction(samples: Samples, images: int) -> list[Figure]:
    forward = samples[FORWARD]
    found = [Figure(FORWARD, "images/s", tuple(forward))]
    for dtype in DTYPES:
        name = EXTRACT.format(dtype)
        rates = [images / seconds for seconds in samples[name]]
        found.append(Figure(name, "images/s", tuple(rates)))
        if dtype == EXACT:
            ratios = divide(rates, forward)
            found.append(Figure("these / alone", "times", ratios, at_least=0.9))
    return found


def _together(samples: Samples) -> list[Figure]:
    """All epochs and what comes before them: training alone, and with validation."""
    names = ["training alone"]
    if samples.get(VALIDATE.format(PIXELS)):
        names.append("with validation")
    found = []
    for count, name in enumerate(names, 1):
        each_epoch, once = (TRAIN, VALIDATE)[:count], (EXTRACT, EXTRACT_REST)[:count]
        pixels, exact = (
            sum(sum(samples[what.format(way)]) for what in each_epoch)
            for way in (PIXELS, EXACT)
        )
        exact += sum(statistics.median(samples[what.format(EXACT)]) for what in once)
        epochs = f"{len(samples[TRAIN.format(EXACT)])} epochs, {name}"
        found += [
            Figure(f"{epochs}, pixels", "s", (pixels,)),
            Figure(f"{epochs}, float32", "s", (exact,)),
            Figure("pixels / these", "times", (pixels / exact,), at_least=3.2),
        ]
    return found


def _wait(samples: Samples, dtype: str) -> Figure:
    name = WAIT.format(dtype)
    percent = tuple(100 * share for share in samples[name])
    return Figure(name, "%", percent, at_most=1)
