"""A repository made on the fly for the validation to gate: this project is only one more target."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.data.git import git
from reports.gate.checkouts import WORKER
from reports.gate.workplace import workplace

ROOT = Path(__file__).resolve().parents[4]
FILES = Path(__file__).with_name("repository")
NAMED = {
    "NAME": "validation",
    "EMAIL": "validation@example.invalid",
    "DATE": "2026-01-01T00:00:00Z",
}
# The same files are the same commit, whoever makes it and when.
IDENTITY = {
    f"GIT_{role}_{name}": value for role in ("AUTHOR", "COMMITTER") for name, value in NAMED.items()
}


@contextmanager
def repository() -> Iterator[Path]:
    """One commit of the files that are kept here, and of this gate's worker beside them."""
    with workplace() as folder:
        made = folder / "toy"
        shutil.copytree(FILES, made, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / WORKER, made / WORKER)
        git(made, "init", "--quiet", "--initial-branch=main")
        git(made, "add", "--all")
        git(made, "commit", "--quiet", "--message", "A toy and its gate", environment=IDENTITY)
        yield made
