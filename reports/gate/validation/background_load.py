"""A background load: a process that computes and copies memory now and then, at drawn times."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from reference_model.errors import UserError

READY = "ready"
LONGEST = 3.0  # seconds of noise, and of quiet, at a time
COPIED = 32 << 20  # bytes, more than a share of the last cache


class BackgroundLoad:
    """What runs beside; nothing where there is no process."""

    def __init__(self, process: subprocess.Popen[str] | None) -> None:
        self._process = process

    def check(self) -> None:
        """`UserError` where it is no longer there: what was measured was measured alone."""
        if self._process is not None and (status := self._process.poll()) is not None:
            raise UserError(f"the background load ended by itself, with status {status}")


def disturb(seed: int) -> None:
    """As long as its parent lives: quiet, then arithmetic or copies, then quiet again."""
    print(READY, flush=True)
    rng, memory, parent = random.Random(seed), bytearray(COPIED), os.getppid()
    while os.getppid() == parent:
        time.sleep(rng.uniform(0, LONGEST))
        end, copies = time.monotonic() + rng.uniform(0, LONGEST), rng.random() < 0.5
        while time.monotonic() < end:
            if copies:
                bytes(memory)
            else:
                sum(i * i for i in range(10_000))


@contextmanager
def beside(active: bool, seed: int) -> Iterator[BackgroundLoad]:
    """Runs one next to whatever is done inside, which begins once it has begun."""
    if not active:
        yield BackgroundLoad(None)
        return
    command = [sys.executable, "-m", "reports.gate.validation.background_load", str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != READY:
                raise UserError(f"the background load did not start, with status {process.wait()}")
            yield BackgroundLoad(process)
        finally:
            process.kill()


if __name__ == "__main__":
    disturb(int(sys.argv[1]))
