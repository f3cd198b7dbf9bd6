"""A process that answers: its errors, its death, its parent's death, Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from pipeline.images.conversion import BadImage
from predictor.processes.request_process import RequestProcess, WorkerLostError
from tests.support.files import REPOSITORY
from tests.support.processes import children


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
            os._exit(int(rest))
        if word == "sleep":
            time.sleep(float(rest))
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


@pytest.fixture
def worker() -> Iterator[RequestProcess[str, str]]:
    worker: RequestProcess[str, str] = RequestProcess(Obey, "> ")
    yield worker
    worker.end()


def pid(worker: RequestProcess) -> int:
    return worker._process.pid


def gone(process: int) -> bool:
    """Whether it is, or will soon be."""
    deadline = time.monotonic() + 30
    while os.path.exists(f"/proc/{process}"):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_answers_come_in_the_order_of_the_requests(
    worker: RequestProcess[str, str],
) -> None:
    requests = [f"request {n}" for n in range(20)]
    for request in requests:
        worker.ask(request)
    assert [worker.answer() for _ in requests] == [f"> {text}" for text in requests]


def test_answers_larger_than_the_pipe(worker: RequestProcess[str, str]) -> None:
    for _ in range(8):
        worker.ask("big 1000000")
    assert [len(worker.answer()) for _ in range(8)] == [1_000_000] * 8


@pytest.mark.parametrize(
    ("request_", "kind", "attributes"),
    [
        ("bad cut short", BadImage, {"reason": "damaged", "detail": "cut short"}),
        ("disk a.csv", OSError, {"errno": 28, "filename": "a.csv"}),
    ],
)
def test_errors_are_raised_here_and_it_goes_on(
    worker: RequestProcess[str, str], request_: str, kind: type, attributes: dict
) -> None:
    worker.ask(request_)
    worker.ask("next")
    with pytest.raises(kind) as raised:
        worker.answer()
    assert {name: getattr(raised.value, name) for name in attributes} == attributes
    assert worker.answer() == "> next"


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ("lambda no luck", "ValueError: no luck"),
        ("arguments no luck", "TwoArgumentsError: no luck 1"),
    ],
)
def test_errors_that_cannot_be_handed_over_come_as_text(
    worker: RequestProcess[str, str], request_: str, message: str
) -> None:
    worker.ask(request_)
    worker.ask("next")
    with pytest.raises(RuntimeError, match=f"{message}$"):
        worker.answer()
    assert worker.answer() == "> next"


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (lambda worker: worker.ask("exit 7"), "the process ended: exit code 7"),
        (lambda worker: os.kill(pid(worker), signal.SIGKILL), "ended: SIGKILL"),
        (lambda worker: os.kill(pid(worker), signal.SIGSEGV), "ended: SIGSEGV"),
    ],
)
def test_a_death_is_noticed(
    worker: RequestProcess[str, str], end: Callable, message: str
) -> None:
    """Whoever waits, and whoever asks: with requests under way, too."""
    worker.ask("first")
    assert worker.answer() == "> first"
    end(worker)
    with pytest.raises(WorkerLostError, match=message) as raised:
        worker.answer()
    assert not raised.value.late
    with pytest.raises(WorkerLostError, match=message):
        worker.ask("another")


def test_what_was_answered_before_the_death_is_not_lost(
    worker: RequestProcess[str, str],
) -> None:
    for request in ("one", "two", "exit 1", "three"):
        worker.ask(request)
    assert [worker.answer(), worker.answer()] == ["> one", "> two"]
    with pytest.raises(WorkerLostError, match="exit code 1"):
        worker.answer()


def test_a_late_answer(worker: RequestProcess[str, str]) -> None:
    worker.ask("ready")
    worker.answer()
    worker.ask("sleep 600")
    with pytest.raises(WorkerLostError, match=r"no answer in 0\.2 s") as raised:
        worker.answer(seconds=0.2)
    assert raised.value.late
    worker.end()
    assert gone(pid(worker))


PARENT = """
import sys, time
from tests.predictor.processes import test_request_process
from predictor.processes.request_process import RequestProcess as Worker

if __name__ == "__main__":
    worker = Worker(test_request_process.Obey, "> ")
    worker.ask("sleep 0")
    if {wait}:
        worker.answer()
    {then}
    print(worker._process.pid, flush=True)
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
        "for _ in range(9): worker.ask('big 1000000')",  # it waits for a reader
        "worker.ask('sleep 600')",  # it looks at no pipe
        # Killed while it sends a request: a length, and less than that.
        "import os; os.write(worker._here.fileno(), bytes([0, 0, 0, 99, 1]))",
    ],
)
def test_it_ends_with_a_parent_that_is_killed(then: str) -> None:
    parent = start(True, then)
    process = int(parent.stdout.readline())
    helpers = children(parent.pid)
    parent.kill()
    _, errors = parent.communicate(timeout=60)
    assert gone(process)
    assert all(map(gone, helpers))
    assert errors == ""


@pytest.mark.parametrize("moment", [0, 0.1, 1])
def test_it_is_deaf_to_interrupts(moment: float) -> None:
    """From its start on; and it says nothing."""
    parent = start(wait=False)
    process = int(parent.stdout.readline())
    time.sleep(moment)
    os.kill(process, signal.SIGINT)
    time.sleep(0.5)
    alive = os.path.exists(f"/proc/{process}/exe")  # of a zombie a broken link
    parent.kill()
    _, errors = parent.communicate(timeout=60)
    assert gone(process)
    assert errors == ""
    assert alive


def test_who_started_it_still_hears_them(worker: RequestProcess[str, str]) -> None:
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
