"""Why an installation failed, and what to do about it: one line, from what pip and others said."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

# What .venv takes with the small build of torch, and as much again while pip unpacks: 1.8 GB are
# what stays. With CUDA it is several times as much, which nobody knows before pip has chosen.
NEEDED_GB = 3.0
NEARLY_FULL = 64 * 2**20  # bytes; some tools only say that they failed
AGAIN = "then run the same command again"
NO_SPACE = re.compile(r"No space left on device|Errno 28|[Qq]uota exceeded")
NO_NETWORK = re.compile(
    r"name resolution|Failed to establish a new connection|Connection (?:refused|timed out|reset)"
    r"|Network is unreachable|Read timed out|ProxyError|ConnectTimeout|nodename nor servname"
)
NOT_FOUND = re.compile(r"No matching distribution found for (\S+)")
NO_COMPILER = re.compile(
    r"command '\S*(?:cc|g\+\+|clang)\S*' failed|No such file or directory: '\S*(?:cc|g\+\+)'"
    r"|CMAKE_C(?:XX)?_COMPILER|[Uu]nable to find a compiler|no acceptable C compiler"
    r"|Unknown compiler\(s\)"
)
OTHER_FILE = re.compile(r"DO NOT MATCH THE HASHES", re.IGNORECASE)
NO_MEMORY = re.compile(r"MemoryError|Cannot allocate memory|out of memory")


def check_space(folder: Path) -> str | None:
    """What to say where the disk of ``folder`` has too little room for an environment."""
    free = shutil.disk_usage(folder).free / 1e9
    if free >= NEEDED_GB:
        return None
    return (
        f"the disk of {folder} has {free:.1f} GB free, and an environment needs {NEEDED_GB:g} GB; "
        f"free some space, or name another folder: make VENV=FOLDER"
    )


def explain(said: str, folder: Path) -> str | None:
    """One line of what went wrong and what to do; None where ``said`` shows no known reason."""
    if NO_SPACE.search(said) or _nearly_full(folder):
        return (
            f"the disk is full; free {NEEDED_GB:g} GB where {folder} lies and where temporary "
            f"files do (TMPDIR), {AGAIN}"
        )
    lacking = NOT_FOUND.search(said)
    if (lacking or "Could not fetch" in said or "Max retries" in said) and NO_NETWORK.search(said):
        return (
            f"no package index was reached ({_first(NO_NETWORK, said)}); connect to a network, or "
            f"name an index (PIP_INDEX_URL), {AGAIN}"
        )
    if NO_COMPILER.search(said):
        return (
            "a package has to be compiled here, and no C and C++ compiler works; install one "
            f"(Debian: apt install build-essential), {AGAIN}"
        )
    if OTHER_FILE.search(said):
        return (
            "the package index gave a file whose hash is not the locked one; take another index "
            f"(PIP_INDEX_URL), {AGAIN}"
        )
    if NO_MEMORY.search(said):
        return f"the machine has not enough memory to install; free some, {AGAIN}"
    if lacking:
        return (
            f"the package index has no {lacking[1]} for this Python and system; take another index "
            f"(PIP_INDEX_URL) or another Python (make PYTHON=python3.12), {AGAIN}"
        )
    return None


def _nearly_full(folder: Path) -> bool:
    places = [place for place in (folder, Path(tempfile.gettempdir())) if place.exists()]
    return any(shutil.disk_usage(place).free < NEARLY_FULL for place in places)


def _first(pattern: re.Pattern[str], said: str) -> str:
    found = pattern.search(said)
    assert found
    return found[0]
