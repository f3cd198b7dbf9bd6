"""Labels of images, from a CSV."""

from pipeline.sources import class_names
from pipeline.sources.user_text import Table
from pipeline.storage.object_paths import AnyPath
from pipeline.system.errors import RunError

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
        RunError: there is no such file, it is no such CSV, an id comes twice, none has
            a label, or a label looks like a class and is none.
    """
    flag = f"--labels={path}"
    found = Table(path, flag, required=["id"], optional=["label", "landmarks"])
    several = found.has("landmarks") and not found.has("label")
    columns = ["id", "landmarks" if several else "label"]
    labels: Labels = {}
    lines: dict[str, int] = {}
    for line, (image_id, text) in Table(path, flag, required=columns).rows():
        if not image_id:
            raise RunError(f"{flag}: line {line} has no id. Complete or remove it.")
        if (first := lines.setdefault(image_id, line)) != line:
            raise RunError(
                f"{flag} has the id {image_id!r} in the lines {first} and {line}. Each "
                "may be there once: remove one of them."
            )
        names = text.split() if several else [text] if text else []
        labels[image_id] = tuple(map(classes.number, names))
    if not any(labels.values()):
        raise RunError(
            f"--labels={path} has {len(labels)} ids and no label. Name the class of "
            "each image that shows one."
        )
    class_names.compare(classes.names, flag)
    return labels
