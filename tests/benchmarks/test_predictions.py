"""The benchmark of writing predictions: what it says, not how fast anything is."""

import json
import math
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks import harness
from benchmarks.options import PredictionsOptions


@pytest.fixture
def bench(tf):
    from benchmarks import predictions

    return predictions


def test_a_slower_writer_misses_its_targets(bench) -> None:
    """Million numbers a second, and seconds of runs."""
    samples = {
        bench.ONE: [40.0, 42.0],
        bench.TWO: [78.0, 82.0],
        bench.PANDAS: [1.0, 1.4],
        bench.PYARROW: [4.0, 4.2],
        bench.VGG16: [10.0, 10.0],
        bench.VGG16_CSV: [10.1, 10.1],
        bench.SMALL: [1.0, 1.0],
        bench.SMALL_KERAS: [2.0, 2.0],
        bench.FEW: [900.0],
        bench.MANY: [930.0],
    }

    def missed(**changed: list[float]) -> set[str]:
        found = harness.figures({**samples, **changed}, bench.TARGETS, bench.UNITS)
        return {one.name for one in found if "MISSED" in one.target()}

    assert missed() == set()
    slower = {bench.ONE: [20.0, 21.0], bench.TWO: [30.0, 30.0]}
    assert missed(**slower) == {
        f"{bench.ONE} / {bench.PANDAS}",
        f"{bench.ONE} / {bench.PYARROW}",
        f"{bench.TWO} / {bench.ONE}",
    }
    assert missed(**{bench.VGG16_CSV: [10.3, 10.3]}) == {
        f"{bench.VGG16_CSV} / {bench.VGG16}"
    }
    assert missed(**{bench.MANY: [990.0]}) == {f"{bench.MANY} / {bench.FEW}"}


@pytest.mark.integration
def test_a_short_benchmark(
    bench,
    made_dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of it with few classes, and with a `to_csv` that is slower than it is."""
    monkeypatch.setattr(bench, "CLASSES", bench.CLASSES[:20])
    monkeypatch.setattr(harness, "isolated", lambda work, *given: work(*given))
    ordinary = pd.DataFrame.to_csv

    def slowly(frame: pd.DataFrame, *arguments: Any, **options: Any) -> Any:
        time.sleep(0.05)
        return ordinary(frame, *arguments, **options)

    monkeypatch.setattr(pd.DataFrame, "to_csv", slowly)
    bench.run(
        PredictionsOptions(
            dataset=made_dataset,
            output=tmp_path / "bench",
            split="train",
            repeats=1,
            seconds=0.1,
            rows=(24, 48),
        )
    )
    value = json.loads((tmp_path / "bench" / "predictions.json").read_text())
    figures = {one["name"]: one for one in value["figures"]}
    text = capsys.readouterr().out
    assert all(name in text for name in figures)
    assert all(math.isfinite(one["median"]) for one in value["figures"])
    # A pause of 50 ms for 8 rows gives 3,200 numbers a second at most.
    assert figures[bench.PANDAS]["median"] <= 0.0032
    assert figures[f"{bench.ONE} / {bench.PANDAS}"]["median"] > 1
    assert figures[bench.SMALL_KERAS]["median"] >= 0.05
    assert value["rows"] == [24, 48]
    assert figures[bench.FEW]["median"] > 100  # TensorFlow alone
