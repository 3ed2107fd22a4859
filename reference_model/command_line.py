"""What the command lines share: a mistake of the user is one line, without a traceback."""

import argparse
import contextlib
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, TypedDict

from reference_model.errors import Notice, UserError
from reference_model.printing import say, warn

MISTAKE = 2
INTERRUPTED = 130
STATUSES = {
    0: "done",
    MISTAKE: "wrong input: one line says what to do",
    INTERRUPTED: "interrupted",
}
NO_MEMORY = "can't allocate memory|not enough memory|out of memory"


OURS = ("reference_model", "benchmarks", "reports", "tests")


def lacking(error: ModuleNotFoundError) -> str:
    """What to say where a package of somebody else's is not installed."""
    told = f"{sys.executable} has no package {error.name}"
    return f"{told}; run .venv/bin/python, which make setup makes"


def is_ours(error: ModuleNotFoundError) -> bool:
    """Whether what is missing is a module of this project, which is no fault of the user's."""
    return (error.name or OURS[0]).partition(".")[0] in OURS


class Parser(argparse.ArgumentParser):
    """Its --help ends with an example and the exit statuses.

    Wrong arguments are told like any other wrong input: as a `UserError`. Parsers of subcommands
    are of this class, too.
    """

    def __init__(
        self, *words: Any, example: str = "", statuses: Mapping[int, str] = STATUSES, **more: Any
    ) -> None:
        """``example``: arguments that work, as in a shell; ``statuses``: each exit status."""
        super().__init__(*words, **more)
        self.example, self.statuses = example, dict(sorted(statuses.items()))

    def also_as(self, old: str, new: str) -> None:
        """Take an option by the name that it had before, too, of which --help says nothing."""
        self._option_string_actions[old] = self._option_string_actions[new]

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} --help explains")

    def format_help(self) -> str:
        statuses = "\n".join(f"  {status:<4} {told}" for status, told in self.statuses.items())
        example = f"  .venv/bin/{self.prog} {self.example}".rstrip()
        return f"{super().format_help()}\nexample:\n{example}\n\nexit status:\n{statuses}\n"

    def print_help(self, file: Any = None) -> None:
        say(self.format_help(), end="")


class About(TypedDict):
    help: str
    description: str


def about(told: str) -> About:
    """What `add_parser` says of a subcommand: in its parent's list, and as its own first line."""
    return {"help": told, "description": f"{told[0].upper()}{told[1:]}."}


def seed(text: str) -> int:
    """The type of a --seed argument."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2^32 - 1")
    return int(text)


def utf8(text: str) -> str:
    """The type of an argument that is text: Python keeps bytes that are none as half characters."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!a} is not UTF-8") from None
    return text


def exit_status(command: Callable[[], int | None]) -> int:
    """Run a command; its own exit status, 2 after a `UserError`, 130 when interrupted.

    A `Notice` is printed as one line, any other warning as ever.
    """
    try:
        with _notices_as_lines():
            return command() or 0
    except UserError as error:
        warn(f"error: {error}")
        return MISTAKE
    except (MemoryError, RuntimeError) as error:  # of a PyTorch without memory
        if not isinstance(error, MemoryError) and not re.search(NO_MEMORY, str(error)):
            raise
        warn("error: not enough memory for this; close other programs, or ask for less at once")
        return MISTAKE
    except ModuleNotFoundError as error:
        if is_ours(error):
            raise
        warn(f"error: {lacking(error)}")
        return MISTAKE
    except KeyboardInterrupt:
        warn("error: interrupted; no half-written file is left")
        return INTERRUPTED


@contextlib.contextmanager
def _notices_as_lines() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("always", Notice)
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
            if issubclass(category, Notice):
                warn(f"note: {message}")
            else:
                others(message, category, *where)

        warnings.showwarning = show  # type: ignore[assignment]
        yield
