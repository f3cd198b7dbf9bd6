"""The voice of every program: what it says, its progress, and how it ends.

Standard output has what was understood, what will be done, and the closing summary with
the next command; standard error has warnings, errors and progress. Both are written at
once, line by line, so that they keep their order in one log.
"""

import contextlib
import functools
import os
import shlex
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TextIO

from tqdm import tqdm

from pipeline.system import io_errors
from pipeline.system.errors import RunError, UsageError

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130

_STARTUP_LINES = 20  # of the start of libraries, told when a program fails

# Flags that are variables of the Makefile; it takes the others in ARGS.
_VARIABLES = ("images", "dataset", "model", "predictions", "evaluation", "split")

# SGR codes of terminals.
_RED, _GREEN, _YELLOW, _CYAN = "31", "32", "33", "36"
_COLOURS = {
    **{"error:": _RED, "warning:": _YELLOW, "next:": _CYAN},
    **{"ok ": _GREEN, "advice ": _YELLOW, "problem ": _RED},  # of trainer.doctor
}


@dataclass
class _Voice:
    """How much is said.

    Attributes:
        quiet: only warnings, errors and the first line of a closing summary.
        debug: tracebacks, also of errors that are told in plain words.
        startup: the last lines that libraries wrote as they started.
        startup_log: has all of them, if there is one.
    """

    quiet: bool = False
    debug: bool = False
    startup: Sequence[str] = ()
    startup_log: Path | None = None


_voice = _Voice()
# Its own lock would be one of multiprocessing, which a child leaves behind.
tqdm.set_lock(threading.RLock())


def set_voice(*, quiet: bool, debug: bool) -> None:
    """Sets how much this process says; by default all but tracebacks."""
    _voice.quiet, _voice.debug = quiet, debug
    if not debug:  # of TensorFlow its warnings, and not its notes
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")


def hides_nothing() -> bool:
    """Returns whether --debug was given."""
    return _voice.debug


def say(text: str, *, matters: bool = False) -> None:
    """Prints lines; with --quiet only such as matter then, too."""
    if matters or not _voice.quiet:
        _put(text, sys.stdout)


def warn(text: str) -> None:
    """Prints a warning, whatever the flags."""
    _put(f"warning: {text}", sys.stderr)


def note(text: str) -> None:
    """Prints a remark that nobody need act on; with --quiet nothing."""
    say(f"note: {text}")


def conclude(text: str, *, following: str = "") -> None:
    """Prints the closing summary of a verb; with --quiet its first line.

    Args:
        text: begins with a line that says all in short.
        following: the next command to type, of `command`.
    """
    if _voice.quiet:
        text, following = text.partition("\n")[0], ""
    _put(f"{text}\nnext: {following}" if following else text, sys.stdout)


def command(program: str, verb: str, **values: object) -> str:
    """Returns a command to type, by way of make where make has called this program.

    Args:
        program, verb: as in `python -m PROGRAM VERB`; the verb is the target, too.
        values: of flags; None for those that the reader has to choose.
    """
    words = {
        name: "…" if value is None else shlex.quote(str(value))
        for name, value in values.items()
    }
    by_make = "MAKELEVEL" in os.environ
    flags = [
        f"--{name}={word}"
        for name, word in words.items()
        if not (by_make and name in _VARIABLES)
    ]
    if not by_make:
        return " ".join([f"python -m {program} {verb}", *flags])
    given = [f"{x.upper()}={word}" for x, word in words.items() if x in _VARIABLES]
    if flags:
        given.append(f"ARGS={shlex.quote(' '.join(flags))}")
    return " ".join([f"make {verb}", *given])


def keep_startup(lines: Sequence[str], log: Path | None) -> None:
    """Keeps the last lines that libraries wrote as they started, for a failure.

    Args:
        lines: more of them.
        log: has all, if there is one.
    """
    _voice.startup = [*_voice.startup, *lines][-_STARTUP_LINES:]
    _voice.startup_log = log


def exit_code(run: Callable[[], None]) -> int:
    """Calls `run`, says in a paragraph what ended it, and returns the exit code."""
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        # A path that the locale cannot write ends no run; stderr is so from the start.
        reconfigure(errors="backslashreplace")
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
            _tell_startup()
            raise  # not the system's: a defect
        return _complain(str(io_errors.failure(error)), FAILED)
    except KeyboardInterrupt:
        return _complain(
            "interrupted. What was committed is kept: run the same command again "
            "to go on.",
            INTERRUPTED,
        )
    except Exception:
        _tell_startup()
        raise
    return DONE


def _complain(message: str, code: int) -> int:
    """Says what ended the run: the start of the libraries, a traceback, the message."""
    if code == FAILED:
        _tell_startup()
    if _voice.debug and sys.exc_info()[0]:
        _put(traceback.format_exc().rstrip(), sys.stderr)
    _put(f"error: {message}", sys.stderr)
    return code


def _tell_startup() -> None:
    if _voice.startup:
        where = f" ({_voice.startup_log} has all)" if _voice.startup_log else ""
        lines = [f"the last lines of TensorFlow's start{where}:", *_voice.startup]
        _put("\n  ".join(lines), sys.stderr)


def _put(text: str, stream: TextIO | None) -> None:
    """Writes lines at once, above a bar of progress.

    Where nobody reads them any more (`| head`), the run goes on without them.
    """
    if stream is None:  # it was closed before Python began
        return
    if has_colours(stream):
        text = "\n".join(_coloured(line) for line in text.split("\n"))
    try:
        with tqdm.external_write_mode(file=stream):
            print(text, file=stream, flush=True)
    except BrokenPipeError:
        _drop(stream)
        if stream is sys.stdout:
            warn("nobody reads standard output any more; the run goes on without it")


def has_colours(stream: TextIO) -> bool:
    """Returns whether a stream is a terminal that shows colours (no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not plain


def _coloured(line: str) -> str:
    for start, colour in _COLOURS.items():
        if line.startswith(start):
            return f"\x1b[{colour}m{start}\x1b[0m{line.removeprefix(start)}"
    return line


def _flush(stream: TextIO | None) -> OSError | None:
    """Writes what was printed; returns the error that it cannot be written.

    What cannot be written is dropped, or Python would try again as it ends.
    """
    if stream is None:
        return None
    try:
        stream.flush()
    except OSError as error:
        _drop(stream)
        return error
    return None


def _drop(stream: TextIO) -> None:
    """Has all that is written to a stream from now on go nowhere."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def progress(
    total: int, what: str, *, unit: str = "image", done: int = 0, delay: float = 0
) -> tqdm:
    """A line with a rate and an ETA; whole lines where stderr is no terminal.

    On a terminal it is gone at the end, for the summary says more. With --quiet there
    is none.

    Args:
        total: how many units there are.
        what: what is being done, in a word or two.
        unit: what is counted, in the singular.
        done: how many were there before this run; they do not count in the rate.
        delay: seconds of work before anything is shown.
    """
    bar = functools.partial(
        tqdm, total=total, desc=what, initial=done, delay=delay, unit=f" {unit}s"
    )
    if sys.stderr is None or _voice.quiet:
        return bar(disable=True)
    if sys.stderr.isatty():
        return bar(dynamic_ncols=True, leave=False)
    return bar(
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
    """Bytes in words: `10.8 KB`, `44.1 MB`, `108 GB`, `1,500 GB`."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if count >= 0.9995 * unit or name == "KB":
            value = count / unit
            return f"{value:,.0f} {name}" if value >= 999.5 else f"{value:.3g} {name}"
    raise AssertionError


class _Lines:
    """A text stream that turns tqdm's carriage returns into lines."""

    def __init__(self) -> None:
        self._last = ""

    def write(self, text: str) -> None:
        line = text.strip("\r\n ")
        if line == self._last:  # a bar that is closed is shown once more
            return
        self._last = line
        if line and ", ? to go" not in line:  # the first one knows no rate yet
            with contextlib.suppress(BrokenPipeError):  # of `2>&1 | head`
                print(line, file=sys.stderr)

    def flush(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            sys.stderr.flush()
