"""Kaggle's landmark submission, of parts and a sample."""

import csv
import gzip
import hashlib
import re
from pathlib import Path

import pandas as pd
import pytest

from pipeline.storage.atomic import csv_line
from pipeline.storage.resumable_folder import ResumableFolder
from pipeline.system.errors import RunError
from predictor.format import submission
from predictor.format.predictions_manifest import MANIFEST

PARTS = [
    [("a/0001.jpg", "7 0.5"), ("0002.png", "x, y 0.25")],
    [],
    [("deep/er/b.c.jpg", '"z" 1e-7'), ("no extension", "7 0.5"), ("22.05", "7 0.1")],
]
STEMS = {
    "0001": "7 0.5",
    "0002": "x, y 0.25",
    "b.c": '"z" 1e-7',
    "no extension": "7 0.5",
    "22.05": "7 0.1",
}


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    paths = []
    for number, rows in enumerate(PARTS):
        lines = [csv_line(row) for row in [("id", "landmarks"), *rows]]
        paths.append(tmp_path / f"part-{number}.csv")
        paths[-1].write_text("".join(lines), newline="")
    return paths


@pytest.fixture
def output(tmp_path: Path) -> ResumableFolder:
    output = ResumableFolder(tmp_path / "predictions", manifest=MANIFEST)
    output.start({})
    return output


def rows_of(path: Path) -> dict[str, str]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    header, *rows = csv.reader(text.splitlines())
    assert header == ["id", "landmarks"]
    found = dict(rows)
    assert len(found) == len(rows)
    return found


def write_sample(path: Path, ids: list[str]) -> Path:
    frame = pd.DataFrame({"landmarks": ["1 0.1"] * len(ids), "id": ids})
    frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_without_a_sample_every_stem(
    parts: list[Path], output: ResumableFolder, compression: str
) -> None:
    entry = submission.assemble(parts, None, output, compression)
    path = output.folder / entry.file
    assert rows_of(path) == STEMS
    assert list(rows_of(path)) == list(STEMS)
    assert (entry.rows, entry.bytes) == (5, path.stat().st_size)
    ids = b"".join(stem.encode() + b"\0" for stem in STEMS)
    assert entry.ids_sha256 == hashlib.sha256(ids).hexdigest()


def test_a_sample_decides_rows_and_order(
    parts: list[Path], output: ResumableFolder, tmp_path: Path, capsys
) -> None:
    ids = ["unknown", "b.c", "0001", "NA", "no extension", "00001"]
    sample = submission.read_sample(write_sample(tmp_path / "sample.csv", ids))
    assert sample == ids
    entry = submission.assemble(parts, sample, output, "none")
    found = rows_of(output.folder / entry.file)
    assert list(found) == ids
    assert found == {image_id: STEMS.get(image_id, "") for image_id in ids}
    assert (
        "3 of 6 submission rows have a prediction; the others are empty, such "
        "as 'unknown'; 2 images have no row in the sample"
    ) in capsys.readouterr().out


def test_an_id_of_the_sample_is_that_id(
    parts: list[Path], output: ResumableFolder, capsys
) -> None:
    """With folders and extension, and with a dot that begins none."""
    sample = ["a/0001.jpg", "0001", "22.05", "22", "deep/er/b.c.jpg", "b.c"]
    entry = submission.assemble(parts, sample, output, "none")
    assert rows_of(output.folder / entry.file) == {
        **{"a/0001.jpg": "7 0.5", "0001": "", "22.05": "7 0.1", "22": ""},
        **{"deep/er/b.c.jpg": '"z" 1e-7', "b.c": ""},
    }


def test_images_of_one_stem_are_refused(
    parts: list[Path], output: ResumableFolder
) -> None:
    with parts[1].open("a") as file:
        file.write("elsewhere/0001.png,3 0.4\n")
    with pytest.raises(
        RunError, match=r"images 'a/0001.jpg' and 'elsewhere/0001.png' .* row '0001'"
    ):
        submission.assemble(parts, None, output, "none")
    assert not list(output.folder.glob("*.csv"))


def test_a_sample_of_something_else_is_refused(
    parts: list[Path], output: ResumableFolder
) -> None:
    with pytest.raises(
        RunError,
        match=r"none of the 2 ids .*, such as 'x', is one of the 5 .*"
        r" such as '0001' of 'a/0001.jpg'. .* another competition",
    ):
        submission.assemble(parts, ["x", "y"], output, "none")
    assert not list(output.folder.glob("*.csv"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no file"),
        (b"", "is empty"),
        (b"image,landmarks\n1,2\n", r"no column id; .* 'image,landmarks'\. Rename th"),
        (b"id,landmarks\n\xff,2\n", "is not UTF-8: line 2 is"),
        (b"id\na\nb\na\na\n", "has the id 'a' in the lines 2 and 4"),
        (b"id,landmarks\n", "has a header and no row"),
        (b"id,landmarks\n a,\n", "line 2 has blanks at the ends of the id ' a'"),
    ],
)
def test_samples_that_are_none(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "sample.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match=message) as raised:
        submission.read_sample(path)
    assert re.search(re.escape(str(path)), str(raised.value))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("text", ["id,landmarks\nb,\na,\n", "x;id\r\n;b\r\n;a\r\n"])
def test_a_sample_of_any_editor(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "sample.csv"
    path.write_bytes(text.encode(encoding))
    assert submission.read_sample(path) == ["b", "a"]
