"""A folder of one gate, which is gone when the gate is: also when it was killed.

Its guard clears up then. Where the guard was killed as well, the next gate does: what the lock
beside a folder says is that nobody owns it, since a lock ends with its process.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from reference_model.errors import UserError
from reports.gate import guard

LOCKS = "gate-????????.lock"  # each beside the folder of its name
ENDING = 10.0  # seconds that a guard may take to end


@contextmanager
def workplace() -> Iterator[Path]:
    """An empty folder for temporary files, private to this user; `UserError` where none can be."""
    try:
        place = Path(tempfile.gettempdir()).resolve()
        sweep(place)
        folder = place / f"gate-{secrets.token_hex(4)}"
        lock = FileLock(guard.lock_of(folder))
        lock.acquire()  # before there is anything that could look left over
        folder.mkdir(mode=0o700)
        watching = subprocess.Popen(
            [sys.executable, "-I", "-S", str(guard.__file__), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what is sent to all of the gate's processes is not for it
        )
    except OSError as error:
        raise UserError(
            f"no folder for the gate's files can be made ({error.strerror or error}); name one "
            "with free space in TMPDIR"
        ) from None
    try:
        yield folder
    finally:
        guard.clear(folder)
        lock.release()
        guard.lock_of(folder).unlink(missing_ok=True)
        assert watching.stdin is not None
        watching.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            watching.wait(ENDING)


def sweep(place: Path) -> None:
    """Clear what gates left in ``place`` that live no more; another user's is left alone."""
    for name in place.glob(LOCKS):
        folder = name.with_suffix("")
        try:
            if not (_own(name) and (not os.path.lexists(folder) or _own(folder))):
                continue
            with FileLock(name, blocking=False):
                guard.clear(folder)
                name.unlink()
        except OSError:  # its owner lives, or another gate is at it
            continue


def _own(path: Path) -> bool:
    return not hasattr(os, "getuid") or path.lstat().st_uid == os.getuid()
