"""The tf.data chains, over real shards."""

import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from pipeline import preprocess
from pipeline.dataset import manifest, record
from pipeline.dataset.manifest import ImageContract
from pipeline.options import ShardsOptions
from pipeline.system.errors import RunError
from tests.support.files import REPOSITORY
from tests.support.photos import CLASSES, HEIGHT, PER_CLASS, TEST, WIDTH, jpeg, photo
from tests.support.training import strategy_of

TRAIN = len(CLASSES) * PER_CLASS["train"]  # 24


@pytest.fixture
def data(tf):
    from trainer.data import input_pipeline

    return input_pipeline


@pytest.fixture
def naming_damage(tf):
    from trainer.data.verified_shards import naming_damage

    return naming_damage


def digests(images: np.ndarray) -> list[bytes]:
    """Each picture as a key: the photos all differ."""
    return [picture.tobytes() for picture in images]


def stream(data, folder: Path, batches: int, **options: object) -> list[bytes]:
    """The pictures of the first batches of the training stream."""
    chain = data.for_training(manifest.load(folder), **options).as_numpy_iterator()
    return [key for images, _ in islice(chain, batches) for key in digests(images)]


def test_validation_is_every_image_once(tf, data, made_dataset: Path) -> None:
    dataset = manifest.load(made_dataset)
    (whole,) = data.for_inference(
        dataset, dataset.split("validation").shards, batch_size=9
    )
    batches = list(data.for_validation(dataset, batch_size=4))
    assert [len(labels) for _, labels in batches] == [4, 4, 1]
    for at, wanted in enumerate((whole.images, whole.labels)):
        found = np.concatenate([batch[at] for batch in batches])
        np.testing.assert_array_equal(found, wanted)


def test_in_a_scope_replicas_share_every_batch_of_validation(
    tf, data, made_dataset: Path
) -> None:
    dataset = manifest.load(made_dataset)
    with strategy_of(2).scope():
        with pytest.warns(UserWarning, match="1 of 9 validation images are left out"):
            batches = list(data.for_validation(dataset, batch_size=6))
        with pytest.raises(ValueError, match="is 5, which does not divide by 2 repl"):
            data.for_validation(dataset, batch_size=5)
    assert [len(labels) for _, labels in batches] == [6, 2]


def test_training_batches_are_full_and_permute(data, made_dataset: Path) -> None:
    """Batches of 10 over 24 examples: permutations end inside batches."""
    keys = stream(data, made_dataset, 12, batch_size=10, seed=2)
    passes = [keys[start : start + TRAIN] for start in range(0, 120, TRAIN)]
    for part in passes:
        assert set(Counter(part).values()) == {1}
        assert len(part) == TRAIN
    assert len({tuple(part) for part in passes}) == len(passes)


def test_a_seed_decides_the_stream(data, made_dataset: Path) -> None:
    options = {"batch_size": 5}
    first = stream(data, made_dataset, 9, seed=3, **options)
    assert stream(data, made_dataset, 9, seed=3, **options) == first
    assert stream(data, made_dataset, 9, seed=4, **options) != first


@pytest.mark.parametrize("start", [1, 4, 7])
def test_the_stream_starts_anywhere(data, made_dataset: Path, start: int) -> None:
    options = {"batch_size": 5, "seed": 3}
    whole = stream(data, made_dataset, 9, **options)
    rest = stream(data, made_dataset, 9 - start, first_batch=start, **options)
    assert rest == whole[start * 5 :]


def test_training_elements(tf, data, made_dataset: Path) -> None:
    dataset = manifest.load(made_dataset)
    chain = data.for_training(dataset, batch_size=4, seed=0)
    images, labels = next(iter(chain))
    assert (images.shape, images.dtype) == ((4, HEIGHT, WIDTH, 3), tf.uint8)
    assert (labels.shape, labels.dtype) == ((4,), tf.int64)
    # The label is the channel that is the brightest: blue 0, green 1, red 2.
    brightest = images.numpy().mean(axis=(1, 2)).argmax(axis=1)
    np.testing.assert_array_equal(2 - brightest, labels)


def test_a_batch_larger_than_the_split_is_refused(data, made_dataset: Path) -> None:
    with pytest.raises(RunError, match="24 examples, fewer than a batch of 25"):
        data.for_training(manifest.load(made_dataset), batch_size=25, seed=1)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_inference_sees_every_record_once_in_order(
    data, made_dataset: Path, batch_size: int
) -> None:
    dataset = manifest.load(made_dataset)
    shards = dataset.split("test").shards
    batches = list(data.for_inference(dataset, shards, batch_size=batch_size))
    ids = [image_id.decode() for batch in batches for image_id in batch.ids.numpy()]
    assert sorted(ids) == [f"photo {index}.jpg" for index in range(TEST)]
    one_by_one = data.for_inference(dataset, shards, batch_size=1)
    assert ids == [batch.ids.numpy()[0].decode() for batch in one_by_one]
    assert {int(label) for batch in batches for label in batch.labels} == {-1}


def test_the_stream_does_not_depend_on_the_global_seed(
    tf, data, made_dataset: Path
) -> None:
    options = {"batch_size": 5, "seed": 3}
    first = stream(data, made_dataset, 9, **options)
    tf.random.set_seed(99)
    assert stream(data, made_dataset, 9, **options) == first


SCRIPT = """
import hashlib, os, sys
from itertools import islice
from pathlib import Path
os.sched_setaffinity(0, set(list(os.sched_getaffinity(0))[: int(sys.argv[2])]))
from pipeline.dataset import manifest
from trainer.data import input_pipeline
dataset = manifest.load(Path(sys.argv[1]))
chain = input_pipeline.for_training(dataset, batch_size=5, seed=3)
for images, labels in islice(chain.as_numpy_iterator(), 9):
    print(hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest())
"""


@pytest.mark.integration
def test_the_stream_does_not_depend_on_the_cores(made_dataset: Path) -> None:
    one, all_of_them = (
        subprocess.run(
            [sys.executable, "-c", SCRIPT, made_dataset, str(cores)],
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
            check=True,
        ).stdout
        for cores in (1, 64)
    )
    assert one.count("\n") == 9
    assert one == all_of_them


def test_a_deterministic_run_keeps_its_parallelism(tf, data, made_dataset) -> None:
    """TensorFlow runs a chain one element at a time in which anything has a state but
    the readers of files (tensorflow/core/grappler/optimizers/data/make_deterministic).
    """
    from tensorflow.python.framework import op_def_registry

    chain = data.for_training(manifest.load(made_dataset), batch_size=4, seed=3)
    variant = tf.data.experimental.to_variant(chain)
    text = tf.raw_ops.DatasetToGraphV2(input_dataset=variant).numpy()
    graph = tf.compat.v1.GraphDef.FromString(text)
    names = {node.op for f in graph.library.function for node in f.node_def}
    assert {"DecodeJpeg", "PyFuncStateless", "ShuffleDataset"} <= names
    definitions = map(op_def_registry.get, names)
    stateful = {op.name for op in definitions if op and op.is_stateful}
    assert stateful == {"TFRecordDataset", "TensorSliceDataset"}
    assert "ParallelMapDatasetV2" in {node.op for node in graph.node}


def test_a_start_in_a_later_epoch(data, dataset: Path) -> None:
    loaded = manifest.load(dataset)
    chain = data.records(
        loaded, seed=3, first_example=3 * TRAIN + 2
    ).as_numpy_iterator()
    rest = list(islice(chain, TRAIN - 2))
    whole = data.records(loaded, seed=3).as_numpy_iterator()
    assert rest == list(islice(whole, 3 * TRAIN + 2, 4 * TRAIN))


def test_batches_larger_than_a_group_hold_the_same_stream(
    data, made_dataset: Path, monkeypatch
) -> None:
    """Decoding goes in groups; a batch is cut from them."""
    ones = stream(data, made_dataset, 60, batch_size=1, seed=3)
    monkeypatch.setattr(data, "DECODED_TOGETHER", 8)
    assert stream(data, made_dataset, 3, batch_size=20, seed=3) == ones


def one_split(tmp_path: Path, examples: int, shards: int) -> manifest.Dataset:
    """A dataset of `examples` training photos in so many shards."""
    folder = tmp_path / "photos" / "train" / "red"
    folder.mkdir(parents=True)
    for index in range(examples):
        (folder / f"{index:02d}.jpg").write_bytes(jpeg(photo(0, index)))
    preprocess.run(
        ShardsOptions(
            images=tmp_path / "photos",
            dataset=tmp_path / "small",
            contract=ImageContract(height=HEIGHT, width=WIDTH),
            shards=shards,
            workers=1,
        )
    )
    return manifest.load(tmp_path / "small")


@pytest.mark.parametrize(("examples", "shards"), [(1, 1), (5, 1), (5, 3)])
def test_few_examples_and_few_shards(
    data, tmp_path: Path, examples: int, shards: int
) -> None:
    """Fewer shards than readers, one shard, one example, a last batch of one."""
    loaded = one_split(tmp_path, examples, shards)
    assert len(loaded.split("train").shards) == shards
    chain = data.for_training(loaded, batch_size=1, seed=1).as_numpy_iterator()
    keys = [digests(images)[0] for images, _ in islice(chain, 3 * examples)]
    assert set(Counter(keys).values()) == {3}
    assert len(set(keys)) == examples
    batches = data.for_inference(loaded, loaded.split("train").shards, batch_size=2)
    sizes = [len(batch.ids) for batch in batches]
    assert sizes == [2] * (examples // 2) + [1] * (examples % 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap(path: Path) -> None:
    """Another shard's content, padded to the promised length."""
    other = path.with_name(path.name.replace("00001-of", "00000-of"))
    length = path.stat().st_size
    path.write_bytes(other.read_bytes()[:length].ljust(length, b"\0"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def relabel(path: Path) -> None:
    """As of a dataset of the same photos and other classes: whole, and as long."""
    records = [stored.record for stored in record.read(path)]
    frames = [
        record.frame(
            record.encode(
                r.id,
                r.encoded,
                height=r.height,
                width=r.width,
                label=(r.label + 1) % 3,
                text=r.text,
            )
        )
        for r in records
    ]
    path.write_bytes(b"".join(frames))


DAMAGES = [
    (flip, r"is damaged \(record \d+ at byte \d+: the CRC"),
    (swap, "is damaged"),
    (cut, r"is damaged \(record \d+ at byte \d+: .* the file ends"),
    (relabel, r"is not the one that was written \(12 whole records\)"),
    (Path.unlink, "is missing"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damage_stops_training_and_is_named(
    data, naming_damage, dataset: Path, damage, message: str
) -> None:
    """Of a file that was whole when the run began, and is not when it is opened."""
    path = dataset / manifest.shard_name("train", 1, 2)
    loaded = manifest.load(dataset)
    damage(path)
    chain = data.for_training(loaded, batch_size=4, seed=1)
    with (
        pytest.raises(RunError, match=f"{path.name} {message}"),
        naming_damage(loaded),
    ):
        for _ in islice(chain, 20):
            pass


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damage_stops_inference_and_is_named(
    data, naming_damage, dataset: Path, damage, message: str
) -> None:
    path = dataset / manifest.shard_name("train", 1, 2)
    loaded = manifest.load(dataset)
    damage(path)
    shards = loaded.split("train").shards
    batches = data.for_inference(loaded, shards, batch_size=2)
    with (
        pytest.raises(RunError, match=f"{path.name} {message}"),
        naming_damage(loaded),
    ):
        list(batches)


def test_damage_after_the_first_epoch_is_found(
    data, naming_damage, dataset: Path
) -> None:
    """The checksum is compared once; later the CRC of each record is."""
    loaded = manifest.load(dataset)
    path = dataset / manifest.shard_name("train", 1, 2)
    chain = iter(data.for_training(loaded, batch_size=4, seed=1))
    next(chain)
    flip(path)
    with (
        pytest.raises(RunError, match=rf"{path.name} is damaged \(record \d+"),
        naming_damage(loaded),
    ):
        for _ in islice(chain, 10_000):
            pass


def test_fewer_records_than_promised_are_an_error(
    tf, data, naming_damage, dataset: Path
) -> None:
    """A shard that is whole in itself, but holds a record less."""
    loaded = manifest.load(dataset)
    path = dataset / manifest.shard_name("test", 0, 2)
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    with tf.io.TFRecordWriter(str(path)) as writer:
        for payload in records[1:]:
            writer.write(payload)
    shards = loaded.split("test").shards
    with pytest.raises(RunError, match=path.name), naming_damage(loaded):
        list(data.for_inference(loaded, shards, batch_size=2))
