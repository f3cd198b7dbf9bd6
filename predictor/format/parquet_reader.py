"""Parquet of predictions read back."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage.object_paths import AnyPath
from predictor.format.file_format import Format
from predictor.format.row_batch import RowBatch, at_once


def header(path: AnyPath) -> list[str]:
    """The columns of a file.

    Raises:
        ValueError: it is no Parquet.
    """
    with path.open("rb") as file:
        columns: list[str] = pq.read_schema(file).names
    return columns


def parts(path: AnyPath, form: Format, width: int) -> Iterator[RowBatch]:
    """As csv_reader.parts."""
    top_k = form.kind == "top_k"
    with path.open("rb") as content, pq.ParquetFile(content) as file:
        header, types = file.schema_arrow.names, file.schema_arrow.types
        # By position: a class may be named `id`.
        names = [0, *(range(1, len(header), 2) if top_k else [])]
        numbers = list(range(2, len(header), 2) if top_k else range(1, len(header)))
        for columns, kind in ((names, pa.string()), (numbers, pa.float32())):
            if odd := [at for at in columns if types[at] != kind]:
                at = odd[0]
                raise ValueError(f"column {header[at]!r} is {types[at]}, not {kind}")
        for batch in file.iter_batches(at_once(width)):
            for what, columns in (("names", names), ("numbers", numbers)):
                if any(batch.column(at).null_count for at in columns):
                    raise ValueError(f"a column of {what} has gaps (null)")
            ids, *classes = (batch.column(at).to_pylist() for at in names)
            top = [list(row) for row in zip(*classes, strict=True)]
            values = batch.select(numbers).to_tensor().to_numpy()
            yield RowBatch(ids, top if top_k else None, values)
