"""The record: one JPEG with its id and label, as a tf.train.Example in a TFRecord.

`encode` and `frame`, `decode` and `read` need no TensorFlow; `parse` is a TensorFlow
graph. The key names are those of the TF-Slim and TF-Vision ImageNet shards: their
readers read ours.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol, cast

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from pipeline.storage.object_paths import AnyPath

if TYPE_CHECKING:
    import tensorflow as tf

ENCODED = "image/encoded"
FORMAT = "image/format"
HEIGHT = "image/height"
WIDTH = "image/width"
FILENAME = "image/filename"
LABEL = "image/class/label"
TEXT = "image/class/text"

_CHUNK = 1 << 20  # bytes
_LENGTH, _CRC = 8, 4  # bytes of a frame around its payload: length, CRC, …, CRC


class Digest(Protocol):
    """A hash that is being made, as hashlib has them."""

    def update(self, data: bytes, /) -> None:
        """Adds bytes."""


class Record(NamedTuple):
    """One record as it is stored; the attributes are the arguments of `encode`.

    Attributes:
        format: of the image, `jpeg`.
    """

    id: str
    encoded: bytes
    format: str
    height: int
    width: int
    label: int
    text: str


class Stored(NamedTuple):
    """A record and where it is: its number in the shard, from 0, and its byte."""

    number: int
    offset: int
    record: Record


class BadRecordError(Exception):
    """A record of a shard cannot be read.

    Attributes:
        number: of the record in the shard, from 0.
        offset: the byte at which its frame begins.
        reason: what is wrong with it.
        payload: what was read of it, where its length is known; not to be trusted.
    """

    def __init__(
        self, number: int, offset: int, reason: str, payload: bytes = b""
    ) -> None:
        super().__init__(f"record {number} at byte {offset}: {reason}")
        self.number = number
        self.offset = offset
        self.reason = reason
        self.payload = payload


class Batch(NamedTuple):
    """Parsed records, batch first.

    Attributes:
        ids: string[batch].
        images: uint8[batch, height, width, 3].
        labels: int64[batch], -1 where unlabelled.
    """

    ids: tf.Tensor
    images: tf.Tensor
    labels: tf.Tensor


def encode(
    image_id: str, encoded: bytes, *, height: int, width: int, label: int, text: str
) -> bytes:
    """Serializes one record; equal arguments give equal bytes.

    Args:
        image_id: the id, unique in its split.
        encoded: an RGB JPEG of height x width pixels.
        height, width: of the JPEG.
        label: the position in classes.txt, -1 when unlabelled.
        text: the class name, empty when unlabelled.
    """
    example = _Example()
    feature = example.features.feature
    feature[ENCODED].bytes_list.value.append(encoded)
    feature[FORMAT].bytes_list.value.append(b"jpeg")
    feature[HEIGHT].int64_list.value.append(height)
    feature[WIDTH].int64_list.value.append(width)
    feature[FILENAME].bytes_list.value.append(image_id.encode())
    feature[LABEL].int64_list.value.append(label)
    feature[TEXT].bytes_list.value.append(text.encode())
    return example.SerializeToString(deterministic=True)


def decode(payload: bytes) -> Record:
    """Parses what `encode` made, without TensorFlow; the JPEG stays encoded.

    Raises:
        ValueError: it is no tf.train.Example, or lacks one of the keys.
    """
    try:
        feature = _Example.FromString(payload).features.feature
    except DecodeError as error:
        raise ValueError("it holds no tf.train.Example") from error
    return Record(
        id=_one(feature, FILENAME, "bytes_list").decode(),
        encoded=_one(feature, ENCODED, "bytes_list"),
        format=_one(feature, FORMAT, "bytes_list").decode(),
        height=_one(feature, HEIGHT, "int64_list"),
        width=_one(feature, WIDTH, "int64_list"),
        label=_one(feature, LABEL, "int64_list"),
        text=_one(feature, TEXT, "bytes_list").decode(),
    )


def fields(serialized: tf.Tensor) -> Mapping[str, tf.Tensor]:
    """Parses string[batch] of `encode`, as a graph; the JPEGs stay encoded.

    Returns:
        FILENAME and ENCODED: string[batch]; LABEL: int64[batch].

    Raises (when run):
        tf.errors.InvalidArgumentError: a record lacks a key.
    """
    import tensorflow as tf

    return tf.io.parse_example(
        serialized,
        {
            FILENAME: tf.io.FixedLenFeature([], tf.string),
            ENCODED: tf.io.FixedLenFeature([], tf.string),
            LABEL: tf.io.FixedLenFeature([], tf.int64),
        },
    )


def parse(serialized: tf.Tensor, *, height: int, width: int) -> Batch:
    """Parses and decodes string[batch] of `encode`, as a graph for `Dataset.map`.

    Raises (when run):
        tf.errors.InvalidArgumentError: a record lacks a key, or its image cannot be
            decoded or is not height x width.
    """
    import tensorflow as tf

    features = fields(serialized)

    def decode(encoded: tf.Tensor) -> tf.Tensor:
        # INTEGER_ACCURATE is libjpeg's default, and here also the faster one.
        pixels = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
        return tf.ensure_shape(pixels, [height, width, 3])

    encoded = features[ENCODED]
    if encoded.shape[0] is not None:
        # A known batch becomes as many nodes of the graph: 5 % faster than map_fn.
        images = tf.stack([decode(one) for one in tf.unstack(encoded)])
    else:
        images = tf.map_fn(
            decode,
            encoded,
            fn_output_signature=tf.TensorSpec([height, width, 3], tf.uint8),
        )
    return Batch(features[FILENAME], images, features[LABEL])


def frame(payload: bytes) -> bytes:
    """Frames one record as TFRecord does.

    Length, its masked CRC-32C, payload, its masked CRC-32C, little endian
    (tensorflow/core/lib/io/record_writer.h).
    """
    length = struct.pack("<Q", len(payload))
    return b"".join((length, _masked_crc(length), payload, _masked_crc(payload)))


def read(path: AnyPath, digest: Digest | None = None) -> Iterator[Stored]:
    """Yields the records of a shard, one in memory at a time, each CRC checked.

    Args:
        path: the shard.
        digest: of hashlib; at the end, or once an error is raised, it has all bytes
            of the file, also those after a record that cannot be read.

    Raises:
        BadRecordError: a CRC does not match, the file ends inside a record, or one is
            no record of ours. Nothing can be read beyond it.
    """
    number = 0
    size = path.stat().st_size
    with path.open("rb") as opened, _hashing(opened, digest) as file:
        while (offset := file.tell()) < size:
            try:
                payload = _read_frame(file, size)
                record = decode(payload)
            except OSError as error:
                error.filename = error.filename or str(path)
                raise
            except _FrameError as error:
                raise BadRecordError(number, offset, *error.args) from error
            except ValueError as error:
                raise BadRecordError(number, offset, str(error), payload) from error
            yield Stored(number, offset, record)
            number += 1


def read_at(path: AnyPath, offset: int) -> Record:
    """Returns one record of a shard: the one whose frame begins at a byte.

    Raises:
        ValueError: there is no record of ours.
    """
    with path.open("rb") as file:
        file.seek(offset)
        try:
            return decode(_read_frame(file, path.stat().st_size))
        except _FrameError as error:
            raise ValueError(f"{path}, at byte {offset}: {error}") from error


@contextlib.contextmanager
def _hashing(file: BinaryIO, digest: Digest | None) -> Iterator[BinaryIO]:
    """A file whose bytes go to a digest as they are read, and at the end the rest."""
    if digest is None:
        yield file
        return
    hashing = cast(BinaryIO, _HashingFile(file, digest))
    try:
        yield hashing
    finally:
        while hashing.read(_CHUNK):
            pass


class _HashingFile:
    """What `read` needs of a file."""

    def __init__(self, file: BinaryIO, digest: Digest) -> None:
        self.tell, self._read, self._digest = file.tell, file.read, digest

    def read(self, length: int) -> bytes:
        content = self._read(length)
        self._digest.update(content)
        return content


class _FrameError(Exception):
    """A frame is damaged: why, and its payload where that was read."""


def _read_frame(file: BinaryIO, size: int) -> bytes:
    """Reads the payload of the frame that begins here, in a file of `size` bytes."""
    length, crc = file.read(_LENGTH), file.read(_CRC)
    if len(crc) < _CRC:
        raise _FrameError("the file ends inside the header of its frame")
    if crc != _masked_crc(length):
        raise _FrameError("the CRC of its length does not match")
    (wanted,) = struct.unpack("<Q", length)
    left = size - file.tell() - _CRC
    if wanted > left:  # before it is read: a length can be anything
        raise _FrameError(f"it has {wanted} bytes, and the file ends before")
    payload = file.read(wanted)
    if file.read(_CRC) != _masked_crc(payload):
        raise _FrameError("the CRC of its data does not match", payload)
    return payload


def _one(feature: Any, key: str, kind: str) -> Any:
    """The only value of a feature."""
    values = getattr(feature[key], kind).value
    if len(values) != 1:
        raise ValueError(f"{key} has {len(values)} values of its {kind}, not 1")
    return values[0]


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    rotated = (crc >> 15) | (crc << 17)
    return struct.pack("<I", (rotated + 0xA282EAD8) & 0xFFFFFFFF)


def _example_class() -> Any:
    """tf.train.Example (tensorflow/core/example/{example,feature}.proto).

    From a pool of its own, so that TensorFlow can live in the same process.
    """
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="pipeline/example.proto", package="tensorflow", syntax="proto3"
    )

    def message(name: str) -> descriptor_pb2.DescriptorProto:
        return file.message_type.add(name=name)

    def add(parent: Any, name: str, number: int, kind: Any, **rest: Any) -> None:
        if isinstance(kind, str):
            rest |= {"type": field.TYPE_MESSAGE, "type_name": f".tensorflow.{kind}"}
        else:
            rest["type"] = kind
        rest.setdefault("label", field.LABEL_OPTIONAL)
        parent.field.add(name=name, number=number, **rest)

    repeated = {"label": field.LABEL_REPEATED}
    add(message("BytesList"), "value", 1, field.TYPE_BYTES, **repeated)
    add(message("Int64List"), "value", 1, field.TYPE_INT64, **repeated)
    feature = message("Feature")
    feature.oneof_decl.add(name="kind")
    add(feature, "bytes_list", 1, "BytesList", oneof_index=0)
    add(feature, "int64_list", 3, "Int64List", oneof_index=0)
    features = message("Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    add(entry, "key", 1, field.TYPE_STRING)
    add(entry, "value", 2, "Feature")
    add(features, "feature", 1, "Features.FeatureEntry", **repeated)
    add(message("Example"), "features", 1, "Features")

    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("tensorflow.Example")
    )


_Example = _example_class()
