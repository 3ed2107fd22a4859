"""A noisy neighbour: a process that computes and copies memory now and then, at drawn times."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST = 3.0  # seconds of one stretch of noise or of quiet
COPIED = 32 << 20  # bytes, more than a share of the last cache


def disturb(seed: int) -> None:
    """As long as its parent lives: quiet, then arithmetic or copies, then quiet again."""
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
def beside(active: bool, seed: int) -> Iterator[None]:
    """Runs one next to whatever is done inside."""
    if not active:
        yield
        return
    command = [sys.executable, "-m", "reports.gate.campaign.neighbour", str(seed)]
    process = subprocess.Popen(command)
    try:
        yield
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    disturb(int(sys.argv[1]))
