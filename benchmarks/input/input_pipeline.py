"""How fast this node feeds a model: by stage, from a cache, and beside other ways.

Everything alternates, repeat by repeat; ratios are within a repeat.
"""

import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tensorflow as tf

from benchmarks.harness import bench_photos, isolated, machine, unsaved_training
from benchmarks.harness.figures import Figure, table
from benchmarks.input import (
    bar_chart,
    baselines,
    bottleneck,
    decode_limit,
    fixtures,
    results,
    stages,
)
from pipeline.dataset import manifest
from pipeline.dataset.manifest import Dataset
from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath
from pipeline.system import resources
from pipeline.system.console import progress
from trainer.cache import policy
from trainer.cache.in_memory import Encoded, in_memory
from trainer.data import input_pipeline as data
from trainer.doctor import decode_rate
from trainer.doctor.throughput import Rate
from trainer.recipe import Recipe
from trainer.training import distribution
from trainer.training.loop import Loop

_EXAMPLES = 16_384  # of the train split at most
_SHARE = 0.3  # of the free memory, for the same examples as pixels
_FILES = 8_192  # of the same pictures, for who reads files
_PHOTOS = 256  # originals at most


def run(
    folder: AnyPath,
    output: Path,
    *,
    recipe: Recipe,
    images: Path | None = None,
    repeats: int = 5,
    seconds: float = 1.0,
    epochs: int = 50,
    virtual_devices: int | None = None,
    cpu: bool = False,
) -> None:
    """Measures; prints tables and a verdict; writes bench.json and bench.png.

    Args:
        folder: DATASET; its train split is measured, 16,384 examples at most.
        output: folder to make, for the results.
        recipe: of the model, and the batch size.
        images: originals, for what people read without shards.
        repeats: of every measurement.
        seconds: that each takes.
        epochs: over which the memory is watched.
        virtual_devices, cpu: see distribution.strategy.

    Raises:
        RunError: DATASET or IMAGES are at fault.
    """
    resources.limit_arenas()
    whole = manifest.load(folder)
    data.steps_per_epoch(whole, recipe.batch_size)
    photos = []
    if images:
        photos = bench_photos.jpegs(images, whole.image, at_most=_PHOTOS, seed=0)
    strategy = distribution.strategy(virtual_devices=virtual_devices, cpu=cpu)
    distribution.check_batch_size(recipe.batch_size, strategy.num_replicas_in_sync)
    here, cores = machine.describe(), resources.cores()
    part = fixtures.part(whole, _most_examples(whole))
    print("\n".join(_introduction(here, part, recipe)), flush=True)
    with data.naming_damage(part), tempfile.TemporaryDirectory() as scratch:
        rates = _rates(part, photos, Path(scratch), recipe, strategy, cores)
        samples = _take(rates, part, recipe.batch_size, cores, repeats, seconds)
    choice = policy.choose("auto", whole)
    judged = bottleneck.in_words(
        results.to_judge(samples, cores=cores, kind=choice.kind)
    )
    figures = [
        *results.rates(samples),
        *results.comparisons(samples, cores=cores),
        *_memory(part, recipe.batch_size, cores, epochs),
    ]
    stage_lines = results.stage_table(samples, **_sizes(part))
    print("\n".join([*stage_lines, "", *table(figures), "", str(choice), *judged]))
    output.mkdir(parents=True, exist_ok=True)
    value = {
        "machine": here,
        "replicas": strategy.num_replicas_in_sync,
        "dataset": {"examples": part.split("train").examples, **_sizes(part)},
        "recipe": asdict(recipe),
        "stages": {name: list(samples[name]) for name in stages.STAGES},
        "figures": [figure.to_json() for figure in figures],
        "cache": str(choice),
        "verdict": judged,
    }
    atomic.write_json(output / "bench.json", value)
    title = f"{machine.in_brief(here)}; {whole.image.height}x{whole.image.width} pixels"
    bar_chart.draw(output / "bench.png", *_bars(samples), title=title)
    print(f"{output / 'bench.json'}, {output / 'bench.png'}")


def _most_examples(dataset: Dataset) -> int:
    """So many that their pixels leave memory for everything else."""
    room = int(_SHARE * resources.free_memory())
    return min(_EXAMPLES, room // (dataset.image.height * dataset.image.width * 3))


def _rates(
    dataset: Dataset,
    photos: list[Path],
    scratch: Path,
    recipe: Recipe,
    strategy: tf.distribute.Strategy,
    cores: int,
) -> dict[str, Rate]:
    """Everything to measure in this process, by name."""
    size = recipe.batch_size
    loop = _loop(dataset, recipe, strategy)
    pictures = in_memory(dataset, "train")
    batch = next(iter(data.from_store(pictures, batch_size=size, seed=0)))
    return {
        **stages.of_shards(dataset, loop, strategy, batch_size=size),
        results.ENCODED: stages.of_store(Encoded(dataset, "train"), batch_size=size),
        results.DECODED: stages.of_store(pictures, batch_size=size),
        results.GATHER: baselines.gather(pictures, batch_size=size, threads=cores),
        **_others(dataset, photos, scratch, size, cores),
        results.MODEL: stages.of_model(loop, batch),
    }


def _others(
    dataset: Dataset, photos: list[Path], scratch: Path, batch_size: int, cores: int
) -> dict[str, Rate]:
    """What people feed models with, and the limit."""
    records = fixtures.records(dataset)
    jpegs = [one.encoded for one in records]
    count = min(len(records), _FILES) // batch_size * batch_size
    fixtures.as_files(records[:count], scratch / "small")
    how = {
        "height": dataset.image.height,
        "width": dataset.image.width,
        "batch_size": batch_size,
    }
    small, originals = scratch / "small", scratch / "originals"
    found = {
        results.TURBO: decode_limit.limit(jpegs, processes=cores),
        results.THREADS: decode_rate.decode_jpeg(
            jpegs, batch_size=min(batch_size, len(jpegs) // cores), threads=cores
        ),
        results.ELEMENT: baselines.per_element(dataset, batch_size=batch_size),
        results.KERAS: baselines.image_dataset_from_directory(small, **how),
        results.FLOW: baselines.flow_from_directory(small, **how),
    }
    if photos:
        fixtures.as_links(photos, originals, 8 * batch_size)
        found |= {
            results.KERAS_ORIGINALS: baselines.image_dataset_from_directory(
                originals, **how
            ),
            results.FLOW_ORIGINALS: baselines.flow_from_directory(originals, **how),
        }
    return found


def _loop(dataset: Dataset, recipe: Recipe, strategy: tf.distribute.Strategy) -> Loop:
    """The steps of training, from random weights, in the recipe's last phase."""
    steps = data.steps_per_epoch(dataset, recipe.batch_size)
    network, updates = unsaved_training.build(
        dataset.image, len(dataset.classes), steps, recipe, strategy
    )
    return Loop(network, updates, strategy, recipe)


def _take(
    rates: Mapping[str, Rate],
    dataset: Dataset,
    batch_size: int,
    cores: int,
    repeats: int,
    seconds: float,
) -> dict[str, list[float]]:
    """Measures everything once, then once again, and so on."""
    samples: dict[str, list[float]] = defaultdict(list)
    alone = {results.ALL_CORES: cores}
    if cores > 1:
        alone[results.ONE_CORE] = 1
    total = repeats * (len(rates) + len(alone))
    with progress(total, "measuring", unit="sample") as bar:
        for _ in range(repeats):
            for name, rate in rates.items():
                samples[name].append(rate(seconds))
                bar.update()
            for name, count in alone.items():
                found = isolated.start(
                    dataset, cores=count, batch_size=batch_size, seconds=seconds
                )
                samples[name].append(found.rate)
                if count == cores:
                    samples[results.FIRST_BATCH].append(found.first_batch)
                bar.update()
    return samples


def _memory(dataset: Dataset, batch_size: int, cores: int, epochs: int) -> list[Figure]:
    return [
        results.memory(
            name,
            isolated.memory(
                dataset,
                cores=cores,
                batch_size=batch_size,
                epochs=epochs,
                cached=cached,
            ),
        )
        for name, cached in (("from shards", False), ("decoded", True))
    ]


def _sizes(dataset: Dataset) -> dict[str, float]:
    """Bytes of an image: in a record, and decoded."""
    split = dataset.split("train")
    stored = sum(shard.bytes for shard in split.shards)
    return {
        "jpeg": stored / split.examples,
        "pixels": dataset.image.height * dataset.image.width * 3,
    }


def _introduction(here: Mapping[str, Any], part: Dataset, recipe: Recipe) -> list[str]:
    image, sizes = part.image, _sizes(part)
    return [
        machine.in_words(here),
        f"{part.split('train').examples} images of {image.height}x{image.width} "
        f"(height x width), q{image.quality} 4:{image.chroma[1]}:{image.chroma[2]}, "
        f"{sizes['jpeg'] / 1e3:.1f} KB each; batches of {recipe.batch_size}",
    ]


def _bars(
    samples: results.Samples,
) -> tuple[list[Figure], list[Figure], Figure]:
    """For the chart: ours, the others, and the model."""
    ours = (*stages.STAGES, results.ENCODED, results.DECODED)
    aside = (*ours, results.MODEL, results.ONE_CORE, results.ALL_CORES)
    figures = {
        name: Figure(name, "images/s", tuple(values))
        for name, values in samples.items()
        if name != results.FIRST_BATCH
    }
    others = [figure for name, figure in figures.items() if name not in aside]
    return [figures[name] for name in ours], others, figures[results.MODEL]
