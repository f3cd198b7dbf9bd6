"""Verify: a whole dataset passes; whatever is broken in it is found and named."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import verify
from pipeline.dataset import manifest, record
from pipeline.dataset.record import Record
from pipeline.storage import atomic
from pipeline.system.errors import RunError
from tests.support.files import REPOSITORY
from tests.support.photos import HEIGHT, PER_CLASS, TEST, WIDTH, jpeg, photo
from tests.support.processes import Program

SHARD = "train-00000-of-00002.tfrecord"
OTHER = "train-00001-of-00002.tfrecord"
VALIDATION = "validation-00000-of-00002.tfrecord"
TEST_SHARD = "test-00000-of-00002.tfrecord"
IMAGES = 3 * sum(PER_CLASS.values()) + TEST


def problems(dataset: Path, workers: int = 1) -> list[str]:
    """What verify lists; it must fail."""
    with pytest.raises(RunError, match="is not whole") as caught:
        verify.run(dataset, workers=workers)
    head, *lines, advice = str(caught.value).split("\n")
    assert head.startswith(f"DATASET {dataset} is not whole, ")
    assert "make shards" in advice
    return [line.strip() for line in lines]


def only_problem(dataset: Path) -> str:
    (line,) = problems(dataset)
    return line


def records(path: Path) -> list[Record]:
    return [stored.record for stored in record.read(path)]


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes a JSON file."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def write(dataset: Path, name: str, content: list[Record]) -> None:
    """Writes a shard and promises just that, so that no checksum gives it away."""
    frames = [
        record.frame(
            record.encode(
                *(entry.id, entry.encoded),
                height=entry.height,
                width=entry.width,
                label=entry.label,
                text=entry.text,
            )
        )
        for entry in content
    ]
    (dataset / name).write_bytes(b"".join(frames))
    promise(dataset, name, len(content))


def promise(dataset: Path, name: str, examples: int) -> None:
    """Has dataset.json promise a shard as it is now."""
    content = (dataset / name).read_bytes()
    entry = {
        "bytes": len(content),
        "examples": examples,
        "sha256": hashlib.sha256(content).hexdigest(),
    }

    def change(value: dict[str, Any]) -> None:
        shards = value["splits"][name.partition("-")[0]]["shards"]
        next(shard for shard in shards if shard["file"] == name).update(entry)

    edit(dataset / "dataset.json", change)


def replace(dataset: Path, name: str, number: int, **fields: object) -> Record:
    """Changes a record, unseen by the checksums; returns what it was."""
    content = records(dataset / name)
    before = content[number]
    content[number] = before._replace(**fields)
    write(dataset, name, content)
    return before


# ------------------------------------------------------------------------- whole


@pytest.mark.parametrize("workers", [1, 2])
def test_a_whole_dataset(
    made_dataset: Path, capfd: pytest.CaptureFixture[str], workers: int
) -> None:
    verify.run(made_dataset, workers=workers)
    printed = capfd.readouterr().out
    assert printed.startswith(
        f"DATASET {made_dataset} is whole: {IMAGES + 2} images listed = {IMAGES} "
        "written + 2 rejected\n  all 6 shards of train, validation, test ("
    )
    assert f"every image decodes to {HEIGHT}x{WIDTH} (height x width)" in printed


def test_the_tests_can_rewrite_a_shard_unseen(dataset: Path) -> None:
    before = (dataset / SHARD).read_bytes()
    write(dataset, SHARD, records(dataset / SHARD))
    assert (dataset / SHARD).read_bytes() == before
    verify.run(dataset, workers=1)


# ------------------------------------------------------------------- broken bytes


def test_every_flipped_byte_is_found_in_its_shard(dataset: Path) -> None:
    """Any byte: 300 by chance, and all around the data of the first record."""
    contents = {path: path.read_bytes() for path in sorted(dataset.glob("*.tfrecord"))}
    rng = np.random.default_rng(0)
    paths = list(contents)
    chosen = [paths[rng.integers(len(paths))] for _ in range(300)]
    flips = [(path, int(rng.integers(len(contents[path])))) for path in chosen]
    first = paths[0]
    length = int.from_bytes(contents[first][:8], "little")
    frame = [*range(12), *range(12 + length, 16 + length)]
    flips += [(first, position) for position in frame]
    for path, position in flips:
        content = bytearray(contents[path])
        content[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        lines = problems(dataset)
        assert {line.partition(":")[0] for line in lines} == {path.name}, position
        assert any(re.search(r"record \d+ at byte \d+", line) for line in lines)
        path.write_bytes(contents[path])
    verify.run(dataset, workers=1)


def test_a_flipped_byte_is_named_by_record_and_id(dataset: Path) -> None:
    second = list(record.read(dataset / SHARD))[2]
    content = bytearray((dataset / SHARD).read_bytes())
    at = content.index(second.record.encoded)
    content[at + 50] ^= 4
    (dataset / SHARD).write_bytes(content)
    checksum, crc = problems(dataset)
    assert checksum.startswith(
        f"{SHARD}: its sha256 is {atomic.sha256(dataset / SHARD)}"
    )
    assert crc == (
        f"{SHARD}: record 2 at byte {second.offset}, id {second.record.id!r}: the CRC "
        "of its data does not match; what follows it was not read"
    )


@pytest.mark.parametrize("cut", [1, 5, 100, 3_000])
def test_a_truncated_shard(dataset: Path, cut: int) -> None:
    content = (dataset / SHARD).read_bytes()
    (dataset / SHARD).write_bytes(content[:-cut])
    size, end = problems(dataset)
    promised = f"has {len(content) - cut} bytes, dataset.json promises {len(content)}"
    assert size == f"{SHARD}: {promised}"
    assert re.match(rf"{SHARD}: record \d+ at byte \d+: .*the file ends", end)


def test_a_shard_cut_between_two_records(dataset: Path) -> None:
    *_, last = record.read(dataset / SHARD)
    (dataset / SHARD).write_bytes((dataset / SHARD).read_bytes()[: last.offset])
    size, count, *ledger = problems(dataset)
    assert size.startswith(f"{SHARD}: has {last.offset} bytes")
    assert count == (
        f"{SHARD}: has {last.number} records, dataset.json promises {last.number + 1}"
    )
    assert any("ledger.splits.train.written is 24;" in line for line in ledger)


def test_bytes_after_the_last_record(dataset: Path) -> None:
    with (dataset / SHARD).open("ab") as file:
        file.write(b"\0\0\0")
    lines = problems(dataset)
    assert "the file ends inside the header" in lines[1]
    assert {line.partition(":")[0] for line in lines} == {SHARD}


# ------------------------------------------------------------- files come and gone


def test_missing_shards_are_all_named(dataset: Path) -> None:
    for name in (SHARD, VALIDATION, TEST_SHARD):
        (dataset / name).unlink()
    expected = [f"{name}: is missing" for name in (SHARD, VALIDATION, TEST_SHARD)]
    assert problems(dataset) == expected
    assert problems(dataset, workers=2) == expected


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_something_else_in_place_of_a_shard(
    dataset: Path, make: Callable[[Path], None]
) -> None:
    (dataset / SHARD).unlink()
    make(dataset / SHARD)
    assert only_problem(dataset) == f"{SHARD}: cannot be read: it is no regular file"


@pytest.mark.parametrize(
    "name", ["train-00002-of-00002.tfrecord", ".DS_Store", "note.txt"]
)
def test_a_stray_file(dataset: Path, name: str) -> None:
    shutil.copy(dataset / SHARD, dataset / name)
    assert only_problem(dataset) == f"{name}: is no part of the dataset; remove it"


def test_a_work_folder_that_stayed(dataset: Path) -> None:
    (dataset / "_work").mkdir()
    assert only_problem(dataset).startswith("_work: left by a run that was stopped")


@pytest.mark.parametrize("other", [OTHER, VALIDATION, TEST_SHARD])
def test_swapped_shards(dataset: Path, other: str) -> None:
    (dataset / SHARD).rename(dataset / "aside")
    (dataset / other).rename(dataset / SHARD)
    (dataset / "aside").rename(dataset / other)
    lines = problems(dataset)
    for name in (SHARD, other):
        assert any(line.startswith(f"{name}: ") for line in lines)


def test_swapped_shards_with_swapped_promises(dataset: Path) -> None:
    """The ledger alone can tell."""
    content = {name: records(dataset / name) for name in (SHARD, VALIDATION)}
    write(dataset, SHARD, content[VALIDATION])
    write(dataset, VALIDATION, content[SHARD])
    lines = problems(dataset)
    assert any("ledger.splits.train.written is 24;" in line for line in lines)
    assert any("splits.validation.examples is 9;" in line for line in lines)


def test_shard_names_that_are_no_sequence(dataset: Path) -> None:
    (dataset / OTHER).unlink()
    edit(
        dataset / "dataset.json", lambda value: value["splits"]["train"]["shards"].pop()
    )
    assert problems(dataset)[0] == (
        f"dataset.json: shard 0 of the 1 of train is {SHARD}, "
        "not train-00000-of-00001.tfrecord"
    )


# ----------------------------------------------------- records, with good checksums


@pytest.mark.parametrize(("name", "number"), [(SHARD, 5), (OTHER, 3)])
def test_an_id_twice(dataset: Path, name: str, number: int) -> None:
    first = records(dataset / SHARD)[1].id
    replace(dataset, name, number, id=first)
    assert only_problem(dataset) == (
        f"{name}: record {number}, id {first!r}: its id is that of record 1 of "
        f"{SHARD}; each is to be once in train"
    )


def test_the_same_id_in_two_splits(dataset: Path) -> None:
    """Each split has its own root, so this is allowed."""
    replace(dataset, VALIDATION, 0, id=records(dataset / SHARD)[1].id)
    verify.run(dataset, workers=1)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"label": 3, "text": "x"}, "its label 3 is not from -1 to 2"),
        ({"label": -2}, "its label -2 is not from -1 to 2"),
        ({"label": 1, "text": "red"}, "its label 1 is 'green', its class 'red'"),
        ({"label": -1, "text": "red"}, "its label is -1 and its class 'red'"),
        ({"label": 2, "text": ""}, "its label is 2 and its class ''"),
        ({"height": 33}, "it says 33x40, dataset.json promises 32x40"),
        ({"width": 41}, "it says 32x41, dataset.json promises 32x40"),
        (
            {"encoded": jpeg(photo(0, 0, 40, 32))},
            "its image is 40x32, dataset.json promises 32x40 (height x width)",
        ),
        ({"encoded": b"no jpeg"}, "its image cannot be decoded: "),
        (
            {"encoded": jpeg(photo(0, 0, HEIGHT, WIDTH))[:-200]},
            "its image cannot be decoded: Premature end of JPEG file",
        ),
    ],
)
def test_a_wrong_record(dataset: Path, change: dict[str, Any], fault: str) -> None:
    before = replace(dataset, SHARD, 4, **change)
    line = problems(dataset)[0]
    assert line.startswith(f"{SHARD}: record 4, id {before.id!r}: {fault}")


def test_a_wrong_label_with_its_own_class(dataset: Path) -> None:
    """The record is right in itself; the ledger counts one too many."""
    number = [entry.text for entry in records(dataset / SHARD)].index("blue")
    replace(dataset, SHARD, number, label=2, text="red")
    lines = problems(dataset)
    assert lines == [
        "dataset.json: ledger.splits.train.classes.blue.listed is 8; the records and "
        "rejects.csv say 7",
        "dataset.json: ledger.splits.train.classes.blue.written is 8; the records and "
        "rejects.csv say 7",
        "dataset.json: ledger.splits.train.classes.red.listed is 9; the records and "
        "rejects.csv say 10",
        "dataset.json: ledger.splits.train.classes.red.written is 8; the records and "
        "rejects.csv say 9",
    ]


def test_an_image_that_is_no_jpeg_by_name(dataset: Path) -> None:
    content = (dataset / SHARD).read_bytes()
    length = int.from_bytes(content[:8], "little")
    payload = content[12 : 12 + length].replace(b"jpeg", b"webp")
    (dataset / SHARD).write_bytes(record.frame(payload) + content[16 + length :])
    promise(dataset, SHARD, len(records(dataset / SHARD)))
    assert only_problem(dataset).endswith("its format is 'webp', not 'jpeg'")


def test_a_missing_record(dataset: Path) -> None:
    write(dataset, SHARD, records(dataset / SHARD)[1:])
    lines = problems(dataset)
    assert (
        "dataset.json: splits.train.examples is 24; the records and rejects.csv say 23"
    ) in lines
    assert all(line.startswith("dataset.json: ") for line in lines)


def test_a_record_of_something_else(dataset: Path) -> None:
    (dataset / SHARD).write_bytes(record.frame(b"something else"))
    promise(dataset, SHARD, 1)
    assert problems(dataset) == [
        f"{SHARD}: record 0 at byte 0: it holds no tf.train.Example; what follows it "
        "was not read"
    ]


# ------------------------------------------------------------------ the small files


def test_classes_that_are_others(dataset: Path) -> None:
    (dataset / "classes.txt").write_text("blue\ngreen\nrot\n")
    assert "classes.txt is not the list that its manifest" in only_problem(dataset)


def test_classes_that_agree_with_the_checksum_alone(dataset: Path) -> None:
    names = ("blue", "red", "green")
    (dataset / "classes.txt").write_text(manifest.classes_text(names))
    edit(
        dataset / "dataset.json",
        lambda value: value.update(classes=manifest.classes_entry(names)),
    )
    assert any(
        "its label 1 is 'red', its class 'green'" in x for x in problems(dataset)
    )


REJECTS: dict[str, tuple[Callable[[str], str], str]] = {
    "a row less": (
        lambda text: text[: text.rindex("red/cut.jpg")],
        "splits.train.rejected is 1; the records and rejects.csv say 0",
    ),
    "a row more": (
        lambda text: f"{text}red/x.jpg,train,red,damaged,\n",
        "splits.train.rejected is 1; the records and rejects.csv say 2",
    ),
    "another class": (
        lambda text: text.replace("train,red", "train,blue"),
        "ledger.splits.train.classes.blue.rejected is 0; .* say 1",
    ),
    "another reason": (
        lambda text: text.replace("damaged", "empty"),
        r"ledger.splits.train.reasons.damaged is 1; .* say None",
    ),
    "another split": (
        lambda text: text.replace(",train,", ",validation,"),
        "splits.validation.rejected is 0; .* say 1",
    ),
    "no split": (
        lambda text: text.replace(",train,", ",trian,"),
        "rejects.csv: row 2, id 'red/cut.jpg': no split is 'trian'",
    ),
    "another header": (
        lambda text: text.replace("reason", "why", 1),
        "rejects.csv is damaged: its header is .*'why'",
    ),
    "a field more": (
        lambda text: f"{text}a,b,c,d,e,f\n",
        "rejects.csv is damaged: .* has 6 fields, not 5",
    ),
    "no content": (lambda text: "", r"rejects.csv is damaged: its header is \[\]"),
}


@pytest.mark.parametrize(("change", "message"), REJECTS.values(), ids=REJECTS)
def test_rejects_that_are_others(
    dataset: Path, change: Callable[[str], str], message: str
) -> None:
    path = dataset / "rejects.csv"
    before = path.read_text()
    path.write_text(change(before))
    assert path.read_text() != before
    assert any(re.search(message, line) for line in problems(dataset))


def test_no_rejects(dataset: Path) -> None:
    (dataset / "rejects.csv").unlink()
    assert f"{dataset / 'rejects.csv'} is missing" in only_problem(dataset)


def _in_ledger(*path: str, value: object) -> Callable[[dict[str, Any]], object]:
    def change(manifest: dict[str, Any]) -> None:
        entry = manifest["ledger"]["splits"]
        for key in path[:-1]:
            entry = entry[key]
        entry[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("train", "listed"), 26),
        (("train", "written"), 25),
        (("test", "rejected"), 0),
        (("train", "classes", "red", "listed"), 8),
        (("validation", "classes", "blue", "written"), 4),
        (("test", "classes", "", "rejected"), 2),
        (("train", "reasons", "damaged"), 2),
        (("train", "classes", "pink"), {"listed": 0, "written": 0, "rejected": 0}),
    ],
)
def test_a_ledger_that_does_not_balance(
    dataset: Path, path: tuple[str, ...], value: object
) -> None:
    edit(dataset / "dataset.json", _in_ledger(*path, value=value))
    line = only_problem(dataset)
    assert line.startswith(f"dataset.json: ledger.splits.{'.'.join(path)} is {value};")


def test_a_ledger_that_does_not_balance_beside_an_unreadable_shard(
    dataset: Path,
) -> None:
    """What cannot be counted is believed; the rest still has to add up."""
    edit(dataset / "dataset.json", _in_ledger("train", "listed", value=26))
    (dataset / SHARD).unlink()
    missing, ledger = problems(dataset)
    assert missing == f"{SHARD}: is missing"
    assert "ledger.splits.train.listed is 26;" in ledger


@pytest.mark.parametrize("key", ["classes", "image", "ledger", "splits"])
def test_a_manifest_that_lacks_something(dataset: Path, key: str) -> None:
    edit(dataset / "dataset.json", lambda value: value.pop(key))
    with pytest.raises(RunError, match=f"dataset.json is damaged: KeyError: '{key}'"):
        verify.run(dataset, workers=1)


def test_a_manifest_with_a_split_of_its_own(dataset: Path) -> None:
    edit(
        dataset / "dataset.json",
        lambda value: value["splits"].update(more=value["splits"]["test"]),
    )
    with pytest.raises(RunError, match=r"splits \{'more'\} are none of"):
        verify.run(dataset, workers=1)


def test_an_incomplete_dataset(dataset: Path) -> None:
    (dataset / "dataset.json").unlink()
    with pytest.raises(RunError, match=r"is incomplete: it has no dataset\.json"):
        verify.run(dataset, workers=1)


# ---------------------------------------------------------------------- the message


def test_many_problems_are_counted_and_no_shard_hides_another(dataset: Path) -> None:
    for name in (SHARD, OTHER, VALIDATION):
        content = records(dataset / name)
        write(dataset, name, [entry._replace(height=1) for entry in content])
    for index in range(20):
        (dataset / f"stray-{index:02d}\n").touch()
    *lines, rest = problems(dataset)
    assert len(lines) == 20
    assert lines[0] == r"stray-00\n: is no part of the dataset; remove it"
    assert rest == f"… and {24 + len(records(dataset / VALIDATION))} more"
    for path in dataset.glob("stray*"):
        path.unlink()
    found = {line.partition(":")[0] for line in problems(dataset)[:-1]}
    assert found == {SHARD, OTHER, VALIDATION}


def test_exit_codes(dataset: Path, program: Program) -> None:
    assert program("pipeline", "verify", f"--dataset={dataset}").returncode == 0
    (dataset / SHARD).unlink()
    result = program("pipeline", "verify", f"--dataset={dataset}", "--workers=2")
    assert result.returncode == 1
    assert f"error: DATASET {dataset} is not whole, 1 problem:\n" in result.stderr
    assert f"\n  {SHARD}: is missing\n" in result.stderr
    assert program("pipeline", "verify").returncode == 2


def kill_oneself(task: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker(made_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.dataset.shard_check.check", kill_oneself)
    with pytest.raises(RunError, match=r"a process of verify was killed.*--workers"):
        verify.run(made_dataset, workers=2)


def test_verify_imports_neither_tensorflow_nor_beam(made_dataset: Path) -> None:
    script = """
import sys
from pathlib import Path
from pipeline import verify

verify.run(Path(sys.argv[1]), workers=1)
print(sorted({"tensorflow", "keras", "apache_beam"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", script, made_dataset]
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert result.stdout.endswith("\n[]\n")
