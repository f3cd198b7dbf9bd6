"""The record: one JPEG with its id and label, as a tf.train.Example in a TFRecord.

`encode` and `frame` need no TensorFlow; `parse` is a TensorFlow graph. The key names
are those of the TF-Slim and TF-Vision ImageNet shards: their readers read ours.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

if TYPE_CHECKING:
    import tensorflow as tf

ENCODED = "image/encoded"
FORMAT = "image/format"
HEIGHT = "image/height"
WIDTH = "image/width"
FILENAME = "image/filename"
LABEL = "image/class/label"
TEXT = "image/class/text"


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


def parse(serialized: tf.Tensor, *, height: int, width: int) -> Batch:
    """Parses and decodes string[batch] of `encode`, as a graph for `Dataset.map`.

    Raises (when run):
        tf.errors.InvalidArgumentError: a record lacks a key, or its image cannot be
            decoded or is not height x width.
    """
    import tensorflow as tf

    features = tf.io.parse_example(
        serialized,
        {
            FILENAME: tf.io.FixedLenFeature([], tf.string),
            ENCODED: tf.io.FixedLenFeature([], tf.string),
            LABEL: tf.io.FixedLenFeature([], tf.int64),
        },
    )

    def decode(encoded: tf.Tensor) -> tf.Tensor:
        # INTEGER_ACCURATE is libjpeg's default, and here also the faster one.
        pixels = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
        return tf.ensure_shape(pixels, [height, width, 3])

    images = tf.map_fn(
        decode,
        features[ENCODED],
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
