"""The record format, held to TensorFlow's own writer and reader.

The golden file is written anew by `python tests/test_record.py`; a change of it is a
change of the format on disk.
"""

import struct
from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset import record
from tests.support.files import REPOSITORY
from tests.support.photos import jpeg, photo

GOLDEN = REPOSITORY / "tests" / "testdata" / "golden.tfrecord"
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


def test_decode_gives_back_what_encode_took() -> None:
    payload = record.encode("a/ü, 1.jpg", b"\xff\xd8 one", **FIELDS)
    expected = {"id": "a/ü, 1.jpg", "encoded": b"\xff\xd8 one", "format": "jpeg"}
    assert record.decode(payload)._asdict() == {**expected, **FIELDS}


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"\xff", "it holds no tf.train.Example"),
        (b"", "image/filename has 0 values of its bytes_list, not 1"),
        (
            record.encode("a", b"", **FIELDS).replace(b"class/label", b"class/lapel"),
            "image/class/label has 0 values of its int64_list, not 1",
        ),
        (record.encode("aa", b"", **FIELDS).replace(b"aa", b"\xfc\xfc"), "utf-8"),
    ],
)
def test_decode_refuses(payload: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        record.decode(payload)


def test_read_numbers_and_places_the_records() -> None:
    first, second = record.read(GOLDEN)
    assert (first.number, first.offset, second.number) == (0, 0, 1)
    assert GOLDEN.read_bytes()[second.offset :] == record.frame(
        record.encode("b.jpg", b"\xff\xd8 two", height=2, width=3, label=-1, text="")
    )
    assert (first.record.id, second.record.id) == ("a/ü, 1.jpg", "b.jpg")
    assert (first.record.label, second.record.label) == (7, -1)


def test_read_reads_what_tensorflow_wrote(tf, tmp_path: Path) -> None:
    path = tmp_path / "theirs.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for label in range(3):
            writer.write(labelled(f"{label}.jpg", label, photo(0, 0)))
    assert [stored.record.label for stored in record.read(path)] == [0, 1, 2]


def test_an_empty_shard_has_no_records(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert list(record.read(tmp_path / "empty")) == []


OFFSET = next(s.offset for s in record.read(GOLDEN) if s.number == 1)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (golden()[: OFFSET + 7], "the file ends inside the header"),
        (golden()[: OFFSET + 12], "it has 195 bytes, and the file ends before"),
        (golden()[:-1], "it has 195 bytes, and the file ends before"),
        (golden()[:OFFSET] + bytes([9]) + golden()[OFFSET + 1 :], "CRC of its length"),
        (golden()[:-5] + b"?" + golden()[-4:], "the CRC of its data does not match"),
        (golden()[:-1] + b"?", "the CRC of its data does not match"),
        (golden()[:OFFSET] + record.frame(b"\xff"), "it holds no tf.train.Example"),
    ],
)
def test_read_says_which_record_is_bad(
    tmp_path: Path, broken: bytes, reason: str
) -> None:
    path = tmp_path / "broken.tfrecord"
    path.write_bytes(broken)
    records = record.read(path)
    assert next(records).number == 0
    with pytest.raises(record.BadRecordError, match=reason) as caught:
        next(records)
    assert str(caught.value).startswith(f"record 1 at byte {OFFSET}: ")
    assert (caught.value.number, caught.value.offset) == (1, OFFSET)


def test_a_length_that_no_memory_holds_is_not_read(tmp_path: Path) -> None:
    length = struct.pack("<Q", 1 << 62)
    frame = record.frame(length)  # its second CRC is that of eight bytes
    path = tmp_path / "endless.tfrecord"
    path.write_bytes(length + frame[-4:] + b"rest")
    with pytest.raises(record.BadRecordError, match="4611686018427387904 bytes"):
        next(record.read(path))


def _bytes(tf, value: bytes):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


if __name__ == "__main__":
    GOLDEN.write_bytes(golden())


def test_a_record_is_read_by_its_place(tmp_path: Path) -> None:
    path = tmp_path / "shard.tfrecord"
    made = [
        record.encode(f"{n}.jpg", b"x" * n, height=1, width=1, label=n, text="a")
        for n in range(3)
    ]
    path.write_bytes(b"".join(map(record.frame, made)))
    stored = list(record.read(path))
    assert [record.read_at(path, one.offset) for one in stored] == [
        one.record for one in stored
    ]
    with pytest.raises(ValueError, match=r"at byte 5: the CRC of its length"):
        record.read_at(path, 5)
