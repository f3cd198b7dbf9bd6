"""What Beam and its runners say goes to a log beside the folder that they fill."""

import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

from pipeline.storage import side_files


@contextlib.contextmanager
def logging_to(log: Path, level: int) -> Iterator[None]:
    """Has all that is logged in this process, and errors of threads, go to a file.

    A file that cannot be written costs nothing but the log.

    Args:
        log: the file, which may be there.
        level: the least that is logged.
    """
    handler = side_files.log_handler(log)
    handler.setFormatter(logging.Formatter(logging.BASIC_FORMAT))
    root = logging.getLogger()
    handlers, before = root.handlers, root.level
    hook = threading.excepthook
    root.handlers = [handler]
    root.setLevel(level)
    threading.excepthook = _log_error
    yield
    # Not after an error: threads that Beam leaves go on to say things.
    threading.excepthook = hook
    root.handlers = handlers
    root.setLevel(before)
    handler.close()


def _log_error(args: threading.ExceptHookArgs) -> None:
    if args.exc_value:
        logging.error("a thread failed", exc_info=args.exc_value)
