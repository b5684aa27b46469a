"""How a command ends: its exit status, and the line on stderr that says why."""

import enum
import errno

from ..errors import BigSmallError, OptionError
from .printer import printable


class Exit(enum.IntEnum):
    DONE = 0
    FAILED = 1
    USAGE = 2
    BAD_DATA = 3
    INTERRUPTED = 130


class CommandError(Exception):
    """A command could not do what it was asked for."""

    def __init__(self, message: str, status: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.status = status


# What a user can expect to go wrong. Anything else is a bug and keeps its traceback.
EXPECTED = (CommandError, BigSmallError, OSError, MemoryError)

HINTS = {
    errno.EEXIST: "use --force to replace it",
    errno.ENOTEMPTY: "use --force to replace it",
}


def exit_of(error: BaseException) -> Exit:
    """The status for an error of one of the `EXPECTED` kinds.

    A request that cannot be met is a usage error; every other error of the package's own says that the data is not what it should be.
    """
    if isinstance(error, CommandError):
        return error.status
    if isinstance(error, OptionError):
        return Exit.USAGE
    return Exit.BAD_DATA if isinstance(error, BigSmallError) else Exit.FAILED


def line_of(error: BaseException) -> str:
    """One line with file, tensor and block where they are known."""
    if isinstance(error, OSError) and error.strerror:
        hint = HINTS.get(error.errno or 0)
        text = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
        text = text if hint is None else f"{text} ({hint})"
    elif isinstance(error, MemoryError):
        text = "out of memory"
    else:
        # Not str(error): a KeyError would put its message in quotes.
        text = str(error.args[0]) if error.args else type(error).__name__
    return printable(text)
