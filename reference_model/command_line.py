"""What the command lines share: a mistake of the user is one line, without a traceback."""

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from reference_model.errors import UserError
from reference_model.printing import say, warn

MISTAKE = 2
INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """Wrong arguments are told like any other wrong input: as a `UserError`."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} --help explains")

    def print_help(self, file: Any = None) -> None:
        say(self.format_help(), end="")


def seed(text: str) -> int:
    """The type of a --seed argument."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2^32 - 1")
    return int(text)


def exit_status(command: Callable[[], int | None]) -> int:
    """Run a command; its own exit status, 2 after a `UserError`, 130 when interrupted."""
    try:
        return command() or 0
    except UserError as error:
        warn(f"error: {error}")
        return MISTAKE
    except KeyboardInterrupt:
        warn("error: interrupted; nothing half done is left behind")
        return INTERRUPTED
