"""MODEL + photos → PREDICTIONS: as they lie, with bad files among them."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.system.errors import RunError
from tests.support.photos import CLASSES, TEST, jpeg, photo

BAD = {
    "0 empty.jpg": (b"", "empty"),
    "photo 2 cut.jpg": (jpeg(photo(0, 0))[:900], "damaged"),
    "photo 2 page.jpg": (b"<html>not found</html>", "not_an_image"),
    "z.tif": (b"II*\0" + bytes(50), "unsupported"),
}


@pytest.fixture
def photos(images: Path, tmp_path: Path) -> Path:
    """The good photos of the test split, flat."""
    folder = tmp_path / "photos"
    shutil.copytree(images / "test", folder)
    (folder / "page.jpg").unlink()
    return folder


def add_bad(folder: Path) -> None:
    for name, (content, _) in BAD.items():
        (folder / name).write_bytes(content)


def as_nested(photos: Path) -> Path:
    (photos / "deep" / "er").mkdir(parents=True)
    for number, path in enumerate(sorted(photos.glob("*.*"))):
        if number % 2:
            path.rename(photos / "deep" / "er" / path.name)
    return photos


def as_split(photos: Path) -> Path:
    root = photos.parent / "root"
    root.mkdir()
    photos.rename(root / "test")
    (root / "train" / "a").mkdir(parents=True)
    shutil.copy(next((root / "test").glob("photo*")), root / "train" / "a" / "x.jpg")
    return root


def as_csv(photos: Path) -> Path:
    names = sorted(path.stem for path in photos.iterdir() if path.suffix == ".jpg")
    names += [path.name for path in photos.iterdir() if path.suffix != ".jpg"]
    pd.DataFrame({"id": names}).to_csv(photos / "list.csv", index=False)
    return photos / "list.csv"


def as_tar(photos: Path) -> Path:
    with tarfile.open(photos.parent / "photos.tar", "w") as archive:
        for path in sorted(photos.iterdir()):
            archive.add(path, path.name)
    return photos.parent / "photos.tar"


def rows_of(frame: pd.DataFrame) -> dict[str, tuple[float, ...]]:
    """By the stem of the id."""
    assert frame.id.is_unique
    return {
        Path(image_id).stem: tuple(numbers)
        for image_id, *numbers in frame.itertuples(index=False)
    }


def test_as_from_the_dataset(
    run,
    made_dataset: Path,
    photos: Path,
    tmp_path: Path,
) -> None:
    """To what the re-encoding of the shards changes; photos differ by far more."""
    stored = run(made_dataset, tmp_path / "stored").set_index("id").sort_index()
    direct = run(None, tmp_path / "direct", images=photos).set_index("id")
    assert list(direct.index) == list(stored.index)
    differences = np.abs(direct - stored).to_numpy()
    assert differences.max() < 0.01
    assert differences.max() > 0
    assert np.ptp(stored.to_numpy(), axis=0).max() > 0.03


@pytest.mark.parametrize("form", [Path, as_nested, as_split, as_csv, as_tar])
def test_bad_files_are_rejected_and_change_no_other_row(
    run,
    photos: Path,
    tmp_path: Path,
    form,
) -> None:
    expected = rows_of(run(None, tmp_path / "good", images=photos))
    assert len(expected) == TEST
    add_bad(photos)
    folder = tmp_path / "predictions"
    options = {"batch_size": 3, "max_reject_fraction": 0.5}
    found = rows_of(run(None, folder, images=form(photos), **options))
    assert list(found) == list(expected) or form is as_nested
    for stem, numbers in expected.items():
        np.testing.assert_allclose(found[stem], numbers, rtol=1e-5, atol=1e-7)
    rejects = pd.read_csv(folder / "rejects.csv", keep_default_na=False)
    assert set(rejects.columns) == {"id", "split", "label", "reason", "detail"}
    assert {Path(name).stem for name in rejects.id} == {Path(n).stem for n in BAD}
    reasons = dict(
        zip(rejects.id.map(lambda n: Path(n).stem), rejects.reason, strict=True)
    )
    assert reasons == {Path(n).stem: reason for n, (_, reason) in BAD.items()}
    assert rejects.detail.all()
    value = json.loads((folder / "predictions.json").read_text())
    assert value["ledger"] == {
        "examples": TEST + len(BAD),
        "predicted": TEST,
        "rejected": len(BAD),
    }
    assert value["dataset"] is None
    assert {path.name for path in folder.iterdir()} == {
        *(entry["file"] for entry in value["files"]),
        *("predictions.json", "rejects.csv"),
    }


def test_without_bad_files_rejects_are_empty(
    run,
    photos: Path,
    tmp_path: Path,
) -> None:
    run(None, tmp_path / "predictions", images=photos)
    text = (tmp_path / "predictions" / "rejects.csv").read_text()
    assert text == "id,split,label,reason,detail\n"


def test_several_shards_and_writers(
    run,
    photos: Path,
    tmp_path: Path,
) -> None:
    """With a bad file in every shard, the same bytes from 1, 2 and 3 processes."""
    for number in range(193 - TEST):
        content = jpeg(photo(number % 3, number)) if number % 9 else b""
        (photos / f"more {number:03d}.jpg").write_bytes(content)
    folders = [tmp_path / f"{count} writers" for count in (1, 2, 3)]
    frames = [
        run(
            None,
            folder,
            images=photos,
            writers=count,
            batch_size=16,
            max_reject_fraction=0.5,
        )
        for count, folder in enumerate(folders, 1)
    ]
    names = {path.name for path in folders[0].iterdir()}
    assert len(names) == 4 + 2  # 64 images and more a shard
    for folder in folders[1:]:
        assert {path.name for path in folder.iterdir()} == names
        for name in names:
            assert (folder / name).read_bytes() == (folders[0] / name).read_bytes()
    assert list(frames[0].id) == sorted(frames[0].id)


def test_not_one_good_photo(
    run,
    tmp_path: Path,
) -> None:
    (tmp_path / "photos").mkdir()
    add_bad(tmp_path / "photos")
    folder = tmp_path / "predictions"
    with pytest.raises(
        RunError,
        match=r"none of the 4 images .* '0 empty.jpg': empty \(0 bytes\).*remove",
    ):
        run(None, folder, images=tmp_path / "photos")
    assert not (folder / "predictions.json").exists()


def test_more_rejects_than_allowed(
    run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was predicted is kept, and nothing is predicted again."""
    expected = rows_of(run(None, tmp_path / "good", images=photos))
    add_bad(photos)
    (photos / "another.jpg").write_bytes(b"no image")
    folder = tmp_path / "predictions"
    with pytest.raises(
        RunError,
        match=r"^5 of 12 images were rejected \(41\.67%\); --max_reject_fraction "
        r"allows 1\.00%\. Reasons: 2 not_an_image, 1 \w+, 1 \w+, such as "
        r"'another\.jpg' \(begins with .*\)\. .*/rejects\.csv says which and why\. "
        r"Allow more and run again: what was predicted is kept",
    ):
        run(None, folder, images=photos)
    assert len(pd.read_csv(folder / "rejects.csv")) == 5
    assert not (folder / "predictions.json").exists()
    with pytest.raises(RunError, match=r"--max_reject_fraction allows 41\.00%"):
        run(None, folder, images=photos, max_reject_fraction=0.41)
    capsys.readouterr()
    found = rows_of(run(None, folder, images=photos, max_reject_fraction=5 / 12))
    said = capsys.readouterr().out
    assert "5 rejected (" in said
    assert "replicas" not in said  # no device was asked for
    assert found.keys() == expected.keys()


def test_rejects_of_the_listing_are_refused_before_anything_is_done(
    run, photos: Path, tmp_path: Path
) -> None:
    """Of a CSV that names files which are not there."""
    pd.DataFrame({"id": ["photo 0", "gone", "lost"]}).to_csv(photos / "list.csv")
    folder = tmp_path / "predictions"
    options = {"images": photos / "list.csv"}
    with pytest.raises(
        RunError,
        match=r"^2 of 3 images were rejected .* Reasons: 2 no_file, such as 'gone' "
        r"\(IMAGES has no file gone\.jpg or gone\)\. Allow more, or mend the files",
    ):
        run(None, folder, **options)
    assert not folder.exists()
    assert len(run(None, folder, **options, max_reject_fraction=0.7)) == 1


def test_other_photos_are_another_run(
    run,
    photos: Path,
    tmp_path: Path,
) -> None:
    run(None, tmp_path / "predictions", images=photos)
    (photos / "another.jpg").write_bytes(jpeg(photo(0, 99)))
    with pytest.raises(
        RunError, match=r"another run: images is \w+ there and \w+ here"
    ):
        run(None, tmp_path / "predictions", images=photos)


def test_any_size_and_format_of_photo(
    run,
    tmp_path: Path,
) -> None:
    """Among them what the shards would not have: an orientation, a PNG."""
    from PIL import Image

    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = photo(0, 1, 320, 400)
    (folder / "upright.jpg").write_bytes(jpeg(pixels))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned = jpeg(np.ascontiguousarray(pixels[::-1, ::-1]), exif=exif)
    (folder / "turned.jpg").write_bytes(turned)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    (folder / "lossless.png").write_bytes(encoded.getvalue())
    frame = run(None, tmp_path / "predictions", images=folder).set_index("id")
    for name in ("turned.jpg", "lossless.png"):
        np.testing.assert_allclose(
            frame.loc[name, list(CLASSES)],
            frame.loc["upright.jpg", list(CLASSES)],
            atol=0.005,
        )


def test_workers_take_the_photos_that_were_listed(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    """One that arrives meanwhile is no part of the run."""
    from predictor.format.file_format import Format
    from predictor.options import PredictionRequest
    from predictor.request import StartedRun

    order = PredictionRequest(
        model=model, images=photos, folder=tmp_path / "predictions", format=Format()
    )
    begun = StartedRun(order)
    begun.keep_listing()
    (photos / "new.jpg").write_bytes(jpeg(photo(0, 0)))
    worker = StartedRun(order, alone=False)
    assert list(worker.source.ids()) == list(begun.source.ids())
    assert worker.parts.missing() == begun.parts.missing()
