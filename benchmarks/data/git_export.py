"""Files as git stores them, without a checkout.

What a checkout writes is decided by settings, attributes, filters (git-lfs) and hooks, and a
worktree is registered in the repository, where it stays if its owner is killed.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import IO, NamedTuple

from benchmarks.data.git import started
from reference_model.errors import UserError

SUBMODULE, LINK, PROGRAM = "160000", "120000", "100755"  # modes
CHUNK = 1 << 20  # bytes


class Entry(NamedTuple):
    mode: str
    name: str  # of the object
    path: str  # relative, with slashes; bytes that are not UTF-8 as the system's names have them


def entries(repository: Path, tree: str) -> list[Entry]:
    """All files, links and submodules of a commit or tree."""
    with started(repository, "ls-tree", "-r", "-z", "--full-tree", tree) as output:
        lines = output.read().split(b"\0")
    found = []
    for line in filter(None, lines):
        described, _, path = line.partition(b"\t")
        mode, _, name = described.decode().split()
        found.append(Entry(mode, name, os.fsdecode(path)))
    return found


def export(repository: Path, tree: str, folder: Path) -> list[Entry]:
    """Write the files of a commit or tree to ``folder``, each byte as git stores it; what it wrote.

    Of a submodule there is an empty folder. `UserError` where git lacks a file's content, or it
    cannot be written.
    """
    # Links come last, so that nothing is written through one.
    wanted = sorted(entries(repository, tree), key=lambda entry: entry.mode == LINK)
    stored = [entry for entry in wanted if entry.mode != SUBMODULE]
    with tempfile.TemporaryFile() as names:
        names.write("".join(f"{entry.name}\n" for entry in stored).encode())
        names.seek(0)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for entry in wanted:
                if entry.mode == SUBMODULE:
                    _place(folder, entry).mkdir(parents=True)
            with started(repository, "cat-file", "--batch", given=names) as output:
                for entry in stored:
                    _write(_place(folder, entry), entry, output)
        except OSError as error:
            raise UserError(
                f"cannot write the files of {tree} to {folder} ({error.strerror}); free some space "
                "there, or name another place in TMPDIR"
            ) from None
    return wanted


def _place(folder: Path, entry: Entry) -> Path:
    parts = entry.path.split("/")
    if not {"", ".", "..", ".git"}.isdisjoint(parts):
        raise UserError(
            f"git stores a file named {entry.path!r}, which no folder can hold; rename it"
        )
    return folder.joinpath(*parts)


def _write(place: Path, entry: Entry, batch: IO[bytes]) -> None:
    # "NAME blob SIZE", "NAME missing", or nothing where git has ended
    if not (described := batch.readline().split()):
        raise EOFError
    if described[1] != b"blob":
        raise UserError(f"git lacks the content of {entry.path}; git fsck tells what is damaged")
    size = int(described[2])
    place.parent.mkdir(parents=True, exist_ok=True)
    if entry.mode == LINK:
        place.symlink_to(os.fsdecode(_exactly(batch, size)))
    else:
        rights = 0o777 if entry.mode == PROGRAM else 0o666
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(place, flags, rights), "wb") as file:
            for start in range(0, size, CHUNK):
                file.write(_exactly(batch, min(CHUNK, size - start)))
    _exactly(batch, 1)  # the end of a line


def _exactly(batch: IO[bytes], size: int) -> bytes:
    if len(content := batch.read(size)) != size:
        raise EOFError
    return content
