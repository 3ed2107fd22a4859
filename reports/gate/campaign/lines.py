"""A file of JSON lines that grows by one observation at a time: a campaign can be resumed."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.git import git
from reference_model.errors import UserError
from reference_model.printing import warn

# Of reports/gate: the campaign itself, how a report looks, and what equal commits have no need of.
NOT_MEASURED = (
    *("/campaign", "/output.py", "/page.py", "/page.html.j2", "/simulate.py"),
    "/environments.py",
)


def append(path: Path, record: dict[str, Any]) -> None:
    """One whole line, on the disk before this returns."""
    line = json.dumps(record, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            if file.tell() and not path.read_bytes().endswith(b"\n"):
                file.write("\n")  # the line before was cut off
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror}") from None


def read(path: Path, **wanted: Any) -> list[dict[str, Any]]:
    """The records with these fields; empty without a file.

    A line that was cut off, or is no record, is named on the standard error and skipped.
    """
    if not path.exists():
        return []
    records = []
    content = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(content.split("\n"), start=1):
        if not line:
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            _say_skipped(path, number)
        elif all(record.get(k) == v for k, v in wanted.items()):
            records.append(record)
    return records


def measured_gate(path: Path, repository: Path) -> str | None:
    """git's names for the gate, the suite and the model that the records are of; None: no records.

    `UserError` where they are not all of one: their error rates would be those of neither.
    """
    commits = dict.fromkeys(record.get("commit", "") for record in read(path))
    found = {commit: gate_of(repository, commit) for commit in commits}
    if len(set(found.values())) > 1:
        named = ", ".join(commit[:12] or "unknown" for commit in found)
        raise UserError(
            f"{path} holds records of different gates, at commits {named}; keep those of one"
        )
    return next(iter(found.values()), None)


def check_gate(path: Path, repository: Path) -> None:
    """`UserError` where the file's records are of another gate than the one checked out."""
    known = measured_gate(path, repository)
    if known is not None and known != gate_of(repository, "HEAD"):
        raise UserError(
            f"{path} holds records of another gate, suite or model than HEAD's; go on at their "
            "commit, or begin a new file with --lines"
        )


def gate_of(repository: Path, commit: str) -> str:
    """What of a commit a campaign measures: not its own code, nor how a report looks."""
    measured = ("benchmarks", "reference_model", "requirements.txt", "requirements-torch.txt")
    listed = git(repository, "ls-tree", "--full-tree", commit, "--", *measured)
    gate = git(repository, "ls-tree", "--full-tree", commit, "--", "reports/gate/").splitlines()
    return "\n".join([listed, *(line for line in gate if not line.endswith(NOT_MEASURED))])


@cache  # a campaign reads its lines many times
def _say_skipped(path: Path, number: int) -> None:
    warn(f"skipped: line {number} of {path} was cut off, or is no record")
