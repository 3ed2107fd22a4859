"""How the work is stopped, and how something is told without stopping it."""

import warnings


class UserError(Exception):
    """Something the user gave, or the machine lacks, stops the work.

    The message is one line and says what was wrong, what was received and what to do. The command
    lines print it as ``error: ...`` and exit with a non-zero status, without a traceback.
    """


class Notice(UserWarning):
    """What the user should know though the work goes on; the command lines print it as one line."""


def notice(message: str) -> None:
    """Tell, in one line, what was decided where a file leaves it open or contradicts itself."""
    warnings.warn(message, Notice, stacklevel=3)
