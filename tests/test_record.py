"""The record format, held to TensorFlow's own writer and reader.

The golden file is written anew by `python tests/test_record.py`; a change of it is a
change of the format on disk.
"""

from pathlib import Path

import numpy as np
import pytest
from conftest import jpeg, photo

from pipeline import record

GOLDEN = Path(__file__).parent / "testdata" / "golden.tfrecord"
FIELDS = {"height": 2, "width": 3, "label": 7, "text": "Klasse ä"}


def golden() -> bytes:
    """Two records, the second unlabelled, with opaque bytes for images."""
    first = record.encode("a/ü, 1.jpg", b"\xff\xd8 one", **FIELDS)
    second = record.encode(
        "b.jpg", b"\xff\xd8 two", height=2, width=3, label=-1, text=""
    )
    return record.frame(first) + record.frame(second)


def labelled(image_id: str, label: int, pixels: np.ndarray) -> bytes:
    height, width = pixels.shape[:2]
    return record.encode(
        image_id, jpeg(pixels), height=height, width=width, label=label, text=str(label)
    )


def test_the_bytes_are_those_of_the_golden_file() -> None:
    assert golden() == GOLDEN.read_bytes()
    assert GOLDEN.stat().st_size < 700


def test_tensorflow_reads_ours(tf) -> None:
    first, second = tf.data.TFRecordDataset(str(GOLDEN)).as_numpy_iterator()
    feature = tf.train.Example.FromString(first).features.feature
    assert feature["image/encoded"].bytes_list.value[:] == [b"\xff\xd8 one"]
    assert feature["image/format"].bytes_list.value[:] == [b"jpeg"]
    assert feature["image/height"].int64_list.value[:] == [2]
    assert feature["image/width"].int64_list.value[:] == [3]
    assert feature["image/filename"].bytes_list.value[:] == ["a/ü, 1.jpg".encode()]
    assert feature["image/class/label"].int64_list.value[:] == [7]
    assert feature["image/class/text"].bytes_list.value[:] == ["Klasse ä".encode()]
    assert len(feature) == 7
    feature = tf.train.Example.FromString(second).features.feature
    assert feature["image/class/label"].int64_list.value[:] == [-1]
    assert feature["image/class/text"].bytes_list.value[:] == [b""]


def test_frames_are_those_of_tensorflows_writer(tf, tmp_path: Path) -> None:
    payloads = [b"", b"x", bytes(range(256)) * 100]
    path = tmp_path / "theirs.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for payload in payloads:
            writer.write(payload)
    assert b"".join(map(record.frame, payloads)) == path.read_bytes()


def test_parse_reads_what_tensorflow_wrote(tf) -> None:
    pixels = photo(0, seed=3)
    feature = {
        "image/encoded": _bytes(tf, jpeg(pixels)),
        "image/filename": _bytes(tf, b"x/y.jpg"),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[4])),
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    batch = record.parse(
        tf.constant([example.SerializeToString()]), height=96, width=120
    )
    assert batch.ids.numpy().tolist() == [b"x/y.jpg"]
    assert batch.labels.numpy().tolist() == [4]
    assert np.abs(batch.images[0].numpy().astype(int) - pixels).mean() < 2


def test_parse_agrees_eagerly_and_in_a_dataset(tf) -> None:
    serialized = [labelled(f"{i}.jpg", i, photo(i % 3, i)) for i in range(5)]
    eager = record.parse(tf.constant(serialized), height=96, width=120)
    dataset = tf.data.Dataset.from_tensor_slices(serialized).batch(5)
    (mapped,) = dataset.map(lambda batch: record.parse(batch, height=96, width=120))
    for ours, theirs in zip(eager, mapped, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert eager.images.dtype == tf.uint8
    assert eager.images.shape == (5, 96, 120, 3)


@pytest.mark.parametrize(
    ("serialized", "height"),
    [
        pytest.param(labelled("a.jpg", 0, photo(0, 0)), 95, id="another size"),
        pytest.param(record.encode("a.jpg", b"no jpeg", **FIELDS), 96, id="no jpeg"),
        pytest.param(b"\x0a\x00", 96, id="no keys"),
    ],
)
def test_parse_refuses(tf, serialized: bytes, height: int) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        record.parse(tf.constant([serialized]), height=height, width=120)


def _bytes(tf, value: bytes):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


if __name__ == "__main__":
    GOLDEN.write_bytes(golden())
