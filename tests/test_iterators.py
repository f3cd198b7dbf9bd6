"""A process ends, whatever iterators of tf.data it leaves open."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

STARTS = 3

# Starts processes that leave an iterator open, one after the other, and prints how they
# ended. They are forked, as an import of TensorFlow takes seconds.
SCRIPT = """
import os, pathlib, signal, sys, time
from pipeline.dataset import manifest
from trainer.data import input_pipeline, permutation
from trainer.cache import in_memory

source, end, starts, folder = sys.argv[1:]

def batches():
    if source == "permutations":  # the next one takes a second, in a thread of tf.data
        return permutation.batches(3_000_000, 64, seed=1)
    loaded = manifest.load(pathlib.Path(folder))
    if source == "shards":
        return input_pipeline.for_training(loaded, batch_size=8, seed=1)
    store = in_memory.Encoded(loaded, "train")
    return input_pipeline.from_store(store, batch_size=8, seed=1)

def leave():
    iterator = iter(batches())
    for _ in range(5):
        next(iterator)
    if end == "exception":
        raise ValueError("which keeps the frame of the iterator alive")
    return iterator

for _ in range(int(starts)):
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        iterator = leave()
        if end == "exit":
            sys.exit(3)
        break  # here the script ends
    deadline = time.monotonic() + 60
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        time.sleep(0.05)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(ended[1]), flush=True)
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
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, source, end, str(STARTS), made_dataset],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=600,
        check=True,
    )
    assert result.stdout.split() == [str(code)] * STARTS
