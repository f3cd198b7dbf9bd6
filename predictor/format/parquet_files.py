"""PREDICTIONS as Parquet: the rows of the CSV, for those who read by machine.

    probabilities   id: string, probabilities: fixed_size_list<float32>[classes]; the
                    names of the classes, in order, are a JSON list under `classes` in
                    the metadata of the schema
    top_k           id: string, classes: fixed_size_list<string>[k],
                    probabilities: fixed_size_list<float32>[k]

Version 2 of predictions.json had a column for each class, or each rank.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage.object_paths import AnyPath
from predictor.format.row_batch import RowBatch, at_once
from predictor.format.top_classes import best

_GROUP_BYTES = 64 << 20  # of probabilities, that are kept until they are written


@contextmanager
def table(
    kind: str, top_k: int, classes: Sequence[str], output: Any
) -> Iterator["ParquetRows"]:
    """Opens a Parquet file of rows, compressed by Zstandard; see file_format.table."""
    if kind == "top_k":
        columns = {"classes": pa.list_(pa.string(), top_k)}
        columns |= {"probabilities": pa.list_(pa.float32(), top_k)}
    else:
        columns = {"probabilities": pa.list_(pa.float32(), len(classes))}
    # Neither a dictionary nor least and greatest values say anything of probabilities.
    with pq.ParquetWriter(
        pa.PythonFile(output, "w"),
        pa.schema(
            {"id": pa.string(), **columns},
            {"classes": json.dumps(list(classes), ensure_ascii=False)},
        ),
        compression="zstd",
        use_dictionary=["classes.list.element"] if kind == "top_k" else False,
        write_statistics=False,
    ) as writer:
        rows = ParquetRows(writer, classes, top_k if kind == "top_k" else None)
        yield rows
        rows.flush()


class ParquetRows:
    """Rows that are written a group at a time."""

    def __init__(
        self, writer: pq.ParquetWriter, classes: Sequence[str], k: int | None
    ) -> None:
        self._writer, self._k = writer, k
        self._classes = np.array(classes, object)
        self._ids: list[str] = []
        self._values: list[np.ndarray] = []
        self._bytes = 0

    def write(self, ids: Sequence[str], probabilities: np.ndarray) -> None:
        """Adds rows; see file_format.Table."""
        self._ids += ids
        self._values.append(probabilities.copy())
        self._bytes += probabilities.nbytes
        if self._bytes >= _GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes what was kept, as a row group."""
        if not self._ids:
            return
        values = np.concatenate(self._values)
        columns = [pa.array(self._ids, pa.string())]
        if self._k is not None:
            labels = best(values, self._k)
            values = np.take_along_axis(values, labels, axis=1)
            names = pa.array(self._classes[labels].ravel(), pa.string())
            columns.append(pa.FixedSizeListArray.from_arrays(names, self._k))
        numbers = pa.array(values.ravel())
        columns.append(pa.FixedSizeListArray.from_arrays(numbers, values.shape[1]))
        schema = self._writer.schema
        self._writer.write_table(pa.Table.from_arrays(columns, schema=schema))
        self._ids, self._values, self._bytes = [], [], 0


def classes(path: AnyPath, version: int) -> list[str]:
    """Returns the names of the classes that a file of `probabilities` has.

    Raises:
        ValueError: it is no Parquet, or has no names.
    """
    with path.open("rb") as file:
        schema = pq.read_schema(file)
    if version == 2:
        return list(schema.names[1:])
    names = json.loads((schema.metadata or {}).get(b"classes", b"null"))
    if not isinstance(names, list):
        raise ValueError("its schema has no names of classes")
    return names


def parts(path: AnyPath, kind: str, version: int, width: int) -> Iterator[RowBatch]:
    """Yields the rows of a file; as csv_files.parts."""
    read = _of_columns if version == 2 else _of_lists
    with path.open("rb") as content, pq.ParquetFile(content) as file:
        for batch in file.iter_batches(at_once(width)):
            yield read(batch, kind, width)


def _of_lists(batch: pa.RecordBatch, kind: str, width: int) -> RowBatch:
    wanted = {"id": pa.string(), "probabilities": pa.list_(pa.float32(), width)}
    if kind == "top_k":
        wanted["classes"] = pa.list_(pa.string(), width)
    for name, type_ in wanted.items():
        found = batch.schema.field(name).type if name in batch.schema.names else None
        if found != type_:
            raise ValueError(f"column {name!r} is {found}, not {type_}")
        column = batch.column(name)
        if column.null_count or (name != "id" and column.flatten().null_count):
            raise ValueError(f"column {name!r} has gaps (null)")
    values = batch.column("probabilities").flatten().to_numpy().reshape(-1, width)
    names = batch.column("classes").to_pylist() if kind == "top_k" else None
    return RowBatch(batch.column("id").to_pylist(), names, values)


def _of_columns(batch: pa.RecordBatch, kind: str, width: int) -> RowBatch:
    """Reads version 2."""
    step = 2 if kind == "top_k" else 1
    # By position: a class may be named `id`.
    names = [0, *(range(1, batch.num_columns, 2) if step == 2 else [])]
    numbers = list(range(step, batch.num_columns, step))
    for columns, type_ in ((names, pa.string()), (numbers, pa.float32())):
        for at in columns:
            if (found := batch.schema.field(at)).type != type_:
                raise ValueError(f"column {found.name!r} is {found.type}, not {type_}")
            if batch.column(at).null_count:
                raise ValueError(f"column {found.name!r} has gaps (null)")
    if len(numbers) != width:
        raise ValueError(f"it has {len(numbers)} numbers in a row, not {width}")
    ids, *ranked = (batch.column(at).to_pylist() for at in names)
    top = [list(row) for row in zip(*ranked, strict=True)] if step == 2 else None
    return RowBatch(ids, top, batch.select(numbers).to_tensor().to_numpy())
