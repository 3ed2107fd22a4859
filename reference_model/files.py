"""Files that are written whole or not at all."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from reference_model.errors import UserError


def write_whole(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files (name → content) to a folder: beside their places first, then all renamed.

    A full disk or a read-only folder is a `UserError`; what was there before then stays as it was.
    Of two processes that write the same files, all are those of the one or all those of the other.
    """
    # The process is in the name, so that two that write the same file do not share a part of it.
    parts = {folder / f".{name}.{os.getpid()}.part": folder / name for name in files}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part, content in zip(parts, files.values(), strict=True):
            part.write_bytes(content)
        with _alone_in(folder):
            for part, place in parts.items():
                os.replace(part, place)
    except OSError as error:
        raise UserError(
            f"cannot write to {folder} ({error.strerror}); free some space or name another folder"
        ) from None
    finally:
        for part in parts:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """While no other process puts its files there; as far as the system has locks."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            handle = os.open(folder, os.O_RDONLY)
            held.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
