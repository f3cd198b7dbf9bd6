"""Errors that end a program with a message in place of a traceback."""


class RunError(Exception):
    """The data or the run is at fault: exit code 1.

    The message says what was found, where, what is allowed, and what to do.
    """


class UnavailableError(RunError):
    """The machine or a store cannot be used now; nothing is known about the data."""


class UsageError(Exception):
    """The command line is at fault: exit code 2."""
