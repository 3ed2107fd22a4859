"""Names and values that a shell, git or a terminal would take for something else."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from reference_model.__main__ import main as model_main
from reports.__main__ import main as reports_main
from reports.gate.command import main as gate_main
from tests.fuzz.commands import call
from tests.fuzz.forked import Attempt
from tests.fuzz.results import PUBLISHED

ROOT = Path(__file__).resolve().parents[2]
CANARY = "hacked"
VALUES = (
    f"$(touch {CANARY})",
    f"`touch {CANARY}`",
    f"; touch {CANARY} ;",
    f"x && touch {CANARY}",
    f"x | touch {CANARY}",
    f"x > {CANARY}",
    f"'; touch {CANARY}; '",
    f'"; touch {CANARY}; "',
    f"'$(touch {CANARY})'",
    f'"`touch {CANARY}`"',
    f"$(shell touch {CANARY})",
    f"${{shell touch {CANARY}}}",
    f"$$(touch {CANARY})",
    f"\\'; touch {CANARY} #",
    f"x\n\ttouch {CANARY}",
    f"x\ntouch {CANARY}",
    f"--output={CANARY}",
    f"--upload-pack=touch {CANARY}",
    "a b",
    " a ",
    "'",
    '"',
    "it's",
    "*",
    "~",
    "$HOME",
    "${IFS}",
    "$",
    "#x",
    "%",
    "\\",
    "-h",
    "--help",
    "-",
    "--",
    "!x",
    "a..b",
    ":/x",
    "HEAD^{tree}",
    "@{-1}",
    "x" * 3000,
    "\x1b[2J\x1b]0;x\x07",
    "\u202egnp.x",
    "été",
    "a\rb",
    "a\tb",
)
# What only the first word of a command sees, instead of Python: it writes its words down.
RECORDER = """#!/bin/sh
for word in "$@"; do printf '%s\\0' "$word"; done >> "$RECORDED"
printf '\\1\\0' >> "$RECORDED"
"""


class HostileNames:
    """200 values: of make's variables, of revisions, of files and folders."""

    name, cases = "names and values", 200

    def __init__(self, folder: Path) -> None:
        self.repository = folder / "repository"
        self.repository.mkdir()
        for name in ("Makefile", "requirements.txt"):
            shutil.copy(ROOT / name, self.repository)
        for path in ROOT.glob("requirements*"):
            shutil.copy(path, self.repository)
        if (ROOT / ".ci").exists():
            shutil.copytree(ROOT / ".ci", self.repository / ".ci")
        (self.repository / "benchmarks" / "peers").mkdir(parents=True)
        (self.repository / "benchmarks" / "data").mkdir()
        (self.repository / "benchmarks" / "data" / "assets.py").touch()
        shutil.copy(
            ROOT / "benchmarks/peers/requirements.txt", self.repository / "benchmarks/peers"
        )
        subprocess.run(["git", "init", "-q", "-b", "main", self.repository], check=True)
        who = ("-c", "user.name=N", "-c", "user.email=n@example.org")
        for n in range(2):
            subprocess.run(
                ["git", *who, "commit", "-q", "--allow-empty", "-m", str(n)],
                cwd=self.repository,
                check=True,
            )

    def __call__(self, attempt: Attempt) -> None:
        value = attempt.random.choice(VALUES)
        ways: tuple[Callable[[Attempt, str], None], ...] = (
            self._make, self._make, self._make_in_a_folder,
            self._revision, self._path, self._missing,
        )  # fmt: skip
        way = attempt.random.choice(ways)
        attempt.what(f"{way.__name__.strip('_')}: {ascii(value)[:60]}")
        way(attempt, value)
        if list(attempt.folder.rglob(CANARY)):
            attempt.wrong("the value was run as a command")

    def _make(self, attempt: Attempt, value: str) -> None:
        self._run_make(attempt, attempt.folder / "checkout", value)

    def _make_in_a_folder(self, attempt: Attempt, value: str) -> None:
        """The value as the name of the checkout's folder."""
        name = value.replace("/", "_")[:200]
        if name in ("-", "--") or not name.strip("."):
            name = f"x{name}"
        self._run_make(attempt, attempt.folder / name, "HEAD~1")

    def _run_make(self, attempt: Attempt, checkout: Path, value: str) -> None:
        shutil.copytree(self.repository, checkout)
        venv = checkout / ".venv"
        (venv / "bin").mkdir(parents=True)
        python = venv / "bin" / "python"
        python.write_text(RECORDER)
        python.chmod(python.stat().st_mode | stat.S_IXUSR)
        target, variable = attempt.random.choice(
            (("gate", "BASE"), ("gate", "HEAD"), ("report", "PROFILE"), ("history", "MACHINE"))
        )
        recorded = attempt.folder / "recorded"
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
        environment["RECORDED"] = str(recorded)
        arguments = ["make", "--no-print-directory", f"PYTHON={sys.executable}", target]
        if attempt.random.random() < 0.5 and "\0" not in value:
            environment[variable] = value
        else:
            arguments.append(f"{variable}={value}")
        done = subprocess.run(
            arguments, cwd=checkout, env=environment, capture_output=True, check=False
        )
        words = recorded.read_bytes().split(b"\0") if recorded.exists() else []
        given = value.encode()
        if not any(given in word for word in words) and not _refused(done):
            attempt.wrong(f"make {target} did not pass {variable} on: {done.stderr[-200:]!r}")
        attempt.outcome("read" if done.returncode == 0 else "refused")

    def _revision(self, attempt: Attempt, value: str) -> None:
        if value in ("-h", "--help"):
            return
        os.chdir(self.repository)
        call(attempt, gate_main, [f"--base={value}", "--head=HEAD"])

    def _path(self, attempt: Attempt, value: str) -> None:
        path = attempt.folder / value.replace("/", "_")[:100]
        shutil.copy(PUBLISHED, path)
        out = path.with_name(f"{path.name}.csv")
        done = call(attempt, reports_main, ["csv", str(path), "--out", str(out)])
        if done.status or not out.exists():
            attempt.wrong(f"not read or not written: {done.stderr[:100]!r}")

    def _missing(self, attempt: Attempt, value: str) -> None:
        path = attempt.folder / value.replace("/", "_")[:100]
        call(attempt, model_main, ["generate", "--checkpoint", str(path)])


def _refused(done: subprocess.CompletedProcess[bytes]) -> bool:
    return done.returncode != 0 and b"error: " in done.stderr
