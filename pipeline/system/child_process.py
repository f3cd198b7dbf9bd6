"""Child processes that answer requests, and a pool of them.

    parent ── requests, answers ── child
           ── its stdin, which nobody writes to: when it ends, the child does
           ── shared memory: the item of the request that the child is at, since when
           ── shared memory: what the child says

A child is a new interpreter, never a fork: a fork would copy the locks of the parent's
threads. It imports what its requests name and nothing of the parent's main module. It
ends when its parent has ended, however that was, and whatever the child is doing.
"""

import contextlib
import fcntl
import math
import mmap
import multiprocessing
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from pipeline.system.errors import RunError

_START_SECONDS = 120.0  # for a child to start and import, on a busy machine
_IDLE_SECONDS = 60.0  # without a request, after which a child of a pool ends
_LOOK_SECONDS = 0.2  # between two looks at the item that a child is at
_ENTRY = "from pipeline.system import child_process; child_process.serve()"

# How faulty code ends its process, if not by exit(). Other signals come from outside:
# SIGKILL where the memory is full.
_CRASHES = {
    *(signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV)
}

Task = TypeVar("Task")
Request = TypeVar("Request")
Answer = TypeVar("Answer")


class ChildLostError(Exception):
    """A child ended without an answer, or is too long at an item.

    Attributes:
        ending: a signal (`SIGSEGV`) or an exit code, in words; "" where it was late.
        item: the item of its request that it was at; None where it was at none.
        by_itself: it crashed or hangs; nothing from outside ended it.
    """

    def __init__(
        self,
        message: str,
        *,
        item: int | None,
        ending: str = "",
        by_itself: bool = True,
    ) -> None:
        super().__init__(message)
        self.ending, self.item, self.by_itself = ending, item, by_itself


_ITEM = struct.Struct("<dq")  # begun, by the monotonic clock; index, -1 for none
_own_item: mmap.mmap | None = None  # memory that this child shares with its parent


def at(index: int | None) -> None:
    """Notes the item of its request that this child is at; None for no item.

    Only the time at an item is watched. Does nothing in other processes.
    """
    if _own_item is not None:
        # In this order: half of it is the last item, begun just now.
        number = -1 if index is None else index
        _ITEM.pack_into(_own_item, 0, time.monotonic(), number)


class Child(Generic[Request, Answer]):
    """A child process with a function of its own.

    Requests are answered in order. More than one may be under way: where a pipe of
    64 KB is full, its writer waits, so that either requests or answers must be small.

    Args:
        make: called in the child, with the arguments; returns what answers a request.
        arguments: anything that can be pickled.
        shared: file descriptors that the child has under the same numbers.
        idle: seconds without a request after which it ends.
    """

    def __init__(
        self,
        make: Callable[..., Callable[[Request], Answer]],
        *arguments: Any,
        shared: Sequence[int] = (),
        idle: float = math.inf,
    ) -> None:
        self._here, there = multiprocessing.Pipe()
        memory = os.memfd_create("item")
        os.ftruncate(memory, _ITEM.size)
        self._item = mmap.mmap(memory, _ITEM.size)
        _ITEM.pack_into(self._item, 0, 0, -1)
        self._said = open(os.memfd_create("said"), "r+b", buffering=0)  # noqa: SIM115
        self._ready = False
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        with there, _deaf_to_interrupts():
            self._process = subprocess.Popen(
                [sys.executable, "-c", _ENTRY, str(there.fileno()), str(memory)],
                stdin=subprocess.PIPE,
                stdout=self._said,
                stderr=self._said,
                pass_fds=(there.fileno(), memory, *shared),
                env=os.environ | {"PYTHONPATH": path},
            )
        os.close(memory)
        with contextlib.suppress(OSError):  # who waits for an answer will know
            self._here.send((idle, make, arguments))

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def runs(self) -> bool:
        """Returns whether the process has not ended."""
        return self._process.poll() is None

    def ask(self, request: Request) -> None:
        """Hands over a request.

        Raises:
            ChildLostError: there is nobody to take it.
        """
        try:
            self._here.send(request)
        except OSError as error:
            raise self._lost() from error

    def answer(self, *, seconds: float = math.inf) -> Answer:
        """Waits for the answer to the oldest request that has none yet.

        Args:
            seconds: that the child may be at one item.

        Raises:
            ChildLostError: the child has ended, or is longer at an item.
            Exception: what the function raised there; or a RuntimeError with its text,
                where it cannot be pickled.
        """
        if not self._ready:
            self._receive(_START_SECONDS, started=time.monotonic())
            self._ready = True
        return self._receive(seconds)

    def kill(self) -> None:
        """Ends the process at once, whatever it is doing; whoever waits is told."""
        self._process.kill()

    def end(self) -> None:
        """Ends the process, and gives back all that belongs to it."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin
        self._process.stdin.close()
        self._here.close()
        self._said.close()

    def item(self) -> tuple[int | None, float]:
        """Returns the item that it is at, and the clock when it began with that."""
        begun, index = _ITEM.unpack_from(self._item)
        return (None if index < 0 else index), begun

    def _receive(self, seconds: float, *, started: float | None = None) -> Any:
        """Waits for an answer, but not longer for an item, or in all since a start."""
        try:
            while not self._here.poll(None if seconds == math.inf else _LOOK_SECONDS):
                item, begun = self.item()
                watched = started is not None or item is not None
                if watched and time.monotonic() - (started or begun) > seconds:
                    raise ChildLostError(f"no result in {seconds:g} s", item=item)
            good, value = self._here.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error
        if self._said.seek(0, os.SEEK_END):  # it is about what has just succeeded
            self._said.seek(0)
            self._said.truncate()
        if not good:
            raise value
        return value

    def _lost(self) -> ChildLostError:
        code = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(10)  # it has closed its pipe, so it is ending
        ending = (
            signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
        )
        message = f"the process ended: {ending}"
        self._said.seek(0)
        if said := self._said.read().decode(errors="replace").strip():
            message += f", and said: {said.splitlines()[-1]}"
        return ChildLostError(
            message,
            item=self.item()[0],
            ending=ending,
            by_itself=code is not None and (code >= 0 or -code in _CRASHES),
        )


class ChildPool:
    """Children that call functions: at most so many, each kept for the next caller.

    Args:
        count: children at a time; whoever wants one more waits.
        begin: what a child does first, to show that it can work.

    Attributes:
        count: as given.
        ended: `end` was called.
    """

    def __init__(self, count: int, *, begin: Callable[[], object] | None = None):
        self.count, self._begin = count, begin
        self._slots = threading.BoundedSemaphore(count)
        self._lock = threading.Lock()
        self._idle: list[tuple[float, Child]] = []
        self._busy: set[Child] = set()
        self.ended = False

    def start(self, count: int) -> None:
        """Starts children before they are wanted: they import meanwhile."""
        with self._lock:
            for _ in range(min(count, self.count)):
                self._idle.append((time.monotonic(), self._new()))

    def call(
        self,
        function: Callable[[], Answer],
        *,
        seconds: float = math.inf,
        fresh: bool = False,
    ) -> Answer:
        """Returns what a function returns in a child; any thread may call this.

        Args:
            function: can be pickled.
            seconds: that the child may be at one item; see `at`.
            fresh: the child has done nothing before.

        Raises:
            ChildLostError: the child has ended, or is longer at an item.
            Exception: what the function raised.
        """
        with self._slots:
            child, usable = self._take(fresh), False
            try:
                child.ask(function)
                answer = child.answer(seconds=seconds)
                usable = True
                return answer
            finally:
                self._give_back(child, usable)

    def end(self) -> None:
        """Ends all children; whoever waits for one, or asks for one, gets an error."""
        with self._lock:
            self.ended = True
            for child in self._busy:
                child.kill()  # its caller does the rest
            while self._idle:
                self._idle.pop()[1].end()

    def _take(self, fresh: bool) -> Child:
        with self._lock:
            if self.ended:
                raise RuntimeError("the run that this pool belongs to has ended")
            child = None
            while self._idle and child is None:
                # The last one first, so that those that are not needed end.
                since, last = self._idle.pop()
                # In good time before it would end by itself.
                usable = time.monotonic() - since < _IDLE_SECONDS / 2 and last.runs()
                if usable and not fresh:
                    child = last
                    continue
                last.end()
                if fresh:  # there is room for a new one
                    break
            child = child or self._new()
            self._busy.add(child)
            return child

    def _give_back(self, child: Child, usable: bool) -> None:
        with self._lock:
            self._busy.discard(child)
            if usable and not self.ended:
                self._idle.append((time.monotonic(), child))
                return
        child.end()

    def _new(self) -> Child:
        return Child(_Calls, self._begin, idle=_IDLE_SECONDS)


class _Calls:
    """Answers a request, which is a function, with what the function returns."""

    def __init__(self, begin: Callable[[], object] | None) -> None:
        if begin:
            begin()

    def __call__(self, function: Callable[[], Any]) -> Any:
        return function()


def each(
    function: Callable[[Task], Answer], tasks: Sequence[Task], *, workers: int, of: str
) -> Generator[Answer, None, None]:
    """Yields what comes of every task, in order; to be closed when it is left early.

    Args:
        function: at the top of a module; it has nothing to lose when it is ended.
        tasks: what it is given.
        workers: children; one does without any.
        of: the program, for errors.

    Raises:
        RunError: a child was lost.
    """
    workers = min(workers, len(tasks))
    if workers < 2:
        yield from map(function, tasks)
        return
    pool, threads = ChildPool(workers), ThreadPoolExecutor(workers)
    try:
        yield from threads.map(lambda task: pool.call(partial(function, task)), tasks)
    except ChildLostError as lost:
        raise RunError(
            f"a process of {of} was killed ({lost}). Is the memory full? Run it again, "
            "with fewer --workers."
        ) from lost
    finally:
        pool.end()
        threads.shutdown(cancel_futures=True)


def end_with_the_parent(pipe: int | None = None) -> None:
    """Has this child process end when its parent has, even by `kill -9`.

    The kernel sends SIGKILL at the end of the pipe, also where a decoder that hangs
    holds Python's lock, so that no thread could look. PR_SET_PDEATHSIG would go by the
    parent's thread, and threads end earlier.

    Args:
        pipe: one whose other end the parent alone holds, and never writes to; without
            it that of a child of `multiprocessing`.
    """
    if pipe is None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        pipe = parent.sentinel
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
    flags = fcntl.fcntl(pipe, fcntl.F_GETFL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, flags | os.O_ASYNC)
    if select.select([pipe], [], [], 0)[0]:  # it had ended before
        os._exit(1)


def serve() -> None:
    """Child entry point: answers requests until there are no more."""
    global _own_item
    end_with_the_parent(sys.stdin.fileno())
    requests, memory = map(int, sys.argv[1:])
    _own_item = mmap.mmap(memory, _ITEM.size)
    there = Connection(requests)
    with contextlib.suppress(EOFError, OSError):  # OSError: a request was cut short
        idle, make, arguments = there.recv()
        good, function = _answered(make, *arguments)
        there.send((good, None if good else function))
        while good and there.poll(None if idle == math.inf else idle):
            request = there.recv()
            answer = _answered(function, request)
            at(None)  # an answer may wait long for who takes it
            there.send(answer)


def _answered(function: Callable[..., Any], *arguments: Any) -> tuple[bool, Any]:
    try:
        return True, function(*arguments)
    except Exception as error:  # noqa: BLE001 (raised again by who asked)
        error.add_note(f"In a child process: {traceback.format_exc().strip()}")
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


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Ctrl-C is for the parent: a child that is started here never hears of it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
