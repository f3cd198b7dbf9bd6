"""What a program says and how it ends: progress, errors in a paragraph, exit codes."""

import contextlib
import os
import select
import sys
from collections.abc import Callable
from typing import NoReturn, TextIO

from tqdm import tqdm

from pipeline.system import io_errors
from pipeline.system.errors import RunError, UsageError

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130


def exit_code(run: Callable[[], None]) -> int:
    """Calls `run`, says in a paragraph what ended it, and returns the exit code.

    Where nobody reads standard output any more (`| head`), what was printed last is
    dropped. Such a pipe ends a run that prints more, and no run that is done.
    """
    code = _code_of(run)
    error = _flush(sys.stdout)
    if error and not isinstance(error, BrokenPipeError) and code == DONE:
        return _complain(str(io_errors.failure(error)), FAILED)
    return code


def leave(code: int) -> NoReturn:
    """Ends this process at once, whatever its threads still wait for.

    Beam leaves some 30 threads after a failure, which an ordinary exit would join.
    """
    _flush(sys.stdout)
    _flush(sys.stderr)
    os._exit(code)


def _code_of(run: Callable[[], None]) -> int:
    try:
        run()
    except UsageError as error:
        return _complain(str(error), MISUSED)
    except RunError as error:
        return _complain(str(error), FAILED)
    except (OSError, MemoryError) as error:
        if isinstance(error, OSError) and not error.errno:
            raise  # not the system's: a defect
        if isinstance(error, BrokenPipeError) and _nobody_reads_stdout():
            return _complain(
                "nobody reads standard output any more. What was committed is kept: "
                "run the same command again to go on, with its output to a file.",
                FAILED,
            )
        return _complain(str(io_errors.failure(error)), FAILED)
    except KeyboardInterrupt:
        return _complain(
            "interrupted. What was committed is kept: run the same command again "
            "to go on.",
            INTERRUPTED,
        )
    return DONE


def _nobody_reads_stdout() -> bool:
    """Says whether standard output is a pipe whose other end is closed."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # errors are always reported
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _flush(stream: TextIO | None) -> OSError | None:
    """Writes what was printed; returns the error that it cannot be written.

    What cannot be written is dropped, or Python would try again as it ends.
    """
    if stream is None:  # it was closed before Python began
        return None
    try:
        stream.flush()
    except OSError as error:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        return error
    return None


def progress(
    total: int, what: str, *, unit: str = "image", done: int = 0, delay: float = 0
) -> tqdm:
    """A bar with a rate and an ETA; whole lines where stderr is no terminal.

    Args:
        total: how many units there are.
        what: what is being done, in a word or two.
        unit: what is counted, in the singular.
        done: how many were there before this run; they do not count in the rate.
        delay: seconds of work before anything is shown.
    """
    if sys.stderr.isatty():
        return tqdm(
            total=total,
            desc=what,
            initial=done,
            delay=delay,
            unit=f" {unit}s",
            dynamic_ncols=True,
        )
    return tqdm(
        total=total,
        desc=what,
        initial=done,
        delay=delay,
        unit=f" {unit}s",
        file=_Lines(),
        mininterval=10,
        bar_format="{desc}: {n_fmt} of {total_fmt}{unit}, {rate_noinv_fmt}, "
        "{remaining} to go{postfix}",
    )


def in_time(seconds: float) -> str:
    """Seconds in words: `90 s`, `14 min`, `3.5 h`."""
    minutes, hours = round(seconds / 60), round(seconds / 3600, 1)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{hours} h"


def in_bytes(count: float) -> str:
    """Bytes in words: `10.8 KB`, `44.1 MB`, `108 GB`."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count / 1e3:.3g} KB"


class _Lines:
    """A text stream that turns tqdm's carriage returns into lines."""

    def write(self, text: str) -> None:
        line = text.strip("\r\n ")
        if line and ", ? to go" not in line:  # the first one knows no rate yet
            print(line, file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()


def _complain(message: str, code: int) -> int:
    with contextlib.suppress(BrokenPipeError):  # of `2>&1 | head`
        print(f"error: {message}", file=sys.stderr)
    _flush(sys.stderr)
    return code
