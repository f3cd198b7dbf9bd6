"""What dataset.json says of classes: the long tail, names, splits."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.dataset.manifest import Dataset, ImageContract, Split
from pipeline.inspection.facts import Facts


def facts(images: Mapping[str, Mapping[str, int]]) -> Facts:
    """Of a dataset with so many images of each split and class."""
    classes = dict.fromkeys(name for of_split in images.values() for name in of_split)
    return Facts(
        dataset=Dataset(
            folder=Path("dataset"),
            image=ImageContract(height=2, width=2),
            classes=tuple(classes),
            splits={split: Split(1, 0, ()) for split in images},
            fingerprint="",
            text="",
        ),
        value={
            "ledger": {
                "splits": {
                    split: {
                        **dict.fromkeys(("listed", "written", "rejected"), 1),
                        "classes": {name: {"written": n} for name, n in counts.items()},
                    }
                    for split, counts in images.items()
                }
            }
        },
        rejects=[],
        conflicts=[],
    )


def test_the_long_tail() -> None:
    found = facts({"train": {"a": 1, "b": 900, "c": 30, "d": 0, "e": 1}})
    assert found.largest_first.tolist() == [1, 2, 0, 4, 3]
    assert found.half == 1
    assert [tuple(bucket) for bucket in found.buckets] == [
        ("0", 1, 0),
        ("1–5", 2, 2),  # noqa: RUF001
        ("21–100", 1, 30),  # noqa: RUF001
        ("501–2,000", 1, 900),  # noqa: RUF001
    ]
    assert found.empty == ["d"]
    assert facts({"train": dict.fromkeys("abcd", 5)}).half == 2


def test_classes_of_one_split() -> None:
    train, validation = {"a": 5, "b": 9, "c": 2, "e": 0}, {"a": 1, "d": 3}
    found = facts({"train": train, "validation": validation, "test": {"": 9}})
    assert found.labelled == ["train", "validation"]
    assert found.in_one_split == {"train": ["b", "c"], "validation": ["d"]}
    assert facts({"train": train}).in_one_split == {}


def test_names_that_are_alike() -> None:
    names = ("T-shirt", "t shirt", "tshirts", "Café", "cafe", "12.0", "12", "1-2")
    found = facts({"train": dict.fromkeys((*names, "!", "?", "東京", "京東"), 1)})
    assert found.alike == [["12.0", "12"], ["Café", "cafe"], ["T-shirt", "t shirt"]]


def test_no_labelled_split() -> None:
    found = facts({"test": {"": 7}})
    assert (found.labelled, found.in_one_split, found.empty) == ([], {}, [])
    assert (found.frequency.tolist(), found.buckets) == ([], [])
    assert np.array_equal(found.largest_first, [])
