"""The one writer of outputs: a file is whole or not there, and stays what its place is.

A link stays one, and what it leads to is written. A file keeps its mode and, as far as this process
may give it, its owner; a second hard link keeps the old content. Into a device, a pipe or an open
file such as /dev/stdout it is written, never put in its place.
"""

import contextlib
import os
import re
import secrets
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from reference_model.errors import UserError

# On Linux /dev/stdout and /dev/fd lead there; elsewhere the first is a name of its own.
OPEN_FILE = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
MOST_LINKS = 40  # Linux follows no more either


def write_whole(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files (name → content) to a folder: beside their places first, then all renamed.

    A full disk or a read-only place is a `UserError`; what was there before then stays as it was.
    Of two processes that write the same files, all are those of the one or all those of the other.
    """
    parts: dict[Path, Path] = {}  # what is written -> where it belongs
    streams: dict[Path, bytes] = {}
    place = folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            place = folder / name
            if _is_stream(place):
                streams[place] = content
                continue
            target = Path(os.path.realpath(place))
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f".{target.name[:40]}.{secrets.token_hex(8)}.part")
            parts[part] = target
            _write_part(part, content, target)
        with _alone_in(folder) if len(parts) > 1 else contextlib.nullcontext():
            for part, target in parts.items():
                os.replace(part, target)
        for parent in {target.parent for target in parts.values()}:
            _sync_folder(parent)
        for place, content in streams.items():
            with contextlib.suppress(BrokenPipeError):  # who read along has seen enough
                _write_through(place, content)
    except OSError as error:
        raise _refused(place, error) from None
    finally:
        for part in parts:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """`UserError` where a file cannot be written there: before hours of work, not after.

    Folders that are missing will be made, as `write_whole` does; nothing is left behind.
    """
    try:
        if _is_stream(path):
            return
        target = Path(os.path.realpath(path))
        _check_replaceable(target)
        folder = target.parent
        while not folder.exists():
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _refused(path, error) from None


def _refused(place: Path, error: OSError) -> UserError:
    reason = error.strerror or error
    return UserError(f"cannot write to {place} ({reason}); free some space or name another folder")


def _is_stream(place: Path) -> bool:
    """Whether it takes bytes and keeps no file; `UserError` where it takes none at all."""
    if _open_file(place) is not None:
        return True
    try:
        mode = place.stat().st_mode
    except FileNotFoundError:  # so is what a link may lead to
        return False
    if stat.S_ISDIR(mode):
        raise UserError(f"cannot write to {place}: it is a folder; name a file in it")
    if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        raise UserError(f"cannot write to {place}: it is a disk or a socket; name a file")
    return not stat.S_ISREG(mode)


def _open_file(place: Path) -> int | None:
    """The number of this process' open file that a path such as /dev/stdout stands for."""
    place = Path(os.path.abspath(place))
    for _ in range(MOST_LINKS):
        if found := OPEN_FILE.fullmatch(str(place)):
            return int(found[1])
        if not place.is_symlink():
            break
        place = place.parent / place.readlink()
    return None


def _write_through(place: Path, content: bytes) -> None:
    number = _open_file(place)
    if number is None:
        descriptor = os.open(place, os.O_WRONLY)
    else:
        if sys.stdout is not None:
            sys.stdout.flush()
        descriptor = os.dup(number)  # the same place in the file; opened again, it would be 0
    with open(descriptor, "wb") as stream:
        stream.write(content)


def _check_replaceable(target: Path) -> None:
    """`OSError` where a file may not be written, which a rename would not ask."""
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(13, os.strerror(13))


def _write_part(part: Path, content: bytes, target: Path) -> None:
    """Write ``part`` to the disk, with the mode and owner of the file that it will replace."""
    _check_replaceable(target)
    # By the umask, as any new file; nobody else has made this one.
    with open(part, "xb") as file:
        with contextlib.suppress(FileNotFoundError):
            before = target.stat()
            if hasattr(os, "fchown"):  # not on Windows
                with contextlib.suppress(OSError):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Put the names on the disk, too, as far as the system can."""
    with contextlib.suppress(OSError), _opened(folder) as descriptor:
        os.fsync(descriptor)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)  # an OSError on Windows
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """While no other process puts its files there; as far as the system has locks of folders."""
    import filelock  # a tenth of a second, for what few commands need

    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            filelock.lock_descriptor(held.enter_context(_opened(folder)))
        yield
