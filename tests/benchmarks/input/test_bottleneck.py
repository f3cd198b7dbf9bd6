"""The verdict: who waits for whom, and what helps most."""

from typing import Any

import pytest

from benchmarks.input.bottleneck import Rates, in_words


def judged(**changed: Any) -> str:
    rates = {
        "read": 100_000.0,
        "shards": 12_000.0,
        "encoded": 13_000.0,
        "decoded": 150_000.0,
        "model": 1_000.0,
        "cores": 2,
        "kind": "decoded",
    }
    return "\n".join(in_words(Rates(**{**rates, **changed})))


def test_it_says_what_is_fed_and_what_is_taken() -> None:
    said = judged()
    assert "this node feeds 150,000 images/s from --cache=decoded" in said
    assert "(12,000 from shards); your model takes 1,000; compute-bound" in said


@pytest.mark.parametrize(
    ("changed", "state", "advice"),
    [
        ({}, "could feed 150.0 times as much", "more of them: up to 150 times"),
        (
            {"kind": "none", "model": 24_000.0},
            "input-bound: the model waits 50% of the time",
            "--cache=decoded, with --cache_dir on a fast local disk: up to 150,000",
        ),
        (
            {"kind": "encoded", "model": 26_000.0},
            "input-bound: the model waits 50% of the time",
            "--cache=decoded",
        ),
        (
            {"kind": "none", "model": 24_000.0, "read": 13_000.0, "decoded": 13_000.0},
            "input-bound",
            "DATASET on a local disk: reading alone gives 13,000 images/s here",
        ),
        (
            {"kind": "none", "model": 24_000.0, "decoded": 13_000.0},
            "input-bound",
            "5 cores instead of 2",
        ),
        ({"model": 300_000.0}, "waits 50% of the time", "5 cores instead of 2"),
        # As fast as each other: the model would wait for a slow batch now and then.
        ({"model": 149_000.0}, "waits 0% of the time", "3 cores instead of 2"),
    ],
)
def test_what_helps_most(changed: dict[str, Any], state: str, advice: str) -> None:
    said = judged(**changed)
    assert state in said
    assert advice in said
