"""Real runs of the gate, each its own process, on commits of a clone into which a case was put."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.data.git import git
from benchmarks.judging.stats import proportion_interval
from reports.gate.validation import lines
from reports.gate.validation.background_load import beside
from reports.gate.validation.edits import Edit, edit
from reports.gate.validation.injections import INJECTIONS, Injection, edits_of
from reports.gate.validation.targets import SELF, Target, gate_commit
from reports.gate.verdict import Verdict
from reports.gate.workplace import workplace

GATE = "gate"  # beside other tools in one table
IDENTITY = {
    "GIT_AUTHOR_NAME": "validation",
    "GIT_AUTHOR_EMAIL": "validation@example.invalid",
    "GIT_COMMITTER_NAME": "validation",
    "GIT_COMMITTER_EMAIL": "validation@example.invalid",
}


def clone_with(
    repository: Path, name: str, injections: Mapping[str, Injection] = INJECTIONS
) -> AbstractContextManager[Path]:
    """A clone whose HEAD~1 is the repository's HEAD and whose HEAD has the injection."""
    return clone_edited(repository, name, edits_of(name, injections))


@contextmanager
def clone_edited(repository: Path, name: str, edits: Iterable[Edit]) -> Iterator[Path]:
    """A clone whose HEAD~1 is the repository's HEAD and whose HEAD, of this name, has the edits."""
    with workplace() as folder:
        clone = folder / "clone"
        # Line ends as they are stored, for whatever works there.
        ends = ("--config", "core.autocrlf=false", "--config", "core.eol=lf")
        git(repository, "clone", "--quiet", "--no-hardlinks", *ends, str(repository), str(clone))
        edit(clone, name, edits)
        git(clone, "add", "--all")
        git(clone, "commit", "--quiet", "--allow-empty", "--message", name, environment=IDENTITY)
        yield clone


def real_runs(
    path: Path,
    repository: Path,
    name: str,
    runs: int,
    tell: Callable[[str], None],
    background_load: bool = False,
    arguments: tuple[str, ...] = (),
    target: Target = SELF,
) -> None:
    """Up to ``runs`` gates of one case; those of today's protocol that the file has count."""
    known = list(arguments)
    # Stored lines have "neighbour" for a background load.
    alike = lines.of_today(path, kind="real", case=name, neighbour=background_load)
    done = len([record for record in alike if record.get("arguments", []) == known])
    if done >= runs:
        return
    commit = git(repository, "rev-parse", "HEAD")
    stamp = {"target": target.name, "commit": commit, "gate": gate_commit(target)}
    with clone_with(repository, name, target.injections) as clone:
        for number in range(done, runs):
            with beside(background_load, seed=number) as noise:
                record = one_run(clone, arguments, target.gate)
                noise.check()
            record = {"kind": "real", "case": name, "neighbour": background_load, **record}
            record["arguments"] = known
            lines.append(path, record | stamp)
            tell(f"{name}, run {number + 1} of {runs}: {record['verdict']}, {record['seconds']} s")


def one_run(
    clone: Path, arguments: tuple[str, ...] = (), gate: Path | None = None
) -> dict[str, Any]:
    """The gate in the folder ``gate``, or that of the clone itself, from command to verdict."""
    written = clone.parent / "gate.json"
    written.unlink(missing_ok=True)
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "reports.gate", "--base=HEAD~1", "--head=HEAD",
         f"--json={written}", *arguments],
        cwd=clone,
        # Its checkouts go with the clone, even where it is killed.
        env={**os.environ, "PYTHONPATH": str(gate or clone), "TMPDIR": str(clone.parent)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    report = json.loads(written.read_text()) if written.exists() else {}
    kept = ("verdict", "reason", "exact", "timed", "control")
    pairs = report.get("pairs", [])
    return {
        "exit_status": done.returncode,
        "seconds": round(time.monotonic() - started, 1),
        **{key: report.get(key) for key in kept},
        "pairs": len(pairs),
        # What a pair takes depends on how many benchmarks are left to it, the control aside.
        "measured": [len(pair["log_ratios"]) - 1 for pair in pairs],
        "took": [pair["took"] for pair in pairs],
        "machine": [pair["machine"] for pair in pairs],
    }


def as_shipped(path: Path) -> list[dict[str, Any]]:
    """The real runs of the gate without an option."""
    return [record for record in lines.read(path, kind="real") if not record.get("arguments")]


def counted(record: dict[str, Any]) -> dict[str, Any] | None:
    """What the exact layer of a run found; None where it ended before it had compared anything."""
    exact = record.get("exact")
    return exact if exact and exact["compared"] else None


def tally(path: Path, injections: Mapping[str, Injection] = INJECTIONS) -> list[dict[str, Any]]:
    """Per tool and case: how often each verdict, and whether it was the one deserved."""
    found: dict[tuple[str, str, bool], list[dict[str, Any]]] = {}
    for record in [*as_shipped(path), *lines.read(path, kind="rival")]:  # of peers, as stored
        if record["case"] in injections:  # a case that was renamed since is not of this table
            key = (record.get("tool", GATE), record["case"], record["neighbour"])
            found.setdefault(key, []).append(record)
    cases = list(injections)
    ordered = sorted(found, key=lambda key: (cases.index(key[1]), key[0] != GATE, key[0], key[2]))
    return [
        {"tool": key[0], **_row(key[1], injections[key[1]].expected, key[2], found[key])}
        for key in ordered
    ]


def _row(
    case: str, expected: Verdict, background_load: bool, records: list[dict[str, Any]]
) -> dict[str, Any]:
    seconds = sorted(record["seconds"] for record in records)
    statuses = [record["exit_status"] for record in records]
    exact = [found for found in map(counted, records) if found]
    right = statuses.count(int(expected))
    return {
        "case": case,
        "neighbour": background_load,
        "runs": len(records),
        "deserved": expected.words,
        "as deserved": right,
        "share as deserved": list(proportion_interval(right, len(records)).interval),  # 95 %
        "verdicts": {str(status): statuses.count(status) for status in sorted(set(statuses))},
        "median seconds": round(median(seconds), 1),
        "most seconds": seconds[-1],
        # None: nothing was counted, which is not the same as no difference.
        "exact differences": sum(len(each["differences"]) for each in exact) if exact else None,
        "most exact seconds": max((each["seconds"] for each in exact), default=None),
    }
