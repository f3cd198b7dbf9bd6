"""Child processes: answers and errors, their death, their parent's, Ctrl-C; pools."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from pipeline.images.conversion import BadImage
from pipeline.system import child_process
from pipeline.system.child_process import Child, ChildLostError, ChildPool
from pipeline.system.errors import RunError
from tests.support.files import REPOSITORY
from tests.support.processes import children

SECONDS = 60  # for processes to start, or to end


class TwoArgumentsError(Exception):
    """It can be pickled, but not unpickled."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(f"{text} {number}")


class Obey:
    """Does as each request says."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def __call__(self, request: str) -> object:
        word, _, rest = request.partition(" ")
        if word == "exit":
            print("about to exit", file=sys.stderr)
            os._exit(int(rest))
        if word == "sleep":
            time.sleep(float(rest))
        if word == "at":
            child_process.at(int(rest))
            time.sleep(600)
        if word == "bad":
            raise BadImage("damaged", rest)
        if word == "disk":
            raise OSError(28, "No space left on device", rest)
        if word == "lambda":
            error = ValueError(rest)
            error.hook = lambda: None
            raise error
        if word == "arguments":
            raise TwoArgumentsError(rest, 1)
        return "x" * int(rest) if word == "big" else self._prefix + request


def fail_to_begin() -> None:
    raise RunError("nothing works here")


@pytest.fixture
def child() -> Iterator[Child[str, str]]:
    child: Child[str, str] = Child(Obey, "> ")
    yield child
    child.end()


@pytest.fixture
def pool() -> Iterator[ChildPool]:
    pool = ChildPool(2)
    yield pool
    pool.end()


def runs(process: int) -> bool:
    return os.path.exists(f"/proc/{process}/exe")  # of a zombie a broken link


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_answers_come_in_the_order_of_the_requests(child: Child[str, str]) -> None:
    requests = [f"request {n}" for n in range(20)]
    for request in requests:
        child.ask(request)
    assert [child.answer() for _ in requests] == [f"> {text}" for text in requests]


def test_answers_larger_than_the_pipe(child: Child[str, str]) -> None:
    for _ in range(8):
        child.ask("big 1000000")
    assert [len(child.answer()) for _ in range(8)] == [1_000_000] * 8


@pytest.mark.parametrize(
    ("request_", "kind", "attributes"),
    [
        ("bad cut short", BadImage, {"reason": "damaged", "detail": "cut short"}),
        ("disk a.csv", OSError, {"errno": 28, "filename": "a.csv"}),
    ],
)
def test_errors_are_raised_here_and_it_goes_on(
    child: Child[str, str], request_: str, kind: type, attributes: dict
) -> None:
    child.ask(request_)
    child.ask("next")
    with pytest.raises(kind) as raised:
        child.answer()
    assert {name: getattr(raised.value, name) for name in attributes} == attributes
    assert "in __call__" in raised.value.__notes__[0]  # where it was raised
    assert child.answer() == "> next"


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ("lambda no luck", "ValueError: no luck"),
        ("arguments no luck", "TwoArgumentsError: no luck 1"),
    ],
)
def test_errors_that_cannot_be_handed_over_come_as_text(
    child: Child[str, str], request_: str, message: str
) -> None:
    child.ask(request_)
    child.ask("next")
    with pytest.raises(RuntimeError, match=message):
        child.answer()
    assert child.answer() == "> next"


@pytest.mark.parametrize(
    ("end", "message", "by_itself"),
    [
        (
            lambda child: child.ask("exit 7"),
            "the process ended: exit code 7, and said: about to exit",
            True,
        ),
        (lambda child: os.kill(child.pid, signal.SIGKILL), "ended: SIGKILL$", False),
        (lambda child: os.kill(child.pid, signal.SIGSEGV), "ended: SIGSEGV$", True),
    ],
)
def test_a_death_is_noticed(
    child: Child[str, str], end: Callable, message: str, by_itself: bool
) -> None:
    """Whoever waits, and whoever asks: with requests under way, too."""
    child.ask("first")
    assert child.answer() == "> first"
    end(child)
    with pytest.raises(ChildLostError, match=message) as raised:
        child.answer()
    assert (raised.value.by_itself, raised.value.item) == (by_itself, None)
    with pytest.raises(ChildLostError, match=message):
        child.ask("another")


def test_what_was_answered_before_the_death_is_not_lost(
    child: Child[str, str],
) -> None:
    for request in ("one", "two", "exit 1", "three"):
        child.ask(request)
    assert [child.answer(), child.answer()] == ["> one", "> two"]
    with pytest.raises(ChildLostError, match="exit code 1"):
        child.answer()


def test_it_may_not_be_long_at_one_item(child: Child[str, str]) -> None:
    child.ask("at 17")
    with pytest.raises(ChildLostError, match=r"no result in 0\.5 s") as raised:
        child.answer(seconds=0.5)
    assert (raised.value.item, raised.value.by_itself) == (17, True)
    child.end()
    wait_until(lambda: not os.path.exists(f"/proc/{child.pid}"))


def test_at_no_item_it_may_take_its_time(child: Child[str, str]) -> None:
    child.ask("sleep 2")
    assert child.answer(seconds=0.5) == "> sleep 2"


def test_the_item_at_which_it_dies_is_known(child: Child[str, str]) -> None:
    child.ask("at 17")
    wait_until(lambda: child.item()[0] == 17)
    os.kill(child.pid, signal.SIGSEGV)
    with pytest.raises(ChildLostError) as raised:
        child.answer()
    assert (raised.value.item, raised.value.ending) == (17, "SIGSEGV")


def test_what_does_not_begin_is_lost_at_no_item() -> None:
    child: Child[str, str] = Child(os._exit, 7)
    with pytest.raises(ChildLostError, match="exit code 7") as raised:
        child.answer()
    assert raised.value.item is None
    child.end()


def test_ended_twice_is_ended(child: Child[str, str]) -> None:
    child.end()


def test_it_imports_nothing_of_the_main_module(tmp_path: Path) -> None:
    """As where Beam's worker is the main module: 1 s and 100 MB."""
    (tmp_path / "large.py").write_text(
        "from pipeline.system.child_process import ChildPool\n"
        "from tests.pipeline.system.test_child_process import modules\n"
        "pool = ChildPool(1)\n"
        "print('large' in pool.call(modules))\n"
        "pool.end()\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "large"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "False\n", result.stderr


def modules() -> list[str]:
    return list(sys.modules)


PARENT = """
import ctypes, sys, time
from functools import partial
from tests.pipeline.system import test_child_process as tests
from pipeline.system.child_process import Child

child = Child(tests.Obey, "> ")
child.ask("sleep 0")
if {wait}:
    child.answer()
{then}
print(child.pid, flush=True)
time.sleep(600)
"""


def start(wait: bool, then: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PARENT.format(wait=wait, then=then)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    "then",
    [
        "",
        "for _ in range(9): child.ask('big 1000000')",  # it waits for a reader
        "child.ask('sleep 600')",  # it looks at no pipe
        # It holds Python's lock: no thread of its own would see the end of its parent.
        "child = Child(tests.hold_the_lock)",
        # Killed while it sends a request: a length, and less than that.
        "import os; os.write(child._here.fileno(), bytes([0, 0, 0, 99, 1]))",
    ],
)
def test_it_ends_with_a_parent_that_is_killed(then: str) -> None:
    parent = start(True, then)
    process = int(parent.stdout.readline())
    time.sleep(0.5)  # now it is at its request
    below = children(parent.pid)
    assert process in below
    parent.kill()
    _, errors = parent.communicate(timeout=SECONDS)
    wait_until(lambda: not any(map(runs, below)))
    assert errors == ""


def hold_the_lock() -> None:
    ctypes.PyDLL(None).sleep(600)


@pytest.mark.parametrize("moment", [0, 0.1, 1])
def test_it_is_deaf_to_interrupts(moment: float) -> None:
    """From its start on; and it says nothing."""
    parent = start(wait=False)
    process = int(parent.stdout.readline())
    time.sleep(moment)
    os.kill(process, signal.SIGINT)
    time.sleep(0.5)
    alive = runs(process)
    parent.kill()
    _, errors = parent.communicate(timeout=SECONDS)
    wait_until(lambda: not runs(process))
    assert errors == ""
    assert alive


def test_who_started_it_still_hears_them(child: Child[str, str]) -> None:
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_pool_keeps_its_children(pool: ChildPool) -> None:
    assert len({pool.call(os.getpid) for _ in range(5)}) == 1
    assert pool.call(os.getpid, fresh=True) != pool.call(os.getpid, fresh=True)


def test_a_pool_has_no_more_children_than_it_may(
    pool: ChildPool, tmp_path: Path
) -> None:
    """Whatever the number of threads that want one."""
    with ThreadPoolExecutor(8) as threads:
        tasks = [partial(most_at_once, tmp_path) for _ in range(16)]
        assert max(threads.map(pool.call, tasks)) == 2
    assert len(set(children(os.getpid()))) >= 2


def most_at_once(folder: Path) -> int:
    mark = folder / str(os.getpid())
    mark.touch()
    time.sleep(0.2)
    count = len(list(folder.iterdir()))
    mark.unlink()
    return count


def test_a_child_without_work_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "_IDLE_SECONDS", 1.0)
    pool = ChildPool(1)
    first = pool.call(os.getpid)
    wait_until(lambda: not runs(first))
    assert pool.call(os.getpid) != first
    pool.end()


def test_a_lost_child_is_replaced(pool: ChildPool) -> None:
    process = pool.call(os.getpid)
    with pytest.raises(ChildLostError, match="SIGKILL"):
        pool.call(partial(os.kill, process, signal.SIGKILL))
    assert pool.call(os.getpid) != process


def test_the_end_of_a_pool_ends_whoever_waits(pool: ChildPool) -> None:
    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(pool.call, partial(time.sleep, 600)) for _ in "123"]
        wait_until(lambda: len(pool._busy) == 2)
        below = [child.pid for child in pool._busy]
        pool.end()
        errors = [one.exception(timeout=SECONDS) for one in waiting]
    assert {type(error) for error in errors} == {ChildLostError, RuntimeError}
    assert not any(map(runs, below))
    with pytest.raises(RuntimeError, match="has ended"):
        pool.call(os.getpid)


def test_children_that_cannot_work_say_so() -> None:
    pool = ChildPool(1, begin=fail_to_begin)
    with pytest.raises(RunError, match="nothing works here"):
        pool.call(os.getpid)
    pool.end()


def square(number: int) -> int:
    return number**2


def fail(number: int) -> int:
    raise ValueError(f"no {number}")


def kill_oneself(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def note_oneself(task: tuple[Path, float]) -> None:
    """Leaves a file with the name of the process, and takes its time."""
    folder, seconds = task
    (folder / str(os.getpid())).touch()
    time.sleep(seconds)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers: int) -> None:
    found = child_process.each(square, range(7), workers=workers, of="squares")
    assert list(found) == [0, 1, 4, 9, 16, 25, 36]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_task_raises_is_raised(workers: int) -> None:
    with pytest.raises(ValueError, match="no 0"):
        list(child_process.each(fail, [0, 1], workers=workers, of="squares"))


def test_a_killed_process() -> None:
    message = r"a process of squares was killed .*SIGKILL.*--workers"
    with pytest.raises(RunError, match=message):
        list(child_process.each(kill_oneself, [0, 1], workers=2, of="squares"))


def test_left_early_nothing_is_left(tmp_path: Path) -> None:
    tasks = [(tmp_path, 0.0), (tmp_path, 600.0), (tmp_path, 600.0)]
    found = child_process.each(note_oneself, tasks, workers=2, of="notes")
    with contextlib.closing(found):
        next(found)
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    assert not any(runs(int(file.name)) for file in tmp_path.iterdir())


def test_no_process_outlives_its_parent(tmp_path: Path) -> None:
    """Killed by `kill -9`, with one process at work and one that waits for a task."""
    script = """
import sys
from pathlib import Path
from pipeline.system import child_process
from tests.pipeline.system.test_child_process import note_oneself

folder = Path(sys.argv[1])
tasks = [(folder, 0.5), (folder, 600)]
list(child_process.each(note_oneself, tasks, workers=2, of="notes"))
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    try:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
        processes = [int(file.name) for file in tmp_path.iterdir()]
        time.sleep(1)  # now one of them waits
        assert all(map(runs, processes))
    finally:
        parent.kill()
        parent.wait()
    try:
        wait_until(lambda: not any(map(runs, processes)))
    finally:
        for process in filter(runs, processes):
            os.kill(process, signal.SIGKILL)
