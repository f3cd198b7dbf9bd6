"""What an error of the operating system means for a file, and for the run.

A file that is not there (ENOENT), or that we may not read (EACCES), is data: the photo
is rejected. Any other error says nothing about the file. One that may pass is tried
again, and then the run stops; the rest stop it at once. Stopping is the safe side, also
for an error that is in no list: a rerun goes on, whereas a rejection is permanent.
"""

import contextlib
import errno
import itertools
import random
import time
from collections.abc import Callable, Iterator
from enum import Enum
from typing import NamedTuple, TypeVar

from pipeline.system.errors import UnavailableError

_TRIES = 6
_FIRST_WAIT = 0.25  # seconds; each further wait is twice as long, 7.75 s in all at most
_LONGEST = 400  # letters of a path in a message
_PATIENCE = 30.0  # seconds until the last try; less than --image_timeout

_T = TypeVar("_T")


class Action(Enum):
    """What a program does when reading a file fails."""

    REJECT = "reject"  # the file is at fault
    RETRY = "retry"  # with back-off; then stop the run
    STOP = "stop"  # at once


class Rule(NamedTuple):
    """What an error means, and what the user can do."""

    action: Action
    advice: str


_PATH = Rule(Action.REJECT, "correct the path")
_SERVER = Rule(Action.RETRY, "see whether the file server and the way to it are well")
_OPEN_FILES = Rule(
    Action.RETRY, "allow more open files (ulimit -n) or use fewer --workers"
)
_ROOM = Rule(Action.STOP, "make room")
_ACCESS = Rule(Action.STOP, "give access")
_RULES = {
    errno.ENOENT: _PATH,
    errno.EISDIR: _PATH,
    errno.ELOOP: _PATH,
    errno.ENAMETOOLONG: _PATH,
    errno.ENOTDIR: _PATH,
    errno.EACCES: Rule(Action.REJECT, "give access"),
    errno.EIO: Rule(
        Action.RETRY,
        "see whether the disk or the file server is well (if the file is lost for "
        "good, move it away)",
    ),
    errno.ESTALE: _SERVER,
    errno.ETIMEDOUT: _SERVER,
    errno.EAGAIN: Rule(Action.RETRY, "wait until the machine is less busy"),
    errno.EMFILE: _OPEN_FILES,
    errno.ENFILE: _OPEN_FILES,
    errno.ENOMEM: Rule(Action.STOP, "free memory or use fewer --workers"),
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: Rule(Action.STOP, "raise the limit of file sizes (ulimit -f)"),
    errno.EROFS: Rule(Action.STOP, "mount it for writing or name another folder"),
    errno.EPERM: _ACCESS,
}
_OTHER = Rule(Action.STOP, "mend the cause")
# What Python and libraries raise as OSError without asking the system, such as gzip
# for a damaged stream: the content is at fault.
_CONTENT = Rule(Action.REJECT, "restore the file")


def rule_of(error: OSError) -> Rule:
    """Returns what an error of reading means; the one table for all programs."""
    return _RULES.get(error.errno, _OTHER) if error.errno else _CONTENT


def is_about_file(error: BaseException) -> bool:
    """Returns whether the file is at fault, and neither the machine nor the run."""
    if isinstance(error, OSError):
        return rule_of(error).action is Action.REJECT
    return not isinstance(error, MemoryError)


def failure(
    error: OSError | MemoryError, where: object = "", tried: str = ""
) -> UnavailableError:
    """Makes the error that stops the run.

    Args:
        error: what the system said.
        where: the file or folder in question, where `error` does not name one.
        tried: how often and how long, in words.
    """
    what, advice = "out of memory", _RULES[errno.ENOMEM].advice
    if isinstance(error, OSError):
        what, advice = str(error.strerror or error), rule_of(error).advice
        where = error.filename2 or error.filename or where
    place = f": {shortened(str(where))}" if where else ""
    return UnavailableError(
        f"{what}{place}{tried and f' ({tried})'}. What was committed is kept: "
        f"{advice}, and run the same command again to go on."
    )


def shortened(path: str) -> str:
    """Returns a path that fits into a message: the middle of a very long one goes."""
    half = _LONGEST // 2
    return path if len(path) <= _LONGEST else f"{path[:half]}…{path[-half:]}"


def insist(where: object, action: Callable[[], _T]) -> _T:
    """Returns what `action` returns, and calls it again after an error that may pass.

    Args:
        where: the file that it reads, for the message.
        action: reads it from the beginning.

    Raises:
        OSError: the file is at fault.
        UnavailableError: the run must stop; nothing is known about the file.
    """
    started = time.monotonic()
    for number in itertools.count(1):
        try:
            return action()
        except MemoryError as error:
            raise failure(error, where) from error
        except OSError as error:
            if (rule := rule_of(error)).action is Action.REJECT:
                raise
            seconds = time.monotonic() - started
            if rule.action is Action.STOP:
                raise failure(error, where) from error
            if number == _TRIES or seconds > _PATIENCE:
                tried = f"tried {number} times in {seconds:.0f} s"
                raise failure(error, where, tried) from error
        time.sleep(_FIRST_WAIT * 2 ** (number - 1) * random.uniform(0.5, 1))
    raise AssertionError  # itertools.count does not end


@contextlib.contextmanager
def explained(where: object) -> Iterator[None]:
    """Turns any error of the system in the body into one that stops the run.

    Whatever the table says: the body writes, or reads what the run itself has made.

    Args:
        where: what the body reads or writes, for an error that names no file.

    Raises:
        UnavailableError: the system refused something.
    """
    try:
        yield
    except MemoryError as error:
        raise failure(error, where) from error
    except OSError as error:
        if not error.errno:
            raise
        raise failure(error, where) from error
