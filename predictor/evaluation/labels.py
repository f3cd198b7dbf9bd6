"""Labels of images, from a CSV."""

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv

from pipeline.storage.object_paths import AnyPath
from pipeline.system import io_errors
from pipeline.system.errors import RunError

_COLUMNS = ("label", "landmarks")

Labels = dict[str, tuple[int, ...]]  # numbers of the classes that an image shows, by id


class ClassIndex:
    """Class names and their numbers; a name that was not there gets the next one."""

    def __init__(self, known: tuple[str, ...]) -> None:
        self._numbers = {name: number for number, name in enumerate(known)}

    def number(self, name: str) -> int:
        """Returns the number of a class."""
        return self._numbers.setdefault(name, len(self._numbers))

    @property
    def names(self) -> tuple[str, ...]:
        """All names, by number."""
        return tuple(self._numbers)


def read_labels(path: AnyPath, classes: ClassIndex) -> Labels:
    """Reads a CSV with a column `id` and one of `label` and `landmarks`.

    `label` is the name of one class, `landmarks` are names with blanks between them, as
    in Kaggle's solution. An empty field marks a distractor, which shows none of them.

    Raises:
        RunError: there is no such file, it is no such CSV, an id comes twice, or none
            has a label.
    """
    try:
        frame = io_errors.insist(path, lambda: _read(path))
    except (OSError, ValueError) as error:  # Arrow's own errors are ValueErrors
        raise RunError(
            f"--labels={path} cannot be read: {str(error).strip()}. It takes a CSV "
            "with the columns id,label, a line for each image; an empty label means "
            "that it shows none of the classes. In place of label it may have "
            "landmarks: several classes with blanks between them."
        ) from error
    named = frame["label"].map(lambda name: [name] if name else [])
    if frame["several"].any():
        named = frame["label"].str.split()
    if not named.str.len().any():
        raise RunError(
            f"--labels={path} has {len(frame)} ids and no label. Name the class of "
            "each image that shows one."
        )
    numbers = (tuple(map(classes.number, names)) for names in named)
    return dict(zip(frame["id"], numbers, strict=True))


def _read(path: AnyPath) -> pd.DataFrame:
    """Returns the columns `id`, `label`, and `several`: whether label is a list."""
    text = dict.fromkeys(("id", *_COLUMNS), pa.string())
    # Not pandas' own reader: it takes a row with a field less for a distractor.
    with path.open("rb") as file:
        frame = pa_csv.read_csv(
            file,
            read_options=pa_csv.ReadOptions(use_threads=False),  # errors name the row
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(column_types=text),
        ).to_pandas()
    label = next((name for name in _COLUMNS if name in frame), "label")
    if missing := [name for name in ("id", label) if name not in frame]:
        raise ValueError(
            f"its header is {','.join(frame.columns)!r}, without {missing[0]!r}"
        )
    if (again := frame["id"].duplicated()).any():
        row = again.argmax()
        raise ValueError(f"row {row + 1} has the id {frame['id'][row]!r} again")
    found = frame[["id", label]].set_axis(["id", "label"], axis=1)
    return found.assign(several=label == "landmarks")
