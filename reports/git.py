"""Git, for whatever here asks it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from reference_model.errors import UserError

# Git sets them for its hooks; with them it would work on that repository wherever it is asked.
LOCAL = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
)
Done = subprocess.CompletedProcess[str]


def run_git(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Done:
    """Whatever its exit status; `UserError` where there is no git. Texts are as UTF-8 has them."""
    inherited = {name: value for name, value in os.environ.items() if name not in LOCAL}
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments],
            # A missing password is an error and no question.
            env={**inherited, "GIT_TERMINAL_PROMPT": "0", **(environment or {})},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        raise UserError("git is not installed, and this works on commits; install git") from None


def git(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """What git answers; `UserError` with its last line where it fails."""
    done = run_git(folder, *arguments, environment=environment)
    if done.returncode != 0:
        raise UserError(f"git {arguments[0]} failed: {last_line(done)}")
    return done.stdout.strip()


def last_line(done: Done) -> str:
    """What git said at the end of a failure."""
    return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
