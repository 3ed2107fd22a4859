"""Signals that end a program, as exceptions: what is open is closed on the way out."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

NAMES = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP; SIGINT is KeyboardInterrupt already


class Ended(BaseException):
    """A signal asked this process to end; ``status`` is what it then exits with."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


@contextlib.contextmanager
def ending_is_raised() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP raise `Ended`; one that was ignored, as by nohup, stays so."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Ended(number)

    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] != signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number])
