"""Parquet of predictions read back."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from predictor.formats import Format
from predictor.rows import Rows, at_once


def header(path: Path) -> list[str]:
    """The columns of a file.

    Raises:
        ValueError: it is no Parquet.
    """
    columns: list[str] = pq.read_schema(path).names
    return columns


def parts(path: Path, form: Format, width: int) -> Iterator[Rows]:
    """As csv_rows.parts."""
    top_k = form.kind == "top_k"
    with pq.ParquetFile(path) as file:
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
            yield Rows(ids, top if top_k else None, values)
