"""What is printed: texts from elsewhere steer no terminal, and a full disk is told in one line.

File names, results, messages of commits and generated text are written by others. An escape
sequence in them would repaint the screen, a bidirectional mark would turn a sentence around.
"""

import contextlib
import os
import re
import sys
from typing import Any, TextIO

from reference_model.errors import UserError

# What shows nothing of its own, and what steers: C0 and C1 controls, bidirectional and zero-width
# marks, separators of lines and paragraphs, halves of surrogate pairs, tags. The two joiners that
# some scripts are spelled with (U+200C, U+200D) are text.
UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
UNSEEN_BUT_LINES = re.compile(rf"(?![\t\n]){UNSEEN.pattern}")


def clean(text: str, *, lines: bool = False) -> str:
    """``text`` with everything that is unseen or steers spelled out, as ``\\x1b`` or ``\\u202e``.

    ``lines`` keeps tabs and line feeds; without it the result is one line.
    """
    unwanted = UNSEEN_BUT_LINES if lines else UNSEEN
    return unwanted.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def say(text: object, *, end: str = "\n") -> None:
    """Print to the standard output, cleaned, several lines where the text has them.

    A reader that has seen enough, such as head, gets no more, and nothing is raised. UserError
    where there is no standard output, or its disk is full.
    """
    out: TextIO | None = sys.stdout  # None: closed before Python began
    try:
        if out is None:
            raise ValueError("it is closed")
        _write(f"{clean(str(text), lines=True)}{end}", out)
    except BrokenPipeError:
        _discard(out)
    except (OSError, ValueError) as error:
        _discard(out)
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"cannot write to the standard output ({reason}); free some space, or send it elsewhere"
        ) from None


def warn(text: object, *, lines: bool = False) -> None:
    """Print to the standard error, cleaned, as one line unless ``lines``; never an error itself."""
    out: TextIO | None = sys.stderr
    try:
        if out is not None:
            _write(f"{clean(str(text), lines=lines)}\n", out)
    except (OSError, ValueError):
        _discard(out)


class ErrorsForProgress:
    """The standard error as the file of a progress bar: what fails there costs no work."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError, AttributeError):  # None: closed
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:  # its encoding, and how wide its terminal is
        return getattr(sys.stderr, name)


def _write(text: str, out: TextIO) -> None:
    """At once, so that what fails does so here; what the encoding lacks is spelled out."""
    encoding = out.encoding or "utf-8"
    out.write(text.encode(encoding, "backslashreplace").decode(encoding))
    out.flush()


def _discard(out: TextIO | None) -> None:
    """Let Python's own flush at its end find nothing to complain of, as its manual advises."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no file behind it
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, out.fileno())  # type: ignore[union-attr]
        os.close(nowhere)
