"""PREDICTIONS as Parquet: the columns of the CSV, for those who read by machine."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from predictor.format.top_classes import best

_GROUP_BYTES = 64 << 20  # of probabilities, that are kept until they are written


@contextmanager
def table(
    kind: str, top_k: int, classes: Sequence[str], output: Any
) -> Iterator["_Rows"]:
    """Opens a Parquet file of rows, compressed by Zstandard; see file_format.table."""
    k = top_k if kind == "top_k" else None
    schema = _schema(classes, k)
    # Neither a dictionary nor least and greatest values say anything of probabilities.
    with pq.ParquetWriter(
        pa.PythonFile(output, "w"),
        schema,
        compression="zstd",
        use_dictionary=[f"class_{n}" for n in range(1, (k or 0) + 1)] or False,
        write_statistics=False,
    ) as writer:
        rows = _Rows(writer, schema, classes, k)
        yield rows
        rows.flush()


class _Rows:
    """Rows that are written a group at a time."""

    def __init__(
        self,
        writer: pq.ParquetWriter,
        schema: pa.Schema,
        classes: Sequence[str],
        k: int | None,
    ) -> None:
        self._writer, self._schema, self._k = writer, schema, k
        self._classes = np.array(classes, object)
        self._ids: list[str] = []
        self._values: list[np.ndarray] = []
        self._bytes = 0

    def write(self, ids: Sequence[str], probabilities: np.ndarray) -> None:
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
        if self._k is None:
            columns += [pa.array(column) for column in np.ascontiguousarray(values.T)]
        else:
            labels = best(values, self._k)
            numbers = np.take_along_axis(values, labels, axis=1)
            for label, number in zip(labels.T, numbers.T, strict=True):
                columns.append(pa.array(self._classes[label], pa.string()))
                columns.append(pa.array(np.ascontiguousarray(number)))
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self._ids, self._values, self._bytes = [], [], 0


def _schema(classes: Sequence[str], k: int | None) -> pa.Schema:
    columns = [("id", pa.string())]
    if k is None:
        columns += [(name, pa.float32()) for name in classes]
    else:
        for n in range(1, k + 1):
            columns += [(f"class_{n}", pa.string())]
            columns += [(f"probability_{n}", pa.float32())]
    return pa.schema(columns)
