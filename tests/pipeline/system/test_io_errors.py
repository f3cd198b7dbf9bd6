"""Errors of the system, real ones: what rejects a photo, passes, or stops a run."""

import contextlib
import csv
import errno
import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from pipeline.dataset import sidecar
from pipeline.dataset.manifest import MANIFEST, ImageContract
from pipeline.images import conversion, image_bytes
from pipeline.images.conversion import BadImage
from pipeline.runners import remote, remote_shards
from pipeline.shards import plan
from pipeline.sources.listing import ImageRef
from pipeline.storage import atomic
from pipeline.storage.noted_error import raising_noted_error
from pipeline.storage.resumable_folder import ResumableFolder
from pipeline.system import io_errors
from pipeline.system.errors import RunError, UnavailableError
from pipeline.system.io_errors import Action
from tests.support.files import REPOSITORY, tree
from tests.support.photos import HEIGHT, WIDTH
from tests.support.processes import Program

SIZE = (f"--height={HEIGHT}", f"--width={WIDTH}", "--max_reject_fraction=0.5")
SAID = "Input/output error"

Failing = Callable[..., None]


@pytest.mark.parametrize(
    ("number", "action"),
    [
        *((number, Action.REJECT) for number in (errno.ENOENT, errno.EACCES)),
        *((number, Action.REJECT) for number in (errno.EISDIR, errno.ELOOP)),
        *((number, Action.REJECT) for number in (errno.ENAMETOOLONG, errno.ENOTDIR)),
        *((number, Action.RETRY) for number in (errno.EIO, errno.ESTALE)),
        *((number, Action.RETRY) for number in (errno.ETIMEDOUT, errno.EAGAIN)),
        *((number, Action.RETRY) for number in (errno.EMFILE, errno.ENFILE)),
        *((number, Action.STOP) for number in (errno.ENOMEM, errno.ENOSPC)),
        *((number, Action.STOP) for number in (errno.EROFS, errno.EPERM)),
        (errno.ENOTRECOVERABLE, Action.STOP),  # of no list
    ],
)
def test_the_table(number: int, action: Action) -> None:
    assert io_errors.rule_of(OSError(number, os.strerror(number))).action is action


def test_what_no_system_said_is_of_the_content() -> None:
    assert io_errors.is_about_file(OSError("image file is truncated"))
    assert io_errors.is_about_file(OSError(0, "not a regular file"))
    assert not io_errors.is_about_file(MemoryError())


@pytest.mark.parametrize(
    ("make", "detail"),
    [
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.with_name("n" * 300), "File name too long"),
        (lambda path: path.touch() or path / "below", "Not a directory"),
        (lambda path: None, "No such file or directory"),
    ],
)
def test_a_file_that_is_at_fault(
    tmp_path: Path, make: Callable[[Path], Path | None], detail: str
) -> None:
    path = tmp_path / "photo.jpg"
    with pytest.raises(BadImage) as caught:
        image_bytes.read(str(make(path) or path))
    assert (caught.value.reason, caught.value.detail) == ("unreadable", detail)


@contextlib.contextmanager
def no_files_left(seconds: float) -> Iterator[None]:
    """Lets this process open no file for so long, or to the end of the block."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    timer = threading.Timer(
        seconds, lambda: resource.setrlimit(resource.RLIMIT_NOFILE, before)
    )
    timer.start()
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        timer.cancel()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def whole_photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"whole")
    return path


def test_an_error_that_passes_rejects_no_photo(whole_photo: Path) -> None:
    with no_files_left(seconds=0.5):
        assert image_bytes.read(str(whole_photo)) == b"whole"


def test_an_error_that_stays_stops_the_run(
    whole_photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(io_errors, "_FIRST_WAIT", 0.001)
    message = (
        rf"Too many open files: {whole_photo} \(tried 6 times in 0 s\)\. What was "
        r"committed is kept: allow more open files \(ulimit -n\).*"
        "run the same command again"
    )
    with (
        no_files_left(seconds=60),
        pytest.raises(UnavailableError, match=message),
    ):
        image_bytes.read(str(whole_photo))


def limited(code: str, *, memory: int) -> subprocess.CompletedProcess[str]:
    """Runs Python code in a process that may have so many bytes of memory more."""
    before = """
import resource
from pipeline.system import console
from pipeline.images import conversion, image_bytes
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
"""
    limit = f"resource.setrlimit(resource.RLIMIT_AS, (taken + {memory},) * 2)\n"
    return subprocess.run(
        [sys.executable, "-c", before + limit + code],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )


def test_no_memory_for_a_photo_stops_the_run(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.touch()
    os.truncate(path, 400_000_000)
    code = f"""
try:
    image_bytes.read({str(path)!r})
except console.RunError as error:
    print(error)
"""
    result = limited(code, memory=100_000_000)
    assert result.stdout.startswith(f"out of memory: {path}. What was committed is"), (
        result
    )
    assert "fewer --workers" in result.stdout


def test_a_photo_that_cannot_be_read_now(
    images: Path, tmp_path: Path, failing: Failing, program: Program
) -> None:
    """The run ends and names it; the next one has the bytes of an undisturbed one."""
    words = ("pipeline", f"--images={images}", *SIZE, "--workers=2", "--shards=2")
    undisturbed, made = tmp_path / "undisturbed", tmp_path / "made"
    assert program(*words, f"--dataset={undisturbed}").returncode == 0
    photo = images / "train" / "blue" / "03.jpg"
    failing(photo)
    result = program(*words, f"--dataset={made}")
    assert result.returncode == 1
    assert f"error: {SAID}: {photo} (tried 6 times in " in result.stderr
    assert "What was committed is kept" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (made / MANIFEST).exists()
    failing("nothing")
    result = program(*words, f"--dataset={made}")
    assert result.returncode == 0, result.stderr
    assert tree(made) == tree(undisturbed)


def test_a_photo_that_can_be_read_the_second_time(
    images: Path, tmp_path: Path, failing: Failing, program: Program
) -> None:
    failing(images / "test", errno.ESTALE, times=1)
    made = tmp_path / "made"
    result = program("pipeline", f"--images={images}", f"--dataset={made}", *SIZE)
    assert result.returncode == 0, result.stderr
    with (made / "rejects.csv").open(newline="") as file:
        reasons = {row["id"]: row["reason"] for row in csv.DictReader(file)}
    assert reasons == {"page.jpg": "not_an_image", "red/cut.jpg": "damaged"}


@pytest.mark.integration
def test_a_worker_elsewhere_leaves_its_message(
    images: Path, tmp_path: Path, failing: Failing
) -> None:
    """Whatever a runner makes of the error of a worker, the launcher has its text."""
    photo, folder = images / "train" / "blue" / "03.jpg", tmp_path / "dataset"
    output = ResumableFolder(folder, manifest=MANIFEST)
    output.start({"versions": conversion.versions()})
    refs = [ImageRef("03.jpg", str(photo), "blue", "train")]
    (name,) = plan.write_plan(folder, {"train": [refs]}, ["blue"])
    failing(photo)
    remote_shards.pool.cache_clear()  # its children began before that
    contract = ImageContract(height=HEIGHT, width=WIDTH)

    def run() -> None:
        with raising_noted_error(output):
            try:
                remote.in_worker(
                    atomic.run_id(),
                    folder,
                    partial(
                        remote_shards.write_in_worker,
                        folder=str(folder),
                        contract=contract,
                        image_timeout=60,
                    ),
                    name,
                )
            except UnavailableError as error:
                raise RunError("the job failed on another's runner") from error

    with pytest.raises(RunError, match=f"^{SAID}: {photo}"):
        run()
    assert sidecar.read_note(folder, name) is None


@pytest.mark.integration
def test_photos_to_predict(images: Path, failing: Failing) -> None:
    from predictor.inputs.photo_decoding import Decoders

    photo = images / "test" / "photo 3.jpg"
    failing(photo)
    decoders = Decoders(ImageContract(height=HEIGHT, width=WIDTH), count=1)
    uris = [str(images / "test" / f"photo {index}.jpg") for index in range(5)]
    try:
        with pytest.raises(UnavailableError, match=f"{SAID}: {photo}"):
            list(decoders.decode(uris))
    finally:
        decoders.end()


@pytest.mark.parametrize(
    ("name", "workers"), [("train-00001-of-00002.tfrecord", 2), ("rejects.csv", 1)]
)
def test_verify_says_nothing_of_what_it_cannot_read(
    made_dataset: Path, failing: Failing, program: Program, name: str, workers: int
) -> None:
    failing(made_dataset / name)
    result = program(
        "pipeline", "verify", f"--dataset={made_dataset}", f"--workers={workers}"
    )
    assert result.returncode == 1
    assert f"error: {SAID}: {made_dataset / name} (tried 6" in result.stderr
    assert "not whole" not in result.stderr
    assert "Traceback" not in result.stderr


def test_verify_tries_again(
    made_dataset: Path, failing: Failing, program: Program
) -> None:
    failing(made_dataset / "train-0", times=2)
    result = program("pipeline", "verify", f"--dataset={made_dataset}")
    assert result.returncode == 0, result.stderr
    assert "is whole" in result.stdout


READ_SHARDS = """
import sys
from pathlib import Path
from pipeline.system import io_errors
from pipeline.dataset import manifest
from pipeline.system.console import RunError
from trainer.data import input_pipeline as data
from trainer.data import verified_shards

io_errors._FIRST_WAIT = 0.01

dataset = manifest.load(Path(sys.argv[1]))
try:
    with verified_shards.naming_damage(dataset):
        for batch in data.for_training(dataset, batch_size=4, seed=1).take(8):
            pass
except RunError as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.mark.integration
@pytest.mark.parametrize("call", ["read", "pread"])
def test_training_names_the_shard(
    made_dataset: Path, failing: Failing, call: str
) -> None:
    """`read` is ours, for the checksum; `pread` TensorFlow's, of a whole shard."""
    shard_path = made_dataset / "train-00001-of-00002.tfrecord"
    failing(shard_path, call=call)
    words = [sys.executable, "-c", READ_SHARDS, str(made_dataset)]
    result = subprocess.run(
        words, capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    message = f"UnavailableError: {SAID}: {shard_path}"
    assert result.stdout.startswith(message), result.stderr


READ_STATE = """
import sys
from pathlib import Path
from pipeline.system import io_errors
from pipeline.system.console import RunError
from trainer.training import checkpoint

io_errors._FIRST_WAIT = 0.01

try:
    checkpoint.read(Path(sys.argv[1]))
except RunError as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.mark.integration
def test_a_state_that_cannot_be_read_is_not_called_damaged(
    tmp_path: Path, failing: Failing
) -> None:
    import numpy as np

    path = tmp_path / "state.npz"
    np.savez(path, state=np.array(json.dumps({"key": {}})))
    failing(path)
    result = subprocess.run(
        [sys.executable, "-c", READ_STATE, str(path)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert result.stdout.startswith(f"UnavailableError: {SAID}: {path} (tried 6"), (
        result.stderr
    )


USE_CACHE = """
import sys
from pathlib import Path
import numpy as np
from pipeline.system import io_errors
from pipeline.system.console import RunError
from trainer.cache import on_disk
from trainer.cache.content import Content

io_errors._FIRST_WAIT = 0.01

def batches(first):
    print("made", flush=True)
    yield from [{"labels": np.arange(12)}][first:]

columns = {"labels": (np.int64, ())}
content = Content(
    what="labels", key={}, columns=columns, rows=12, part_rows=12, batches=batches
)
try:
    print(on_disk.fill(content, Path(sys.argv[1]))["labels"].sum())
except RunError as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.mark.integration
def test_a_cache_that_cannot_be_read_is_not_made_anew(
    tmp_path: Path, failing: Failing
) -> None:
    words = [sys.executable, "-c", USE_CACHE, str(tmp_path / "cache")]

    def use() -> str:
        return subprocess.run(
            words, capture_output=True, text=True, cwd=REPOSITORY, check=False
        ).stdout

    assert use() == "made\n66\n"
    os.utime(tmp_path / "cache" / "labels.npy")  # it may be another file: it is read
    failing(tmp_path / "cache" / "labels.npy", call="read")
    message = f"UnavailableError: {SAID}: {tmp_path}/cache/labels.npy (tried 6"
    assert use().startswith(message)


@pytest.mark.parametrize(
    "words",
    [
        ("pipeline", "verify", f"--dataset={'d' * 300}"),
        ("pipeline", "--images=" + "i" * 300, "--dataset=x"),
        ("pipeline", "--images=" + "i/" * 3000, "--dataset=x"),
        ("predictor", "verify", f"--predictions={'p' * 300}"),
    ],
)
def test_a_path_that_is_too_long_is_no_defect(
    program: Program, words: tuple[str, ...]
) -> None:
    result = program(*words)
    assert result.returncode == 1
    assert result.stderr.startswith("error: File name too long: ")
    assert "correct the path" in result.stderr
    assert "Traceback" not in result.stderr
