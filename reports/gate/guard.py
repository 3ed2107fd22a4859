"""What ends with a gate, however the gate ends: its processes and its folder.

``python -I -S guard.py FOLDER`` waits until its standard input ends, which it does when the gate is
gone, killed or not, and clears up then. It needs nothing but the standard library.

A process belongs to a gate if a variable says so that it inherited; on Linux alone can that be seen
from outside. Elsewhere the gate's own processes end when they have nothing more to read.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

VARIABLE = "GATE_CHECKOUT"  # a place in the gate's folder
PROCESSES = Path("/proc")
TRIES = 50  # of one pass each, since what is being started may come after the first


def clear(folder: Path) -> None:
    """End every process of the gate that ``folder`` is of, and remove it."""
    for _ in range(TRIES):
        if not (found := processes_of(folder)):
            break
        for process in found:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.02)
    shutil.rmtree(folder, ignore_errors=True)


def lock_of(folder: Path) -> Path:
    """The file whose lock says that the gate lives."""
    return folder.with_suffix(".lock")


def processes_of(folder: Path) -> list[int]:
    """Their numbers: all that were started by a gate, or by what it had started."""
    mark = os.fsencode(f"\0{VARIABLE}={folder}{os.sep}")
    found = []
    for variables in PROCESSES.glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # another user's, or just gone
            if mark in b"\0" + variables.read_bytes():
                found.append(int(variables.parent.name))
    return found


if __name__ == "__main__":
    sys.stdin.read()
    of_gate = Path(sys.argv[1])
    clear(of_gate)
    lock_of(of_gate).unlink(missing_ok=True)
