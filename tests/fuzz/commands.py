"""A command line called in this process, and what is expected of any of them."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.fuzz.forked import Attempt

# What moves a terminal's cursor or turns its text around, and has no place in what is printed.
FORBIDDEN = {chr(c) for c in (*range(9), *range(11, 32), *range(127, 160))} | set(
    "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
)
REFUSED = (2, 12)  # 12: the gate's


@dataclass(frozen=True)
class Done:
    status: int
    stdout: str
    stderr: str


class _Text(io.TextIOWrapper):
    """A stream like that of a terminal: UTF-8, strict."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def text(self) -> str:
        return self.buffer.getvalue().decode("utf-8", "replace")  # type: ignore[attr-defined]


def call(attempt: Attempt, main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> Done:
    """Run a command line; it is noted if it raises, or does not tell a refusal in one line."""
    out, err = _Text(), _Text()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(list(arguments))
        except SystemExit as exit:
            status = exit.code if isinstance(exit.code, int) else 1
    done = Done(status, out.text(), err.text())
    print(done.stderr, file=sys.stderr)  # where tracebacks are looked for
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    if status in REFUSED and len(told) != 1:
        attempt.wrong(f"{arguments[0]}: exit status {status} with {len(told)} error lines")
    elif status not in (0, *REFUSED):
        attempt.wrong(f"{arguments[0]}: exit status {status}")
    for stream, text in (("stdout", done.stdout), ("stderr", done.stderr)):
        if found := FORBIDDEN & set(text):
            attempt.wrong(f"{stream} of {arguments[0]} has {sorted(map(ascii, found))}")
    attempt.outcome("refused" if status else "read")
    return done
