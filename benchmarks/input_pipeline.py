"""How fast this node feeds a model: by stage, from a cache, and beside other ways."""

import contextlib
import io
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from benchmarks import fixtures, harness, shards, training
from benchmarks.harness import Rate, Samples, Target, stream
from benchmarks.options import InputOptions
from pipeline.dataset import manifest, record, shard_cache
from pipeline.dataset.manifest import Dataset, Split
from pipeline.system import console, parallel_timing, resources
from trainer.cache import content, feature_extraction, in_memory, on_disk, policy
from trainer.cache.features import Features
from trainer.cache.stores import Encoded, Rows
from trainer.data import augmentation as augment
from trainer.data import input_pipeline as data
from trainer.data import permutation, verified_shards
from trainer.doctor import decode_rate
from trainer.options import CacheOptions
from trainer.recipe import Augmentation, Recipe
from trainer.training import distribution
from trainer.training.loop import Loop

_EXAMPLES = 16_384  # of the train split at most
_SHARE = 0.3  # of the free memory, for the same examples as pixels
_FILES = 8_192  # of the same pictures, for who reads files
_SEED = 1
_SETTLING = 0.1  # of the epochs, until allocators have what they keep
_AMPLE = 1.1  # the input is as fast as this many times the model: nobody waits
_SLOW_READ = 1.3  # reading alone, in multiples of the whole chain: the disk's fault

_FLIP = Augmentation(flip=True)
_ALL = Augmentation(flip=True, crop=0.35, brightness=0.2, contrast=0.2, saturation=0.2)

# Stages of our own chain. The first three hand out JPEGs, the others pixels.
READ, SHUFFLE, PARSE = "read", "shuffle", "parse"
DECODE, DEVICE = "decode and batch", "to the device"
FLIP, AUGMENT = "flip", "all augmentations"
STAGES = (READ, SHUFFLE, PARSE, DECODE, DEVICE, FLIP, AUGMENT)

CACHES = {kind: f"from --cache={kind}" for kind in ("encoded", "decoded", "features")}
MODEL, MODEL_ON_FEATURES = "the model", "the model, from features"
ONE_CORE, ALL_CORES = "in a new process, 1 core", "in a new process, all cores"
FIRST_BATCH = "first batch after TensorFlow's import"  # in seconds

# Limits, and what people use instead.
THREADS, TURBO = "tf.io.decode_jpeg alone, all cores", "libjpeg-turbo alone, all cores"
ELEMENT, GATHER = "a chain of single examples", "tf.gather alone, all cores"
KERAS, FLOW = "image_dataset_from_directory", "flow_from_directory"
KERAS_ORIGINALS, FLOW_ORIGINALS = f"{KERAS}, originals", f"{FLOW}, originals"
GROWTH = {kind: f"memory, an epoch more {kind}" for kind in ("from shards", "decoded")}

TARGETS = (
    Target(DECODE, ELEMENT, at_least=1.2),
    Target(DECODE, THREADS, at_least=0.85),
    Target(DECODE, TURBO, at_least=0.7),
    Target(DECODE, KERAS, at_least=1.5),
    Target(DECODE, FLOW, at_least=3),
    Target(DECODE, KERAS_ORIGINALS),
    Target(DECODE, FLOW_ORIGINALS, at_least=40),
    Target(FLIP, DEVICE, at_least=0.95),
    Target(CACHES["decoded"], GATHER, at_least=0.9),
    Target(FIRST_BATCH, at_most=2),
    *(Target(name, at_most=1) for name in GROWTH.values()),
)
UNITS = {FIRST_BATCH: "s"} | dict.fromkeys(GROWTH.values(), "MB/epoch")
_SCALING = 0.925  # of a core more: 1.85 for two


def run(options: InputOptions) -> None:
    """Measures; prints a table and a verdict; writes bench.json and bench.png.

    Of the train split 16,384 examples are measured at most.

    Raises:
        RunError: DATASET or IMAGES are at fault.
    """
    resources.limit_arenas()
    whole, recipe = manifest.load(options.dataset), options.recipe
    data.steps_per_epoch(whole, recipe.batch_size)
    photos = []
    if options.images:
        photos = fixtures.jpegs(options.images, whole.image, seed=0)
    # As `make train` chooses, and before this process takes memory of its own.
    choice = policy.choose(whole, recipe, CacheOptions(), folder=Path.cwd())
    strategy = distribution.strategy(
        virtual_devices=options.virtual_devices, cpu=options.cpu
    )
    distribution.check_batch_size(
        recipe.batch_size, strategy.num_replicas_in_sync * recipe.accumulate
    )
    here, cores, size = harness.machine(), resources.cores(), recipe.batch_size
    pixels = whole.image.height * whole.image.width * 3
    in_room = int(_SHARE * resources.free_memory()) // pixels
    part = _part(whole, max(size, min(_EXAMPLES, in_room)))
    train = part.split("train")
    jpeg = sum(shard.bytes for shard in train.shards) / train.examples
    image = part.image
    console.say(
        f"{harness.in_words(here)}\n"
        f"{train.examples} images of {image.height}x{image.width} (height x width), "
        f"q{image.quality} {':'.join(image.chroma)}, {jpeg / 1e3:.1f} KB each; batches "
        f"of {size}"
    )
    with verified_shards.naming_damage(part), tempfile.TemporaryDirectory() as scratch:
        rates = {
            **_ours(part, recipe, strategy, choice.features, Path(scratch)),
            **_others(part, photos, Path(scratch), size, cores),
        }
        ways: dict[str, harness.Measure] = {
            name: partial(rate, options.seconds) for name, rate in rates.items()
        }
        alone = partial(_in_new_process, part, size, options.seconds)
        ways[ALL_CORES] = partial(alone, ALL_CORES, cores)
        if cores > 1:
            ways[ONE_CORE] = partial(alone, ONE_CORE, 1)
        samples = harness.alternate(ways, options.repeats)
        del rates, ways  # and the pictures that they hold
    bars = {name: samples[name] for name in samples if name != FIRST_BATCH}
    for kind, name in GROWTH.items():
        cached = kind == "decoded"
        resident = harness.isolated(_resident, part, size, options.epochs, cached)
        samples[name] = [growth(resident)]
    judged = [
        f"`make train` would take {choice}",
        *verdict(samples, cores=cores, kind=choice.kind),
    ]
    harness.report(
        options.output / "bench.json",
        here,
        samples,
        (*TARGETS, Target(ALL_CORES, ONE_CORE, at_least=_SCALING * cores)),
        UNITS,
        replicas=strategy.num_replicas_in_sync,
        dataset={"examples": train.examples, "jpeg": jpeg, "pixels": pixels},
        recipe=asdict(recipe),
        stages={name: samples[name] for name in STAGES},
        cache=str(choice),
        verdict=judged,
    )
    title = (
        f"images of {image.height}x{image.width}; {here['processor']}, {cores} cores"
    )
    ours = (*STAGES, *CACHES.values(), ONE_CORE, ALL_CORES)
    harness.chart(
        options.output / "bench.png", bars, ours=ours, line=MODEL, title=title
    )
    console.conclude("\n".join([str(options.output / "bench.png"), *judged]))


def _part(dataset: Dataset, examples: int) -> Dataset:
    """Returns the first shards of the train split, and no other split."""
    shards = fixtures.first_shards(dataset, "train", examples)
    train = Split(sum(shard.examples for shard in shards), 0, shards)
    return replace(dataset, splits={"train": train})


def _ours(
    dataset: Dataset,
    recipe: Recipe,
    strategy: tf.distribute.Strategy,
    kept: Features | None,
    scratch: Path,
) -> dict[str, Rate]:
    """Prepares our stages, our caches, and the model on a batch again and again."""
    size = recipe.batch_size
    network, updates = training.build(dataset, recipe, strategy)
    loop = Loop(network, updates, strategy, recipe)
    pictures = Rows(in_memory.fill(content.pixels(dataset, "train")))
    stores: dict[str, data.Store] = {
        "encoded": Encoded(dataset, "train"),
        "decoded": pictures,
    }
    models: dict[str, tuple[Loop, data.Store]] = {MODEL: (loop, pictures)}
    batches = partial(data.from_store, batch_size=size, seed=_SEED)
    if kept:
        few = _part(dataset, 4 * size)
        described = feature_extraction.content(
            kept, few, "train", network=network, strategy=strategy, recipe=recipe
        )
        rows = Rows(on_disk.fill(described, scratch / "train-features"))
        source = feature_extraction.source(network, kept)
        on_features = Loop(network, updates, strategy, recipe, source=source)
        stores["features"] = rows
        models[MODEL_ON_FEATURES] = (on_features, rows)
    return {
        **_stages(dataset, loop, strategy, size),
        **{
            CACHES[kind]: stream(batches(store).__iter__, size)
            for kind, store in stores.items()
        },
        GATHER: _gather(pictures, size, resources.cores()),
        **{
            name: _steps(loop, next(iter(batches(store))), size)
            for name, (loop, store) in models.items()
        },
    }


def _stages(
    dataset: Dataset, loop: Loop, strategy: tf.distribute.Strategy, size: int
) -> dict[str, Rate]:
    """Prepares our chain up to each stage; JPEGs come as they are decoded, by 64."""
    shards, few = dataset.split("train").shards, data.DECODED_TOGETHER
    read = data.in_shard_order(dataset, shards).repeat().batch(few, drop_remainder=True)
    shuffled = data.records(dataset, seed=_SEED).batch(few, drop_remainder=True)
    jpegs = {READ: read, SHUFFLE: shuffled, PARSE: shuffled.map(record.fields)}
    decoded = data.for_training(dataset, batch_size=size, seed=_SEED)
    rows = size // strategy.num_replicas_in_sync

    def augmented(augmentation: Augmentation) -> Callable[[], Iterator[Any]]:
        def replica(images: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
            drawn = augment.draws(_SEED, step, rows)
            return augment.apply(images, drawn, augmentation)

        @tf.function
        def all_replicas(images: Any, step: tf.Tensor) -> Any:
            return strategy.run(replica, (images, step))

        def start() -> Iterator[Any]:
            for step, (images, _) in enumerate(loop.feed(decoded)):
                yield all_replicas(images, tf.constant(step, tf.int64))

        return start

    return {
        **{
            name: stream(chain.with_options(data.options()).__iter__, few)
            for name, chain in jpegs.items()
        },
        DECODE: stream(decoded.__iter__, size),
        DEVICE: stream(partial(loop.feed, decoded), size),
        FLIP: stream(augmented(_FLIP), size),
        AUGMENT: stream(augmented(_ALL), size),
    }


def _steps(loop: Loop, batch: Any, size: int) -> Rate:
    """Prepares training steps on one batch, again and again."""
    fed = loop.feed(tf.data.Dataset.from_tensors(batch).repeat())

    def rate(seconds: float) -> float:
        steps = 1
        with tqdm(disable=True) as bar:
            loop.train(fed, steps, bar=bar)  # makes the graph
            while (done := loop.train(fed, steps, bar=bar)).seconds < seconds:
                steps *= 2
        return steps * size / done.seconds

    return rate


def _gather(store: Rows, size: int, threads: int) -> Rate:
    """Prepares bare `tf.gather` of a permutation's batches, in Python threads."""
    assert isinstance(store.rows, np.ndarray)
    images = tf.experimental.dlpack.from_dlpack(store.rows.__dlpack__())  # no copy
    positions = permutation.permutation(0, 0, store.examples)
    batches = list(map(tf.constant, decode_rate.full_batches(positions, size)))
    return decode_rate.in_threads(
        partial(tf.gather, images), batches, threads=threads, batch_size=size
    )


def _others(
    dataset: Dataset, photos: Sequence[Path], scratch: Path, size: int, cores: int
) -> dict[str, Rate]:
    """Prepares the limits of decoding, and what people feed models with."""
    records = [
        one.record for path in dataset.paths("train") for one in record.read(path)
    ]
    jpegs = [one.encoded for one in records]
    # Whole batches, of which Keras' ways make a stream without an end.
    count = min(len(records), _FILES) // size * size
    small, originals = scratch / "small", scratch / "originals"
    fixtures.files([(one.label, one.encoded) for one in records[:count]], small)
    folders = {KERAS: small, FLOW: small}
    if photos:
        fixtures.links(photos, originals, 8 * size, classes=2)
        folders |= {KERAS_ORIGINALS: originals, FLOW_ORIGINALS: originals}
    prepare = dict.fromkeys((KERAS, KERAS_ORIGINALS), image_dataset_from_directory)
    prepare |= dict.fromkeys((FLOW, FLOW_ORIGINALS), flow_from_directory)
    height, width = dataset.image.height, dataset.image.width
    return {
        TURBO: partial(_turbo, jpegs, cores),
        THREADS: decode_rate.decode_jpeg(
            jpegs, batch_size=min(size, len(jpegs) // cores), threads=cores
        ),
        ELEMENT: stream(per_element(dataset, size).__iter__, size),
        **{
            name: stream(prepare[name](folder, height, width, size), size)
            for name, folder in folders.items()
        },
    }


def _turbo(jpegs: Sequence[bytes], processes: int, seconds: float) -> float:
    """Measures libjpeg-turbo alone, from memory, one process for every core."""
    shares = [(jpegs[number::processes], seconds) for number in range(processes)]
    rates, _ = parallel_timing.in_step(shards.libjpeg_turbo, shares)
    return sum(rates)


def per_element(dataset: Dataset, size: int) -> tf.data.Dataset:
    """Returns the ordinary chain: every example for itself, tuned by tf.data."""
    tune = tf.data.AUTOTUNE
    shape = (dataset.image.height, dataset.image.width, 3)
    fields = {
        record.ENCODED: tf.io.FixedLenFeature([], tf.string),
        record.LABEL: tf.io.FixedLenFeature([], tf.int64),
    }

    def example(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parsed = tf.io.parse_single_example(serialized, fields)
        image = tf.io.decode_jpeg(
            parsed[record.ENCODED], channels=3, dct_method="INTEGER_ACCURATE"
        )
        return tf.ensure_shape(image, shape), parsed[record.LABEL]

    shards = dataset.split("train").shards
    paths = [str(shard_cache.shard_file(dataset, shard)) for shard in shards]
    return (
        tf.data.Dataset.from_tensor_slices(paths)
        .shuffle(len(paths))  # shards alone, no examples
        .repeat()
        .interleave(tf.data.TFRecordDataset, num_parallel_calls=tune)
        .map(example, num_parallel_calls=tune)
        .batch(size, drop_remainder=True)
        .prefetch(tune)
    )


def image_dataset_from_directory(
    folder: Path, height: int, width: int, size: int
) -> Callable[[], Iterator[Any]]:
    """Prepares Keras' dataset of class folders; the files must fill whole batches."""
    chain = keras.utils.image_dataset_from_directory(
        folder, batch_size=size, image_size=(height, width), verbose=False
    )
    return chain.repeat().__iter__


def flow_from_directory(
    folder: Path, height: int, width: int, size: int
) -> Callable[[], Iterator[Any]]:
    """Prepares ImageDataGenerator as the article used it: in one thread, its default.

    The files must fill whole batches.
    """
    generator = tf.keras.preprocessing.image.ImageDataGenerator(rescale=1 / 255)
    with contextlib.redirect_stdout(io.StringIO()):  # the number of files
        flow = generator.flow_from_directory(
            folder, target_size=(height, width), batch_size=size
        )
    return flow.__iter__


def _in_new_process(
    dataset: Dataset, size: int, seconds: float, name: str, cores: int
) -> dict[str, float]:
    """Measures a process that has just imported TensorFlow, on so many cores."""
    first, rate = harness.isolated(_start, dataset, size, seconds, cores=cores)
    return {name: rate} | ({FIRST_BATCH: first} if name == ALL_CORES else {})


def _start(dataset: Dataset, size: int, seconds: float) -> tuple[float, float]:
    """Returns seconds until the first batch, and images/s after it."""
    started = time.perf_counter()
    batches = iter(data.for_training(dataset, batch_size=size, seed=_SEED))
    next(batches)
    first = time.perf_counter() - started
    return first, stream(lambda: batches, size)(seconds)


def _resident(dataset: Dataset, size: int, epochs: int, cached: bool) -> list[float]:
    """Feeds from decoded pictures, or from shards; returns MB after every epoch."""
    if cached:
        store = Rows(in_memory.fill(content.pixels(dataset, "train")))
        batches = iter(data.from_store(store, batch_size=size, seed=_SEED))
    else:
        batches = iter(data.for_training(dataset, batch_size=size, seed=_SEED))
    found = []
    for _ in range(epochs):
        for _ in range(data.steps_per_epoch(dataset, size)):
            next(batches)
        found.append(harness.memory("VmRSS"))
    return found


def growth(resident: Sequence[float]) -> float:
    """Returns the slope of megabytes over all epochs but the first tenth."""
    settled = resident[math.ceil(_SETTLING * len(resident)) :]
    return statistics.linear_regression(range(len(settled)), settled).slope


def verdict(samples: Samples, *, cores: int, kind: str) -> list[str]:
    """Says who waits for whom, and the one change that helps most.

    Args:
        samples: in images/s.
        cores: that all this was measured on.
        kind: of the cache that `make train` takes: none, encoded, decoded or features.
    """
    rate = {name: statistics.median(values) for name, values in samples.items()}
    fed, shards = rate[CACHES.get(kind, DEVICE)], rate[DEVICE]
    model = rate[MODEL_ON_FEATURES if kind == "features" else MODEL]
    times = fed / model
    source, also = "from shards", ""
    if kind != "none":
        source, also = f"from --cache={kind}", f" ({shards:,.0f} from shards)"
    if times >= _AMPLE:
        state = f"compute-bound: the input could feed {times:,.1f} times as much"
        advice = (
            "a faster device, or more of them: up to "
            f"{math.floor(times):,} times these wait for nothing"
        )
    else:
        state = f"input-bound: the model waits {max(0.0, 1 - times):.0%} of the time"
        # The cheapest change that helps.
        if kind == "features":
            advice = "--feature_dtype=float16, whose rows have half the bytes"
        elif kind != "decoded" and rate[CACHES["decoded"]] > 1.5 * fed:
            advice = (
                "--cache=decoded, with --cache_dir on a fast local disk: up to "
                f"{rate[CACHES['decoded']]:,.0f} images/s from the second epoch on"
            )
        elif kind == "none" and rate[READ] < _SLOW_READ * shards:
            advice = (
                f"DATASET on a local disk: reading alone gives {rate[READ]:,.0f} "
                "images/s here"
            )
        else:
            needed = math.ceil(cores * _AMPLE / times)
            advice = f"{needed} cores instead of {cores}: each feeds an equal share"
    return [
        f"this node feeds {fed:,.0f} images/s {source}{also}; your model takes "
        f"{model:,.0f}; {state}",
        f"what helps most: {advice}",
    ]
