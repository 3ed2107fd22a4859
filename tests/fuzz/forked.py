"""A case in a process of its own: forked with everything imported, bounded in time and memory."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 20
MEMORY = 2 * 2**30  # bytes beyond what the process has when it is forked
OUT_OF_MEMORY = (
    "MemoryError",
    "can't allocate memory",
    "Cannot allocate memory",
    "not enough memory",
)


class Attempt:
    """What a case tells of itself while it runs: in a file, so that it is known if it is killed."""

    def __init__(self, folder: Path, seed: str) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self._notes = (folder / "notes").open("a", encoding="utf-8", buffering=1)

    def note(self, kind: str, text: str) -> None:
        print(json.dumps([kind, text]), file=self._notes)

    def what(self, text: str) -> None:
        """What was changed."""
        self.note("what", text)

    def outcome(self, text: str) -> None:
        """Read, refused, or told: for the counts."""
        self.note("outcome", text)

    def wrong(self, text: str) -> None:
        """An answer that is known to be another one, without a word."""
        self.note("wrong", text)

    def damaged(self, text: str) -> None:
        """An output, or something beside it, that is not what it was and not whole."""
        self.note("damaged", text)


@dataclass
class Verdict:
    """What came of one case: ``faults`` is empty where it is as it should be."""

    seed: str
    what: str = "?"
    outcomes: list[str] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)  # kind, what was seen
    seconds: float = 0.0


Case = Callable[[Attempt], None]


def run_cases(case: Case, seeds: list[str], scratch: Path, at_once: int) -> Iterator[Verdict]:
    """The verdict on each seed, as they end; each has an empty folder, removed afterwards."""
    waiting = list(reversed(seeds))
    running: dict[int, tuple[str, Path, float]] = {}
    while waiting or running:
        while waiting and len(running) < at_once:
            seed = waiting.pop()
            folder = scratch / seed.replace("/", "-")
            folder.mkdir(parents=True)
            running[_fork(case, seed, folder)] = (seed, folder, time.monotonic())
        ended, status, usage = os.wait4(-1, os.WNOHANG)
        if not ended:
            for pid, (_, folder, started) in running.items():
                if time.monotonic() - started > SECONDS and not (folder / "late").exists():
                    (folder / "late").touch()
                    os.killpg(pid, signal.SIGKILL)
            time.sleep(0.002)  # waits for a child, which os.wait4 cannot with a limit
            continue
        if ended not in running:
            continue
        seed, folder, started = running.pop(ended)
        yield _verdict(seed, folder, status, usage, time.monotonic() - started)
        shutil.rmtree(folder, ignore_errors=True)


def warm_up(case: Case, folder: Path) -> None:
    """Run one case here, so that every later one finds all modules imported. It is not judged."""
    folder.mkdir()
    before = os.getcwd()
    with (
        contextlib.suppress(Exception),
        (folder / "said").open("w") as said,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        case(Attempt(folder, "warm"))
    os.chdir(before)


def _fork(case: Case, seed: str, folder: Path) -> int:
    pid = os.fork()
    if pid:
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        return pid
    status = 70
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        if not getattr(case, "reserves_addresses", False):
            held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
            resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for stream, name in ((0, None), (1, "stdout"), (2, "stderr")):
            flags = os.O_RDONLY if name is None else os.O_CREAT | os.O_WRONLY | os.O_APPEND
            os.dup2(os.open(name or os.devnull, flags, 0o600), stream)
        case(Attempt(folder, seed))
        sys.stdout.flush()
        sys.stderr.flush()
        status = 0
    except BaseException:
        traceback.print_exc()
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
    finally:
        os._exit(status)


def _verdict(
    seed: str, folder: Path, status: int, usage: resource.struct_rusage, seconds: float
) -> Verdict:
    verdict = Verdict(seed, seconds=seconds)
    notes = (folder / "notes").read_text(encoding="utf-8") if (folder / "notes").exists() else ""
    for kind, text in (json.loads(line) for line in notes.splitlines()):
        if kind == "what":
            verdict.what = text
        elif kind == "outcome":
            verdict.outcomes.append(text)
        else:
            verdict.faults.append((kind, text))
    said = (folder / "stderr").read_text(encoding="utf-8", errors="replace")
    if any(sign in said for sign in OUT_OF_MEMORY):
        verdict.faults.append(("memory", _last_line(said)))
    elif "Traceback (most recent call last)" in said:
        verdict.faults.append(("traceback", _last_line(said)))
    beyond = 1024 * (usage.ru_maxrss - resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    if beyond > MEMORY:
        verdict.faults.append(("memory", f"{beyond / 2**30:.1f} GiB"))
    if (folder / "late").exists() or seconds > SECONDS:
        verdict.faults.append(("slow", f"{seconds:.0f} s"))
    elif os.WIFSIGNALED(status):
        verdict.faults.append(("crash", signal.Signals(os.WTERMSIG(status)).name))
    elif os.WEXITSTATUS(status) and not verdict.faults:
        verdict.faults.append(("crash", f"exit status {os.WEXITSTATUS(status)}"))
    return verdict


def _last_line(said: str) -> str:
    lines = [line for line in said.strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
