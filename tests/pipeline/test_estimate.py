"""The prediction: what it says of a collection, and what it refuses."""

import shutil
from collections import Counter, namedtuple
from pathlib import Path

import pytest

from pipeline import estimate
from pipeline.dataset import manifest
from pipeline.dataset.manifest import ImageContract
from pipeline.estimate import Chunk, Range
from pipeline.options import PlanOptions
from pipeline.sources.listing import ImageRef
from pipeline.system import parallel_timing
from pipeline.system.errors import RunError
from tests.support.photos import HEIGHT, WIDTH, jpeg, photo

CONTRACT = ImageContract(height=HEIGHT, width=WIDTH)
REF = ImageRef("x.jpg", "/photos/x.jpg", "a", "train")
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def _no_beam(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds that say nothing here."""
    monkeypatch.setattr(parallel_timing, "empty_job_seconds", lambda *_: 7.0)


def plan(images: Path, dataset: Path | None = None, **options: object) -> None:
    settings = {"contract": CONTRACT, "workers": 1, **options}
    estimate.run(PlanOptions(images=images, dataset=dataset, **settings))


def test_the_arithmetic() -> None:
    """2 or 3 ms and 1,000 or 1,200 bytes an image; 5 shards on 2 workers: 3 turns."""
    chunks = [
        Chunk(images=100, seconds=0.2, bytes=100_000, reasons=Counter()),
        Chunk(images=100, seconds=0.3, bytes=120_000, reasons=Counter(damaged=4)),
    ]
    slices = {"train": [[REF] * 1000] * 4, "test": [[REF] * 1000]}
    found = estimate.predict(chunks, slices, startup=7, workers=2)
    assert found.seconds == pytest.approx((7 + 6, 7 + 7.5, 7 + 9))
    assert found.bytes == pytest.approx((5e6, 5.5e6, 6e6))
    assert found.shards == {"train": 4, "test": 1}
    assert (found.rejected, found.reasons) == (100, Counter(damaged=4))


def test_it_comes_near_when_everything_is_sampled(
    images: Path, made_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(images, tmp_path / "made" / "dataset", shards=2)
    lines = capsys.readouterr().out.splitlines()
    said = {line.split()[0]: line for line in lines}
    assert "42 images (25 in train, 9 in validation, 8 in test), 3 c" in said["IMAGES"]
    assert "2 train, 2 validation, 2 test" in said["shards"]
    assert "2 of 42 sampled" in said["rejects"]
    assert "1 damaged" in said["rejects"]
    assert "1 not_an_image" in said["rejects"]
    assert f"free at {tmp_path}, " in said["disk"]
    splits = manifest.load(made_dataset).splits.values()
    made = sum(part.bytes for split in splits for part in split.shards)
    predicted = float(said["output"].split()[1]) * 1e3
    assert predicted == pytest.approx(made, rel=0.02)  # it prints three digits


def test_what_the_paths_alone_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "images" / "train"
    (root / "a").mkdir(parents=True)
    (root / "a" / "x.jpg").write_bytes(jpeg(photo(0, 0)))
    (root / "outside.jpg").write_bytes(b"")
    plan(tmp_path / "images", max_reject_fraction=0.5)
    said = capsys.readouterr().out.splitlines()
    rejects = next(line for line in said if line.startswith("  rejects"))
    assert "1 already (1 no_class); none of the 1 sampled, and these are all" in rejects
    with pytest.raises(
        RunError,
        match=r"make shards would fail: 1 of 2 images .* \(50\.00%\); .* 1\.00%\. .* "
        r"1 no_class, such as 'outside\.jpg'",
    ):
        plan(tmp_path / "images")
    assert "  output " in capsys.readouterr().out  # all the same


def test_rejects_that_are_likely_too_many_are_said(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(images, max_reject_fraction=0.05)
    assert "warning" not in capsys.readouterr().err
    plan(images, max_reject_fraction=0.04)
    warning = "warning: make shards would likely fail at its end: about 4.76% of"
    assert warning in capsys.readouterr().err


def test_a_full_disk_is_refused_in_advance(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**6, 10**6, 1000))
    with pytest.raises(
        RunError,
        match=rf"the disk of {tmp_path} has 1,000 bytes free, and DATASET .* needs "
        r"\d\d,\d{3}: .*Free \d\d,\d{3} bytes, name a DATASET on another disk",
    ):
        plan(images, tmp_path / "dataset")


def test_what_is_there_already_needs_no_room(
    images: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = manifest.load(dataset).splits.values()
    made = sum(part.bytes for split in splits for part in split.shards)
    free = round(made * 0.06)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**6, 10**6, free))
    plan(images, dataset)


def test_a_collection_without_a_photo_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jpg").write_text("no photo")
    with pytest.raises(RunError, match=r"none of 1 sampled images .*1 not_an_image"):
        plan(tmp_path)


def test_a_range_is_scaled_and_shifted() -> None:
    assert Range(1, 2, 4).times(2).plus(1) == (3, 5, 9)
