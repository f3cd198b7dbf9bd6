"""`make verify PREDICTIONS=`: whole, or named by file, row and id."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest

from pipeline.dataset import manifest, record
from pipeline.system.errors import RunError
from predictor import verify
from predictor.format import file_check, predictions_manifest, reader
from predictor.format.file_format import Format
from tests.support.files import REPOSITORY
from tests.support.photos import TEST
from tests.support.predictions import edit, ids_sha256, write_predictions
from tests.support.processes import Program

CLASSES = ("blue", "green", "red")
FIRST, SECOND = (predictions_manifest.shard_name(index, 2) for index in range(2))


def ids_of(dataset: manifest.Dataset) -> list[list[str]]:
    """Of the test split, shard by shard."""
    return [
        [stored.record.id for stored in record.read(path)]
        for path in dataset.paths("test")
    ]


def softmax(rows: int) -> np.ndarray:
    values = np.random.default_rng(0).random((rows, len(CLASSES)), np.float32)
    return values / values.sum(axis=1, keepdims=True)


@pytest.fixture
def make(made_dataset: Path, tmp_path: Path):
    """PREDICTIONS of the test split, by no model."""

    def make(form: Format = Format(), **fields: object) -> Path:  # noqa: B008
        dataset = manifest.load(made_dataset)
        parts = [(ids, softmax(len(ids))) for ids in ids_of(dataset)]
        described = {"dataset": dataset.fingerprint, **fields}
        return write_predictions(tmp_path / "made", form, CLASSES, parts, **described)

    return make


def rewrite(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize(
    ("form", "workers"),
    [
        (Format(), 2),
        (Format(compression="gzip"), 1),
        (Format(compression="zstd"), 1),
        (Format(parquet=True), 2),
        (Format(kind="top_k", top_k=2), 1),
        (Format(kind="top_k", top_k=2, parquet=True), 1),
    ],
    ids=lambda value: getattr(value, "extension", value),
)
def test_what_is_whole(
    make, made_dataset: Path, form: Format, workers: int, capsys
) -> None:
    verify.run(make(form), dataset=made_dataset, workers=workers)
    said = capsys.readouterr().out
    assert f"{TEST} images = {TEST} predicted + 0 rejected" in said
    assert "held to the records of DATASET" in said


def swap(folder: Path) -> None:
    (folder / FIRST).rename(folder / "aside")
    (folder / SECOND).rename(folder / FIRST)
    (folder / "aside").rename(folder / SECOND)


def entry(folder: Path, number: int, **values: object) -> None:
    edit(folder, lambda value: value["files"][number].update(values))


def repeat_a_row(folder: Path) -> None:
    """In a file whose entry knows of it."""
    rewrite(folder / FIRST, lambda text: text + text.splitlines(keepends=True)[1])
    length = (folder / FIRST).stat().st_size
    entry(folder, 0, bytes=length, rows=4)


def lose_a_row(folder: Path) -> None:
    rewrite(folder / FIRST, lambda text: text[: text.rindex("\n", 0, -1) + 1])
    entry(folder, 0, bytes=(folder / FIRST).stat().st_size, rows=2)


def number(new: str) -> Callable[[Path], None]:
    """Another first number of the first row, of a file of any length."""

    def change(folder: Path) -> None:
        header, row, *rest = (folder / FIRST).read_text().splitlines()
        image_id, _, *others = row.split(",")
        row = ",".join([image_id, new, *others])
        (folder / FIRST).write_text("\n".join([header, row, *rest, ""]))
        entry(folder, 0, bytes=(folder / FIRST).stat().st_size)

    return change


def flip(folder: Path) -> None:
    content = bytearray((folder / FIRST).read_bytes())
    content[-3] ^= 1  # a digit of the last number becomes another
    (folder / FIRST).write_bytes(content)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit": (flip, f"{FIRST}: its CRC-32C is .* promises"),
    "cut": (
        lambda f: os.truncate(f / FIRST, 50),
        f"{FIRST}: has 50 bytes, .* promises",
    ),
    "gone": (lambda f: (f / FIRST).unlink(), f"{FIRST}: is missing"),
    "a folder in its place": (
        lambda f: ((f / FIRST).unlink(), (f / FIRST).mkdir()),
        f"{FIRST}: cannot be read: it is no regular file",
    ),
    "a pipe in its place": (
        lambda f: ((f / FIRST).unlink(), os.mkfifo(f / FIRST)),
        f"{FIRST}: cannot be read: it is no regular file",
    ),
    "rejects of others": (
        lambda f: (f / "rejects.csv").write_text("id,split,label,reason,detail\n"),
        r"rejects\.csv: is no part of the predictions",
    ),
    "what a killed run left": (
        lambda f: (f / ".scratch-0123456789ab-x.csv").touch(),
        r"\.scratch-0123456789ab-x\.csv: is no part of the predictions",
    ),
    "swapped files": (swap, f"{FIRST}: has .* bytes"),
    "a repeated row": (
        repeat_a_row,
        rf"{FIRST}: row 4, id '.*': is in row 1 of {FIRST}, too",
    ),
    "a lost row": (lose_a_row, r"ledger\.predicted is 7; its files have 6 rows"),
    "NaN": (number("NaN"), r"row 1, id .*: nan is no probability"),
    "more than 1": (number("1.5"), r"row 1, id .*: 1\.5 is no probability"),
    "less than 0": (number("-0.5"), r"row 1, id .*: -0\.5 is no probability"),
    "a larger sum": (number("1.0"), r"row 1, id .*: its probabilities sum to .* more"),
    "a smaller sum": (number("0.0"), r"row 1, id .*: its probabilities sum to .* less"),
    "a stray file": (
        lambda f: (f / "predictions-00000-of-00003.csv").write_text("id\n"),
        "predictions-00000-of-00003.csv: is no part of the predictions",
    ),
    "a folder of work": (lambda f: (f / "_work").mkdir(), "_work: left by a run"),
    "another name": (
        lambda f: entry(f, 0, file=SECOND),
        f"file 0 of 2 is {SECOND}, not {FIRST}",
    ),
    "other ids": (
        lambda f: entry(f, 0, ids_sha256="0" * 64),
        f"{FIRST}: its ids are not those that were predicted",
    ),
    "more rows": (
        lambda f: edit(f, lambda value: value.update(rows=8)),
        "rows is 8; those of its files are 7",
    ),
    "an odd ledger": (
        lambda f: edit(f, lambda value: value["ledger"].update(rejected=1)),
        r"7 examples are not 7 predicted \+ 1 rejected",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_wrong_is_named(make, what: str) -> None:
    folder = make()
    damage, message = DAMAGE[what]
    damage(folder)
    with pytest.raises(RunError, match=message):
        verify.run(folder)


def test_ids_are_held_to_the_records(make, made_dataset: Path) -> None:
    folder = make()
    (first, *_), _ = ids_of(manifest.load(made_dataset))
    rewrite(folder / FIRST, lambda text: text.replace(first, "photo x.jpg"))
    with pytest.raises(RunError) as caught:
        verify.run(folder, dataset=made_dataset)
    assert f"{FIRST}: id {first!r} of the input shard is missing" in str(caught.value)
    expected = f"{FIRST}: row 1, id 'photo x.jpg': the input shard has no such id"
    assert expected in str(caught.value)


def test_ids_in_another_order(make, made_dataset: Path) -> None:
    folder = make()
    header, *rows = (folder / FIRST).read_text().splitlines(keepends=True)
    (folder / FIRST).write_text("".join([header, *reversed(rows)]))
    with pytest.raises(RunError, match="not in the order of the input shard"):
        verify.run(folder, dataset=made_dataset)


def test_problems_of_two_files_by_two_processes(make, made_dataset: Path) -> None:
    folder = make()
    for name in (FIRST, SECOND):
        (folder / name).unlink()
    with pytest.raises(RunError, match=r"not whole, 2 problems:") as caught:
        verify.run(folder, dataset=made_dataset, workers=2)
    for name in (FIRST, SECOND):
        assert f"  {name}: is missing\n" in str(caught.value)


def test_an_id_in_two_files(make) -> None:
    """Each file is right in itself."""
    folder = make()
    ids = {}
    for name in (FIRST, SECOND):
        rows = (folder / name).read_text().splitlines()[1:]
        ids[name] = [row.partition(",")[0] for row in rows]
    rewrite(folder / SECOND, lambda text: text.replace(ids[SECOND][2], ids[FIRST][1]))
    changed = [*ids[SECOND][:2], ids[FIRST][1], *ids[SECOND][3:]]
    promise(folder, 1, ids_sha256=ids_sha256(changed))
    assert only_problem(folder) == (
        f"{SECOND}: row 3, id {ids[FIRST][1]!r}: is in row 2 of {FIRST}, too"
    )


def promise(folder: Path, number: int, **values: object) -> None:
    """Has predictions.json promise a file as it is now."""
    content = (folder / predictions_manifest.shard_name(number, 2)).read_bytes()
    checksum = google_crc32c.Checksum(content).digest().hex()
    entry(folder, number, bytes=len(content), crc32c=checksum, **values)


def only_problem(folder: Path, **options: object) -> str:
    """What verify lists; it must fail."""
    with pytest.raises(RunError, match="not whole, 1 problem:") as caught:
        verify.run(folder, **options)
    _, line, _ = str(caught.value).split("\n")
    return line.strip()


def test_a_file_less_with_all_that_is_promised_of_it(make, made_dataset: Path) -> None:
    """DATASET alone can tell."""
    folder = make()
    (folder / SECOND).unlink()
    (folder / FIRST).rename(folder / "predictions-00000-of-00001.csv")

    def change(value: dict[str, Any]) -> None:
        value["files"].pop()
        value["files"][0]["file"] = "predictions-00000-of-00001.csv"
        rows = value["files"][0]["rows"]
        value.update(rows=rows)
        value["ledger"].update(examples=rows, predicted=rows)

    edit(folder, change)
    verify.run(folder)
    with pytest.raises(RunError, match="not whole, 2 problems:") as caught:
        verify.run(folder, dataset=made_dataset)
    assert "ledger.examples is 3; test has 7" in str(caught.value)
    assert "has 1 files; test has 2 shards" in str(caught.value)


def test_a_dataset_that_is_damaged(make, dataset: Path) -> None:
    path = dataset / manifest.shard_name("test", 1, 2)
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match=rf"shard {path} is damaged \(record 0"):
        verify.run(make(), dataset=dataset, workers=2)


def test_no_model(make, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"MODEL .*nothing has no model\.json"):
        verify.run(make(), model=tmp_path / "nothing")


def test_a_class_that_the_model_does_not_have(make, made_dataset: Path) -> None:
    folder = make(Format(kind="top_k", top_k=2))
    rewrite(folder / FIRST, lambda text: text.replace("green", "grey"))
    promise(folder, 0)
    verify.run(folder)
    with pytest.raises(RunError, match="it names 'grey', which is no class of MODEL"):
        verify.run(folder, dataset=made_dataset)


SAMPLE: dict[str, tuple[Callable[[str], str], str | None]] = {
    "whole": (lambda text: text, None),
    "an empty row of an image": (
        lambda text: re.sub("photo 2,.*", "photo 2,", text),
        "row 3, id 'photo 2': is empty, and the split has it",
    ),
    "a row of no image": (
        lambda text: text.replace("nothing,", "nothing,red 0.5"),
        "row 8, id 'nothing': the split has no such image",
    ),
    "no class": (
        lambda text: re.sub("photo 2,[a-z]*", "photo 2,grey", text),
        "row 3, id 'photo 2': it names 'grey', which is no class of MODEL",
    ),
    "no probability": (
        lambda text: re.sub("photo 2,([a-z]*) .*", r"photo 2,\1 1.5", text),
        "row 3, id 'photo 2': 1.5 is no probability, which is from 0 to 1",
    ),
    "a repeated id": (
        lambda text: text.replace("nothing", "photo 2"),
        "row 8, id 'photo 2': is in row 3 of predictions-00000-of-00001.csv, too",
    ),
}


@pytest.mark.parametrize("what", SAMPLE)
def test_a_submission(made_dataset: Path, tmp_path: Path, what: str) -> None:
    """A row of every image of the split, and one more that the sample asks for."""
    change, problem = SAMPLE[what]
    dataset = manifest.load(made_dataset)
    ids = [f"photo {n}" for n in range(TEST)]
    folder = write_predictions(
        tmp_path / "made",
        Format(kind="submission"),
        CLASSES,
        [(ids, softmax(TEST))],
        dataset=dataset.fingerprint,
        rows=TEST + 1,
    )
    path = folder / predictions_manifest.shard_name(0, 1)
    rewrite(path, lambda text: change(f"{text}nothing,\n"))
    content = path.read_bytes()
    described = {
        "bytes": len(content),
        "crc32c": google_crc32c.Checksum(content).digest().hex(),
        "rows": TEST + 1,
        "ids_sha256": ids_sha256([*ids, "nothing"]),
    }
    entry(folder, 0, **described)
    if problem is None:
        verify.run(folder, dataset=made_dataset)
    else:
        with pytest.raises(RunError, match=re.escape(problem)):
            verify.run(folder, dataset=made_dataset)


def test_another_dataset(make, made_dataset: Path) -> None:
    folder = make(dataset="0" * 64)
    with pytest.raises(RunError, match=r"dataset is 0{64}; the fingerprint of .* is"):
        verify.run(folder, dataset=made_dataset)


def test_another_model(make, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    described = {"sha256": "1" * 64, "classes": manifest.classes_entry(CLASSES)}
    (tmp_path / "model" / "model.json").write_text(json.dumps(described))
    (tmp_path / "model" / "classes.txt").write_text(manifest.classes_text(CLASSES))
    with pytest.raises(RunError, match=r"model is m{64}; .* has 1{64}"):
        verify.run(make(), model=tmp_path / "model")
    verify.run(make_again(tmp_path), model=tmp_path / "model")


def make_again(parent: Path) -> Path:
    """The same PREDICTIONS, of the right model."""
    folder = Path(shutil.copytree(parent / "made", parent / "again"))
    edit(folder, lambda value: value.update(model="1" * 64))
    return folder


def test_rejects_balance(make) -> None:
    folder = make(
        images="i" * 64,
        dataset=None,
        ledger={"examples": 8, "predicted": 7, "rejected": 1},
    )
    with pytest.raises(RunError, match=r"rejects\.csv is missing"):
        verify.run(folder)
    header = "id,split,label,reason,detail\n"
    (folder / "rejects.csv").write_text(header)
    with pytest.raises(RunError, match=r"rejects\.csv: has 0 rows; .* promises 1"):
        verify.run(folder)
    (folder / "rejects.csv").write_text(f"{header}x.jpg,test,,empty,0 bytes\n")
    verify.run(folder)


def test_best_classes_out_of_order(make) -> None:
    folder = make(Format(kind="top_k", top_k=2))
    header, row, *rest = (folder / FIRST).read_text().splitlines()
    image_id, a, p, b, q = row.split(",")
    for other, message in (
        ([image_id, b, q, a, p], "its probabilities do not descend"),
        ([image_id, a, p, a, q], "it names a class twice"),
    ):
        lines = [header, ",".join(other), *rest, ""]
        (folder / FIRST).write_text("\n".join(lines))
        entry(folder, 0, bytes=(folder / FIRST).stat().st_size)
        with pytest.raises(RunError, match=f"row 1, id .*: {message}"):
            verify.run(folder)


def test_only_so_many_are_told(make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_check, "_TOLD_PER_FILE", 2)
    folder = make()
    for name in (FIRST, SECOND):
        rewrite(folder / name, lambda text: text.replace("0.", "7."))
    with pytest.raises(RunError, match=r"not whole, \d+ problems:") as caught:
        verify.run(folder)
    assert str(caught.value).count(FIRST) == 2
    # Of 3 + 4 rows, 2 checksums, and `photo 0.jpg`, whose id changed, too.
    assert "… and 6 more" in str(caught.value)


def test_from_the_command_line(make, program: Program) -> None:
    folder = make()
    assert program("predictor", "verify", f"--predictions={folder}").returncode == 0
    (folder / FIRST).unlink()
    result = program("predictor", "verify", f"--predictions={folder}")
    assert result.returncode == 1
    assert f"{FIRST}: is missing" in result.stderr
    assert "Traceback" not in result.stderr
    missing = program("predictor", "verify")
    assert missing.returncode == 2
    assert reader.MANIFEST in os.listdir(folder)


READ_ROWS = """
import sys
from pathlib import Path
from predictor.format import reader

made = reader.load(Path(sys.argv[1]))
try:
    list(reader.rows(made, made.files[0]))
except OSError as error:
    print(error.strerror, error.filename)
"""


@pytest.mark.parametrize("form", [Format(), Format(compression="gzip")])
def test_a_file_that_cannot_be_read_is_not_called_damaged(
    make, program: Program, failing: Callable[..., None], form: Format
) -> None:
    folder = make(form)
    path = folder / predictions_manifest.shard_name(1, 2, form.extension)
    failing(path)
    result = program("predictor", "verify", f"--predictions={folder}", "--workers=2")
    assert result.returncode == 1
    assert f"error: Input/output error: {path} (tried 6 times" in result.stderr
    assert "not whole" not in result.stderr
    assert "Traceback" not in result.stderr
    failing(folder / predictions_manifest.shard_name(0, 2, form.extension))
    read = subprocess.run(
        [sys.executable, "-c", READ_ROWS, str(folder)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    first = folder / predictions_manifest.shard_name(0, 2, form.extension)
    assert read.stdout == f"Input/output error {first}\n", read.stderr
