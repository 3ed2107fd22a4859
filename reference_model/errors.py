"""The one exception that means: the input is wrong, not the program."""


class UserError(Exception):
    """Something the user gave, or the machine lacks, stops the work.

    The message is one line and says what was wrong, what was received and what to do. The command
    lines print it as ``error: ...`` and exit with a non-zero status, without a traceback.
    """
