"""An environment of what is locked: complete, or not there. It needs nothing but Python and pip.

`python -m benchmarks.set_up FOLDER` makes it, unless it is complete. What was stopped half-way is
made anew. Of two at once one waits: the lock is held by pip as well, which may outlive a set-up
that is killed, and ends with the last of them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.data import locks
from benchmarks.data.install_failures import check_space, explain
from benchmarks.data.locks import ROOT
from reference_model.command_line import Parser, exit_status
from reference_model.errors import UserError
from reference_model.printing import warn

LOCK, BEGUN, COMPLETE, TEXTS = ".lock", ".begun", ".complete", ".texts"  # in the folder
LOG = "set_up.log"  # all that was said by what failed, in the folder
# As pip says that it has no such build; the second, where somebody's constraints speak of torch.
NOT_FOUND = ("No matching distribution found for torch", "Cannot install torch")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status; with --check 1 where something is to do."""

    def command() -> int:
        given = _parser().parse_args(arguments)
        more = [(given.peers, locks.PEERS), (given.ray, locks.RAY), (given.triton, locks.TRITON)]
        names = [*(name for asked, name in more if asked), locks.MAIN]
        environment = Environment(given.folder.absolute(), [ROOT / name for name in names])
        if given.check:
            done = environment.is_complete() and (environment.has_texts() or not given.texts)
            return 0 if done else 1
        try:
            environment.make(given.texts)
        except Failed as failed:
            raise UserError(environment.told(failed)) from None
        return 0

    return exit_status(command)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.set_up",
        description="Make an environment with the locked packages, unless it is complete.",
        example=".venv --texts",
        statuses={
            0: "the environment is complete",
            1: "with --check: it is not complete",
            2: "it could not be made: one line says what to do",
            130: "interrupted; the next call makes it anew",
        },
    )
    parser.add_argument("folder", type=Path, help="folder of the environment, such as .venv")
    parser.add_argument("--peers", action="store_true", help="add the packages of make peers")
    parser.add_argument("--ray", action="store_true", help="add Ray")
    parser.add_argument("--triton", action="store_true", help="add Triton")
    parser.add_argument("--texts", action="store_true", help="fetch the texts, too")
    parser.add_argument("--check", action="store_true", help="change nothing, and only say")
    return parser


class Environment:
    """A folder with an environment of Python: some locks are installed there, and one of torch."""

    def __init__(self, folder: Path, wanted: Sequence[Path]) -> None:
        self.folder, self.wanted = folder, wanted
        self.torch = [ROOT / locks.TORCH_CPU, ROOT / locks.TORCH]
        self.python = python_of(folder)

    def is_complete(self) -> bool:
        """Whether these very locks were installed to the end, and pip is there for the next."""
        done = self._says(COMPLETE, _digest(*self.torch, *self.wanted))
        places = ("lib/python3*/site-packages", "Lib/site-packages")
        has_pip = any(any(self.folder.glob(f"{place}/pip/__main__.py")) for place in places)
        return done and not self._begun() and has_pip and self.python.exists()

    def has_texts(self) -> bool:
        return self._says(TEXTS, _digest(ROOT / "benchmarks" / "data" / "assets.py"))

    def make(self, texts: bool) -> None:
        """`UserError` where a step fails; what was asked for is done then by the next call."""
        try:
            with _alone(self.folder) as held:
                if not self.is_complete():
                    self._install(held)
                if texts and not self.has_texts():
                    run([str(self.python), "-m", "benchmarks.data.assets"], held)
                    self._say(TEXTS, _digest(ROOT / "benchmarks" / "data" / "assets.py"))
        except OSError as error:
            raise UserError(
                f"cannot make {self.folder} ({error.strerror or error}); free some space or name "
                "another folder"
            ) from None

    def told(self, failed: Failed) -> str:
        """Why a step failed and what to do; all that it said is kept in the folder's log."""
        why = explain(failed.said, self.folder) or str(failed)
        try:
            (self.folder / LOG).write_text(f"{failed.said}\n", encoding="utf-8")
        except OSError:
            return why
        return f"{why} (all that was said: {self.folder / LOG})"

    def _install(self, held: int) -> None:
        warn(f"setting up {self.folder}, which takes a minute or more")
        keep = not self._begun() and self._pip_runs(held)
        (self.folder / BEGUN).touch()
        if not keep:
            _empty(self.folder)
            if lacking := check_space(self.folder):
                raise UserError(lacking)
            create(self.folder, held)
        install(self.python, self.wanted, self.torch, held)
        self._say(COMPLETE, _digest(*self.torch, *self.wanted))
        (self.folder / BEGUN).unlink()

    def _begun(self) -> bool:
        """Whether something began to change it and did not end."""
        return (self.folder / BEGUN).exists()

    def _pip_runs(self, held: int) -> bool:
        with suppress(OSError, Failed):
            run([str(self.python), "-m", "pip", "--version"], held)
            return True
        return False

    def _says(self, stamp: str, wanted: str) -> bool:
        with suppress(OSError, ValueError):
            return (self.folder / stamp).read_text(encoding="utf-8") == wanted
        return False

    def _say(self, stamp: str, content: str) -> None:
        part = self.folder / f"{stamp}.part"
        part.write_text(content, encoding="utf-8")
        os.replace(part, self.folder / stamp)


def python_of(folder: Path) -> Path:
    """The interpreter of an environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def create(folder: Path, held: int | None = None) -> None:
    """An environment without packages, of the Python that runs this."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise UserError(
            f"{sys.executable} cannot create environments; install its venv module "
            "(Debian: apt install python3-venv)"
        ) from None
    # This may itself be the interpreter of the environment that was just emptied.
    python = getattr(sys, "_base_executable", None) or sys.executable
    run([python, "-m", "venv", str(folder)], held)


def install(
    python: Path, wanted: Sequence[Path], torch: Sequence[Path], held: int | None = None
) -> None:
    """Install lists of requirements, and with them torch: the first lock that pip finds a build of.

    `Failed` where pip fails.
    """
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if torch:  # locks, and no plain list of an old commit
        pip.append("--require-hashes")
    for lock in torch or (None,):
        lists = [lock, *wanted] if lock else wanted
        try:
            run([*pip, *(f"--requirement={path}" for path in lists)], held)
            return
        except Failed as failed:
            if not any(each in failed.said for each in NOT_FOUND) or lock == torch[-1]:
                raise
            warn(f"pip finds no build of torch as in {lock.name if lock else ''}; taking another")


class Failed(UserError):
    """A command failed; ``said`` is all that it printed."""

    said = ""


def run(command: Sequence[str], held: int | None = None) -> None:
    """Run it from the repository's top; `Failed` where it does."""
    # A file, not a pipe: what outlives this process must not end at its next word.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=() if held is None or os.name == "nt" else (held,),
            check=False,
        )
        output.seek(0)
        said = output.read().decode("utf-8", "replace").strip()
    if done.returncode != 0:
        lines = said.splitlines() or [f"exit status {done.returncode}"]
        told = [line[7:] for line in lines if line.lower().startswith("error: ")] or lines
        reason = told[-1] if done.returncode > 0 else f"ended by signal {-done.returncode}"
        failed = Failed(f"{' '.join(command[1:4])} failed: {reason}")
        failed.said = said
        raise failed


@contextmanager
def _alone(folder: Path) -> Iterator[int]:
    """While nobody else makes this environment; yields what holds the lock."""
    folder.mkdir(parents=True, exist_ok=True)
    there = {entry.name for entry in folder.iterdir()}
    if there and not there & {LOCK, "pyvenv.cfg"}:
        raise UserError(
            f"{folder} holds something else than an environment of Python; name another folder"
        )
    with (folder / LOCK).open("a") as lock:
        if not _acquire(lock.fileno(), wait=False):
            warn(f"another set-up of {folder} is under way; waiting for it")
            _acquire(lock.fileno(), wait=True)
        yield lock.fileno()


def _acquire(descriptor: int, wait: bool) -> bool:
    """Whether the lock is held now. The system takes it back when its last holder ends."""
    if sys.platform == "win32":
        import msvcrt

        while True:
            with suppress(OSError):
                msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
                return True
            if not wait:
                return False
    else:
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True


def _empty(folder: Path) -> None:
    """Remove everything but the lock, which another process may wait for, and the mark."""
    for entry in folder.iterdir():
        if entry.name in (LOCK, BEGUN):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _digest(*files: Path) -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
