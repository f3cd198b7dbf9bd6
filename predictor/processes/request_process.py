"""A process that answers one request after another, and ends with who asked."""

import contextlib
import multiprocessing
import pickle
import signal
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from pipeline.system import process_pool

Request = TypeVar("Request")
Answer = TypeVar("Answer")
_SPAWN = multiprocessing.get_context("spawn")  # a fork would copy TensorFlow's locks


class WorkerLostError(Exception):
    """The process ended without an answer, or did not give one in time.

    Attributes:
        late: it is the latter.
        exitcode: of the process, negative for a signal; None where it is not known.
    """

    def __init__(
        self, message: str, *, late: bool = False, exitcode: int | None = None
    ) -> None:
        super().__init__(message)
        self.late = late
        self.exitcode = exitcode


class RequestProcess(Generic[Request, Answer]):
    """A process with a function of its own.

    Requests are answered in order. More than one may be under way: where a pipe of
    64 KB is full, its writer waits, so that either requests or answers must be small.

    Args:
        make: called there, with the arguments; returns what answers a request.
        arguments: everything that can be pickled.
    """

    def __init__(
        self, make: Callable[..., Callable[[Request], Answer]], *arguments: Any
    ) -> None:
        self._here, there = _SPAWN.Pipe()
        self._process = _SPAWN.Process(
            target=_serve, args=(there, make, arguments), daemon=True
        )
        with _deaf_to_interrupts():
            self._process.start()
        there.close()  # so that its end is seen here, and ours there

    def ask(self, request: Request) -> None:
        """Hands over a request.

        Raises:
            WorkerLostError: there is nobody to take it.
        """
        try:
            self._here.send(request)
        except OSError as error:
            raise self._lost() from error

    def answer(self, *, seconds: float | None = None) -> Answer:
        """Waits for the answer to the oldest request that has none yet.

        Raises:
            WorkerLostError: the process is gone, or takes longer than so many seconds.
            Exception: what the function raised there; or a RuntimeError with its text,
                where it cannot be pickled.
        """
        try:
            if not self._here.poll(seconds):
                raise WorkerLostError(f"no answer in {seconds:g} s", late=True)
            good, value = self._here.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error
        if not good:
            raise value
        return value

    def end(self) -> None:
        """Ends the process at once, whatever it is doing."""
        self._process.kill()
        self._process.join()
        self._here.close()

    def _lost(self) -> WorkerLostError:
        self._process.join(1)
        code = self._process.exitcode
        name = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
        return WorkerLostError(f"the process ended: {name}", exitcode=code)


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Ctrl-C is for who asks: what is started here never hears of it.

    A process that ignored it once it runs would still say so, at length, when it came
    during its start.
    """
    resource_tracker.ensure_running()  # at its own start it ends what is begun below
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(
    there: Connection,
    make: Callable[..., Callable[[Any], Any]],
    arguments: tuple[Any, ...],
) -> None:
    """Answers requests in a child process, until the parent is gone."""
    process_pool.end_with_the_parent()  # also in a request that hangs
    function = make(*arguments)
    with contextlib.suppress(EOFError, OSError):  # OSError: a request was cut short
        while True:
            there.send(_answered(function, there.recv()))


def _answered(function: Callable[[Any], Any], request: Any) -> tuple[bool, Any]:
    try:
        return True, function(request)
    except Exception as error:  # noqa: BLE001 (raised again by who asked)
        return False, _picklable(error)


def _picklable(error: Exception) -> Exception:
    """Returns the error, or its text as a RuntimeError where it cannot be pickled.

    Some errors can be pickled and not unpickled: those whose `__init__` takes other
    arguments than it hands on.
    """
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 (pickling runs code of the error's own class)
        return RuntimeError("".join(traceback.format_exception_only(error)).strip())
    return error
