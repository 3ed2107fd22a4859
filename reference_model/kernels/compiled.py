"""C++ beside this file, compiled on first use by the compiler at hand and kept for later runs.

Never needed: without a compiler, a place to write or a processor that is known, the plain way runs
and one notice says why. ``LLM_DESIGN_BENCH_KERNELS=plain`` asks for the plain way.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import filelock
import platformdirs
import torch

from reference_model.errors import notice

VARIABLE = "LLM_DESIGN_BENCH_KERNELS"
# What PyTorch calls a processor → what the compiler may use of it. Any other is known to no path.
PROCESSORS = {
    "AVX512": ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma"),
    "AVX2": ("-mavx2", "-mfma"),
    "DEFAULT": (),
}
COMPILERS = ("c++", "g++", "clang++")
# A sum of products may be rounded once; nothing else about numbers is given up.
OPTIONS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fPIC", "-shared")
PATIENCE = 300.0  # seconds for the compiler, which takes ten


def library(source: str) -> ctypes.CDLL | None:
    """A file of C++ beside this one, compiled for this processor; None, and a notice, without."""
    if os.environ.get(VARIABLE) == "plain":
        return None
    found = _found(source, torch.backends.cpu.get_cpu_capability())
    return found if isinstance(found, ctypes.CDLL) else None


@functools.cache
def _found(source: str, processor: str) -> ctypes.CDLL | str:
    try:
        return compile_and_load(Path(__file__).with_name(source), processor)
    except CannotCompile as reason:
        notice(f"{reason}; attention over compressed caches takes the plain, slower way")
        return str(reason)


class CannotCompile(Exception):
    """Why there is no library, in words."""


def compile_and_load(source: Path, processor: str, folder: Path | None = None) -> ctypes.CDLL:
    """The library of a file of C++, from ``folder`` (the user's cache) if it was compiled before.

    Raises `CannotCompile` where no compiler, no known processor or no place to write is there.
    """
    if processor not in PROCESSORS:
        raise CannotCompile(f"no kernel knows the processor that PyTorch calls {processor}")
    compiler = _compiler()
    command = [*compiler, *OPTIONS, *PROCESSORS[processor]]
    key = hashlib.sha256()
    for part in (source.read_bytes(), "\0".join(command).encode(), _version(compiler)):
        key.update(len(part).to_bytes(8, "little") + part)
    folder = folder or platformdirs.user_cache_path("llm-design-bench", appauthor=False) / "kernels"
    path = folder / f"{source.stem}-{key.hexdigest()[:32]}.so"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with filelock.FileLock(path.with_suffix(".lock")):
                if not path.exists():
                    _compile(command, source, path)
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise CannotCompile(f"{path} cannot be written or loaded ({error})") from None


def _compiler() -> list[str]:
    named = os.environ.get("CXX")
    if named:
        command = shlex.split(named)
        if not shutil.which(command[0]):
            raise CannotCompile(f"there is no compiler called {named!r}, as CXX says")
        return command
    for name in COMPILERS:
        if found := shutil.which(name):
            return [found]
    raise CannotCompile(f"there is no C++ compiler ({', '.join(COMPILERS)})")


def _run(command: list[str]) -> bytes:
    try:
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").split("\n")
        told = next((line for line in lines if " error: " in line), f"status {error.returncode}")
        raise CannotCompile(f"{command[0]} failed ({told.strip()})") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotCompile(f"{command[0]} failed ({error})") from None
    return done.stdout


def _version(compiler: list[str]) -> bytes:
    return _run([*compiler, "--version"])


def _compile(command: list[str], source: Path, path: Path) -> None:
    """Beside its place first, so that nobody loads half a library."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".compiling-") as beside:
        part = Path(beside, path.name)
        _run([*command, "-o", str(part), str(source), "-pthread"])
        os.replace(part, path)
