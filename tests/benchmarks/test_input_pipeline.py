"""The benchmark of the input pipeline: what it says, not how fast anything is."""

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import fixtures, harness
from benchmarks.options import InputOptions
from pipeline.dataset import manifest, record
from tests.support.photos import CLASSES, PER_CLASS
from tests.support.processes import Program
from trainer.recipe import RECIPES, Recipe

TRAIN = len(CLASSES) * PER_CLASS["train"]  # 24
SMALL = Recipe(name="small", epochs=2, batch_size=8, hidden=8, learning_rate=1e-6)


@pytest.fixture
def bench(tf):
    from benchmarks import input_pipeline

    return input_pipeline


def samples(bench, **changed: list[float]) -> dict[str, list[float]]:
    """Everything that is compared, all of it at 100 and 200 images/s."""
    names = {name for one in bench.TARGETS for name in (one.one, one.other) if name}
    names = {name for name in names if "originals" not in name}
    return {name: [100.0, 200.0] for name in names} | changed


def judged(bench, taken: dict[str, list[float]]) -> dict[str, harness.Figure]:
    found = harness.figures(taken, bench.TARGETS, bench.UNITS)
    return {figure.name: figure for figure in found}


def test_each_other_way_is_judged_within_a_repeat(bench) -> None:
    taken = samples(bench, **{bench.DECODE: [300.0, 400.0]})
    figures = judged(bench, taken)
    ratio = figures[f"{bench.DECODE} / {bench.ELEMENT}"]
    assert (ratio.values, ratio.target()) == ((3, 2), "≥ 1.2  met")
    assert "MISSED" in figures[f"{bench.DECODE} / {bench.FLOW}"].target()
    assert not any("originals" in name for name in figures)
    taken[bench.FLOW_ORIGINALS] = [5.0, 10.0]
    ratio = judged(bench, taken)[f"{bench.DECODE} / {bench.FLOW_ORIGINALS}"]
    assert (ratio.values, ratio.target()) == ((60, 40), "≥ 40  met")


def test_memory_is_a_slope_without_the_first_epochs(bench) -> None:
    resident = [500, 900, *(1000 + 2 * epoch for epoch in range(18))]
    assert bench.growth(resident) == pytest.approx(2)
    name = bench.GROWTH["decoded"]
    figure = judged(bench, samples(bench, **{name: [2.0]}))[name]
    assert (figure.unit, figure.target()) == ("MB/epoch", "≤ 1  MISSED")


def said(bench, kind: str = "decoded", **changed: float) -> str:
    rates = {
        "read": 100_000.0,
        "shards": 12_000.0,
        "encoded": 13_000.0,
        "decoded": 150_000.0,
        "features": 2_000.0,
        "model": 1_000.0,
        "on_features": 4_000.0,
        **changed,
    }
    taken = {
        bench.READ: rates["read"],
        bench.DEVICE: rates["shards"],
        bench.MODEL: rates["model"],
        bench.MODEL_ON_FEATURES: rates["on_features"],
        **{name: rates[cache] for cache, name in bench.CACHES.items()},
    }
    taken = {name: [rate] for name, rate in taken.items()}
    return "\n".join(bench.verdict(taken, cores=2, kind=kind))


def test_the_verdict_says_what_is_fed_and_what_is_taken(bench) -> None:
    text = said(bench)
    assert "this node feeds 150,000 images/s from --cache=decoded" in text
    assert "(12,000 from shards); your model takes 1,000; compute-bound" in text
    text = said(bench, "features")
    assert "feeds 2,000 images/s from --cache=features (12,000 from shards)" in text
    assert "your model takes 4,000; input-bound: the model waits 50%" in text


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
        ({"kind": "features"}, "waits 50% of the time", "--feature_dtype=float16"),
    ],
)
def test_what_helps_most(
    bench, changed: dict[str, Any], state: str, advice: str
) -> None:
    text = said(bench, **changed)
    assert state in text
    assert advice in text


def test_a_part_is_the_first_shards(made_dataset: Path) -> None:
    whole = manifest.load(made_dataset)
    shards = whole.split("train").shards
    for examples, count in ((1, 1), (shards[0].examples, 1), (TRAIN, 2), (999, 2)):
        assert fixtures.first_shards(whole, "train", examples) == shards[:count]


def test_the_same_pictures_as_files(made_dataset: Path, tmp_path: Path) -> None:
    paths = manifest.load(made_dataset).paths("train")
    records = [one.record for path in paths for one in record.read(path)]
    fixtures.files([(one.label, one.encoded) for one in records], tmp_path / "files")
    found = sorted(tmp_path.glob("files/*/*.jpg"))
    assert sorted(path.read_bytes() for path in found) == sorted(
        one.encoded for one in records
    )
    assert {int(path.parent.name) for path in found} == {0, 1, 2}
    fixtures.links(found[:3], tmp_path / "links", 8, classes=2)
    links = list(tmp_path.glob("links/*/*.jpg"))
    assert len(links) == 8
    assert {link.resolve() for link in links} == set(found[:3])
    assert {int(link.parent.name) for link in links} == {0, 1}


def test_photos_are_needed(
    program: Program, made_dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    result = program(
        *("benchmarks", "input", f"--dataset={made_dataset}", "--batch_size=8"),
        *(f"--images={tmp_path / 'empty'}", f"--output={tmp_path / 'bench'}"),
    )
    assert result.returncode == 1
    assert not (tmp_path / "bench").exists()


@pytest.mark.integration
def test_a_short_benchmark(
    bench,
    made_dataset: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A slower decoder is found slower, and `make train`'s cache is judged."""
    # Processes take seconds to start: what they do is done here, or not at all.
    monkeypatch.setattr(bench, "_turbo", lambda *_: 1.0)
    monkeypatch.setattr(harness, "isolated", lambda work, *given, cores=0: work(*given))
    ordinary = bench.flow_from_directory

    def slowly(*arguments: Any) -> Any:
        def start() -> Any:
            for batch in ordinary(*arguments)():
                time.sleep(0.1)
                yield batch

        return start

    monkeypatch.setattr(bench, "flow_from_directory", slowly)
    output = tmp_path / "bench"
    bench.run(
        InputOptions(
            dataset=made_dataset,
            output=output,
            recipe=SMALL,
            images=images,
            repeats=1,
            seconds=0.05,
            epochs=3,
            virtual_devices=1,
        )
    )
    value = json.loads((output / "bench.json").read_text())
    text = capsys.readouterr().out
    figures = {figure["name"]: figure for figure in value["figures"]}
    for name, figure in figures.items():
        assert name in text
        assert math.isfinite(figure["median"])
    # A pause of 0.1 s for a batch of 8 gives 80 images/s at most.
    assert figures[bench.FLOW]["median"] <= 80
    assert figures[f"{bench.DECODE} / {bench.FLOW}"]["median"] > 1
    assert figures[f"{bench.DECODE} / {bench.FLOW_ORIGINALS}"]["at_least"] == 40
    assert set(value["stages"]) == set(bench.STAGES)
    assert value["dataset"]["examples"] == TRAIN
    assert value["replicas"] == 1
    # It ends with the verdict, which is about what `make train` would take.
    assert text.splitlines()[-3:] == value["verdict"]
    assert value["cache"].startswith("cache: features, on disk: block4_pool")
    assert value["cache"] in value["verdict"][0]
    assert "images/s from --cache=features" in value["verdict"][1]
    taken = figures[bench.MODEL_ON_FEATURES]["median"]
    assert f"your model takes {taken:,.0f};" in value["verdict"][1]
    assert {path.name for path in output.iterdir()} == {"bench.json", "bench.png"}


@pytest.mark.slow
def test_the_whole_benchmark(
    program: Program, made_dataset: Path, images: Path, tmp_path: Path
) -> None:
    """A recipe that augments has no features to keep."""
    assert RECIPES["finetune"].augmentation.changes
    output = tmp_path / "bench"
    result = program(
        *("benchmarks", "input", f"--dataset={made_dataset}", "--recipe=finetune"),
        *("--batch_size=8", f"--images={images}", f"--output={output}"),
        *("--repeats=1", "--cpu"),
    )
    assert result.returncode == 0, result.stderr
    value = json.loads((output / "bench.json").read_text())
    assert result.stdout.splitlines()[-3:] == value["verdict"]
    names = {figure["name"] for figure in value["figures"]}
    assert "decode and batch / flow_from_directory, originals" in names
    assert "decode and batch / libjpeg-turbo alone, all cores" in names
    assert value["cache"].startswith("cache: decoded")
