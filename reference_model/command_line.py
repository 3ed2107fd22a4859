"""What the command lines share: a mistake of the user is one line, without a traceback."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from reference_model.errors import UserError

MISTAKE = 2
INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """Wrong arguments are told like any other wrong input: as a `UserError`."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} --help explains")


def seed(text: str) -> int:
    """The type of a --seed argument."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2^32 - 1")
    return int(text)


def exit_status(command: Callable[[], int | None]) -> int:
    """Run a command; its own exit status, 2 after a `UserError`, 130 when interrupted."""
    try:
        status = command() or 0
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return MISTAKE
    except KeyboardInterrupt:
        print("error: interrupted; nothing half done is left behind", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # who read along, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
