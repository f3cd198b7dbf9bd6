"""Who holds an output folder: refused, left, killed, forked, without locks."""

import contextlib
import errno
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.storage import atomic, folder_lock
from pipeline.storage.object_paths import ObjectPath
from pipeline.storage.resumable_folder import WORK, ResumableFolder
from pipeline.system.errors import RunError
from tests.support.files import REPOSITORY

# Holds the folder of its argument until it is told to end, or is killed.
HOLDER = """
import sys
from pathlib import Path
from pipeline.storage import folder_lock

{before}
with folder_lock.held(Path(sys.argv[1]), notes="_work"):
    {within}
    print("held", flush=True)
    sys.stdin.read()
"""


def start(
    folder: Path | str, *, before: str = "", within: str = ""
) -> subprocess.Popen[str]:
    """Another process that holds a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER.format(before=before, within=within), folder],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    line = process.stdout.readline()
    assert line == "held\n", line
    return process


@contextlib.contextmanager
def holding(folder: Path, **options: str) -> Iterator[subprocess.Popen[str]]:
    process = start(folder, **options)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def left_by_a_dead_run(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".scratch-0123456789ab-01234567-x.bin"
    path.touch()
    return path


# ----------------------------------------------------------------------- refused


def test_a_second_run_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    with holding(tmp_path / "made") as process:
        message = (
            rf"made is in use: another run \(host {platform.node()}, pid {process.pid},"
            r" since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\) writes there\. Wait for its end"
        )
        with pytest.raises(RunError, match=message):  # noqa: SIM117
            with folder_lock.held(tmp_path / "made", notes=WORK):
                pass
        process.communicate("")
    with folder_lock.held(tmp_path / "made"):
        pass


@pytest.mark.parametrize("link", [False, True])
def test_the_folder_is_locked_whatever_it_is_called(tmp_path: Path, link: bool) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "link").symlink_to("made")
    other = tmp_path / "link" if link else tmp_path / "x" / ".." / "made"
    with holding(other), pytest.raises(RunError, match="made is in use"):  # noqa: SIM117
        with folder_lock.held(tmp_path / "made"):
            pass


def test_the_note_of_a_dead_run_is_not_taken_for_the_holders(tmp_path: Path) -> None:
    """The note comes after the lock: in between, there is that of a killed run."""
    (tmp_path / WORK).mkdir()
    dead = {"host": platform.node(), "pid": 2**22 + 1, "since": "long ago"}
    (tmp_path / WORK / ".holder.json").write_text(json.dumps(dead))
    late = "import threading; sign = folder_lock.note_holder\n"
    late += "folder_lock.note_holder = lambda folder: threading.Timer(0.4, sign, "
    late += "[folder]).start()"
    with holding(tmp_path, before=late) as process:
        message = f"pid {process.pid}"
        with (
            pytest.raises(RunError, match=message),
            folder_lock.held(tmp_path, notes=WORK),
        ):
            pass


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "made").write_text("precious")
    for path in (tmp_path / "made", tmp_path / "made" / "deeper"):
        with (
            pytest.raises(RunError, match="is a file; name a folder"),
            folder_lock.held(path),
        ):
            pass
    assert (tmp_path / "made").read_text() == "precious"


# -------------------------------------------------------------------------- left


def test_nothing_is_left_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "made"
    with folder_lock.held(folder, notes=WORK):
        assert json.loads((folder / WORK / ".holder.json").read_text())["pid"] == (
            os.getpid()
        )
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_or_was_made_stays(tmp_path: Path) -> None:
    (tmp_path / "made" / WORK).mkdir(parents=True)
    with folder_lock.held(tmp_path / "made", notes=WORK):
        pass
    assert list((tmp_path / "made" / WORK).iterdir()) == []
    with folder_lock.held(tmp_path / "other", notes=WORK):
        (tmp_path / "other" / "x").touch()
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["x"]


def test_within_it_a_second_time_is_none(tmp_path: Path) -> None:
    with folder_lock.held(tmp_path), folder_lock.held(tmp_path):
        pass
    with holding(tmp_path):
        pass


def test_a_complete_folder_is_the_same_afterwards(tmp_path: Path) -> None:
    output = ResumableFolder(tmp_path / "made", manifest="m.json")
    with folder_lock.held(output.folder, notes=WORK):
        output.start({"a": 1})
        output.finish({"a": 1})
    assert [path.name for path in output.folder.iterdir()] == ["m.json"]
    with folder_lock.held(output.folder, notes=WORK):
        assert output.start({"a": 1})
    assert [path.name for path in output.folder.iterdir()] == ["m.json"]


def test_the_holder_is_noted_again_when_an_earlier_run_was_removed(
    tmp_path: Path,
) -> None:
    output = ResumableFolder(tmp_path / "made", manifest="m.json")
    with folder_lock.held(output.folder, notes=WORK):
        output.start({"a": 1})
        output.clear()
        output.start({"a": 2})
        assert (output.work / ".holder.json").is_file()


def test_a_folder_that_its_maker_removed_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened here, removed there, locked here: the lock would be of nothing."""
    folder, real = tmp_path / "made", os.open

    def slow(path: Path, *rest: int) -> int:
        descriptor = real(path, *rest)
        if path == folder and not list(tmp_path.glob("once")):
            (tmp_path / "once").touch()
            folder.rmdir()
        return descriptor

    monkeypatch.setattr(os, "open", slow)
    with folder_lock.held(folder):
        monkeypatch.undo()
        assert folder.is_dir()
        with pytest.raises(AssertionError, match="held"):  # it is refused
            start(folder)


# ------------------------------------------------------------------------ killed

CHILDREN = {
    "program": "import subprocess; subprocess.Popen(['sleep', '60'], stdout=-3)",
    "spawned": "import multiprocessing as m, time\n"
    "    m.get_context('spawn').Process(target=time.sleep, args=(60,)).start()",
    "forked": "import os, time\n"
    "    if not os.fork():\n"
    "        os.close(1); time.sleep(60); os._exit(0)",
    "forked, at its end": "import os\n    if not os.fork(): sys.exit()",
}


@pytest.mark.parametrize("child", CHILDREN)
def test_children_do_not_hold_it(tmp_path: Path, child: str) -> None:
    process = start(tmp_path / "made", within=CHILDREN[child])
    time.sleep(0.5)  # for a child that ends
    with (
        pytest.raises(RunError, match="is in use"),
        folder_lock.held(tmp_path / "made"),
    ):
        pass
    process.kill()
    process.wait()
    try:
        with folder_lock.held(tmp_path / "made"):
            pass
    finally:
        for found in Path("/proc").glob("[0-9]*/cwd"):
            with contextlib.suppress(OSError):
                command = (found.parent / "cmdline").read_bytes()
                if str(tmp_path).encode() in command:
                    os.kill(int(found.parent.name), signal.SIGKILL)


# ----------------------------------------------------------------- scratch files


def test_with_the_lock_what_others_left_is_a_dead_runs(tmp_path: Path) -> None:
    left = left_by_a_dead_run(tmp_path / WORK)
    with folder_lock.held(tmp_path, notes=WORK):
        folder_lock.remove_scratch(tmp_path / WORK)
    assert not left.exists()


def test_without_it_only_ones_own_go(tmp_path: Path) -> None:
    left = left_by_a_dead_run(tmp_path)
    own = atomic.commit_path(tmp_path / "y").__enter__()
    own.touch()
    folder_lock.remove_scratch(tmp_path)
    assert left.exists()
    assert not own.exists()


def test_what_another_machine_may_be_writing_is_spared_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On NFS a lock of a folder does not reach other machines."""
    left = left_by_a_dead_run(tmp_path)
    value = {"host": "elsewhere", "pid": 7, "since": "noon", "run": "0123456789ab"}
    (tmp_path / ".holder.json").write_text(json.dumps(value))
    other = tmp_path / ".scratch-ba9876543210-01234567-x.bin"
    other.touch()
    with folder_lock.held(tmp_path):
        folder_lock.remove_scratch(tmp_path)
    assert left.exists()
    assert not other.exists()
    said = capsys.readouterr().err
    assert said.startswith("warning: another run (host elsewhere")
    assert f"(host elsewhere, pid 7, since noon) has not left {tmp_path}" in said
    with folder_lock.held(tmp_path):
        folder_lock.remove_scratch(tmp_path)
    assert not left.exists()


def test_two_runs_have_two_ids_and_their_children_have_them(tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-c",
        "from pipeline.storage import atomic; print(atomic.run_id())",
    ]
    seen = set()
    for _ in range(2):
        with folder_lock.held(tmp_path):
            child = subprocess.run(words, capture_output=True, text=True, check=True)
            assert child.stdout.strip() == atomic.run_id()
            seen.add(atomic.run_id())
    assert len({*seen, atomic.run_id()}) == 3


JOB = """
import functools
import sys
from pathlib import Path
from pipeline.storage import atomic
from pipeline.runners import execution
from pipeline.runners.remote import in_worker
from pipeline.beam_job import Job

folder, *arguments = sys.argv[1:]

def note(name):
    from pathlib import Path
    from pipeline.storage import atomic
    Path(folder, name).write_text(atomic.run_id())

with atomic.new_run():
    of_run = functools.partial(in_worker, atomic.run_id(), Path(folder), note)
    job = Job(["part"], of_run, functools.partial(of_run, "complete"))
    options = execution.engine_options("PortableRunner", arguments, 1, {})
    with execution.runner_there(options) as runner:
        execution.run_there(job, options, runner).wait_until_finish()
    print(atomic.run_id())
"""


def test_workers_that_others_started_write_for_the_run(
    cluster: tuple[str, ...], tmp_path: Path
) -> None:
    """They do not inherit its environment: a pool started them."""
    job = subprocess.run(
        [sys.executable, "-c", JOB, tmp_path, *cluster],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert job.returncode == 0, job.stderr
    for name in ("part", "complete"):
        assert (tmp_path / name).read_text() == job.stdout.strip()


# ----------------------------------------------------------------- without locks


@pytest.mark.parametrize(
    "code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF]
)
def test_a_file_system_without_locks_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int,
) -> None:
    def flock(descriptor: int, kind: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    left = left_by_a_dead_run(tmp_path / WORK)
    with folder_lock.held(tmp_path, notes=WORK):
        folder_lock.remove_scratch(tmp_path / WORK)
    assert left.exists()  # it may be a living run's
    assert capsys.readouterr().out == (
        f"note: {tmp_path} is on a file system without locks ({os.strerror(code)}): it "
        "cannot be told whether another run writes there\n"
    )


def test_of_a_store_one_machine_is_locked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ObjectPath(f"s3://tests/{tmp_path.name}")
    with folder_lock.held(folder, notes=WORK):
        said = capsys.readouterr().out
        assert f"{folder} is in an object store, which has no locks: it cannot" in said
        code = (
            "from pipeline.storage import folder_lock, object_paths\n"
            f"folder = object_paths.locate('{folder}')\n"
            f"folder_lock.held(folder, notes='{WORK}').__enter__()"
        )
        other = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
    assert f"{folder} is in use: another run (host " in other.stderr
    assert f"pid {os.getpid()}" in other.stderr


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ObjectPath, Path]:
    """A folder of a store, and the one among temporary files that is locked for it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = ObjectPath("s3://tests/private")
    with folder_lock.held(folder, notes=WORK):
        (found,) = tmp_path.glob("vgg16-lock-*")
        assert found.stat().st_mode & 0o777 == 0o700
    assert not found.exists()
    return folder, found


def test_a_planted_link_is_refused(
    place: tuple[ObjectPath, Path], tmp_path: Path
) -> None:
    """It would lead the note of the holder into a file of one's own."""
    folder, planted = place
    mine = tmp_path / "mine"
    (mine / WORK).mkdir(parents=True)
    (mine / WORK / ".holder.json").write_text("a thesis")
    planted.symlink_to(mine)
    with (
        pytest.raises(RunError, match=r"is locked by .*that is a link.*TMPDIR"),
        folder_lock.held(folder, notes=WORK),
    ):
        pass
    assert (mine / WORK / ".holder.json").read_text() == "a thesis"


@pytest.mark.skipif(os.getuid() != 0, reason="giving a folder away needs root")
def test_a_planted_folder_is_refused(place: tuple[ObjectPath, Path]) -> None:
    folder, planted = place
    planted.mkdir()
    os.chown(planted, 12345, 12345)
    with (
        pytest.raises(RunError, match=r"a folder of another user \(uid 12345\)"),
        folder_lock.held(folder, notes=WORK),
    ):
        pass
