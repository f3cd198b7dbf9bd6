"""A process ends, whatever iterators of tf.data it leaves open."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.files import REPOSITORY

pytestmark = pytest.mark.integration

STARTS = 2

SCRIPT = """
import pathlib, sys
from pipeline.dataset import manifest
from trainer.data import input_pipeline, permutation
from trainer.cache import stores

source, end, folder = sys.argv[1:]

def batches():
    if source == "permutations":  # the next one takes a second, in a thread of tf.data
        return permutation.batches(3_000_000, 64, seed=1)
    loaded = manifest.load(pathlib.Path(folder))
    if source == "shards":
        return input_pipeline.for_training(loaded, batch_size=8, seed=1)
    store = stores.Encoded(loaded, "train")
    return input_pipeline.from_store(store, batch_size=8, seed=1)

def leave():
    iterator = iter(batches())
    for _ in range(5):
        next(iterator)
    if end == "exception":
        raise ValueError("which keeps the frame of the iterator alive")
    return iterator

iterator = leave()
if end == "exit":
    sys.exit(3)
"""


@pytest.mark.parametrize(
    ("source", "end", "code"),
    [
        ("permutations", "last line", 0),
        ("permutations", "exit", 3),
        ("permutations", "exception", 1),
        ("encoded", "last line", 0),
        ("shards", "exception", 1),
    ],
)
def test_a_process_with_an_open_iterator_ends(
    made_dataset: Path, source: str, end: str, code: int
) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, source, end, made_dataset],
            stderr=subprocess.DEVNULL,
            cwd=REPOSITORY,
        )
        for _ in range(STARTS)
    ]
    try:
        assert [one.wait(timeout=180) for one in processes] == [code] * STARTS
    finally:
        for one in processes:
            one.kill()
            one.wait()
