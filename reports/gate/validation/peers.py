"""What the gate's peers, `asv continuous` and pytest-benchmark's compare-fail, say of its cases.

Both are asked, at their defaults, about the commits and the steps that the gate is asked about. asv
measures each commit in an environment that it builds once per case; pytest-benchmark saves a run of
base and compares one of head with it, failing as in its documentation's example where a minimum
grew by 5 %.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.data.git import for_others, git
from reports.gate.validation import lines
from reports.gate.validation.real import clone_with
from reports.gate.verdict import Verdict

MACHINE = "gate-peers"  # asv keeps what it knows of a machine under a name
STEPS = "bench_gate.Step"
FAILS_AT = "min:5%"


def asv_continuous(clone: Path) -> tuple[Verdict, str]:
    """`asv continuous HEAD~1 HEAD` of the gate's steps."""
    from asv.machine import Machine, MachineCollection

    MachineCollection.save(MACHINE, {**Machine.get_defaults(), "machine": MACHINE})
    base, head = git(clone, "rev-parse", "HEAD~1"), git(clone, "rev-parse", "HEAD")
    text, status = _run(
        clone, "asv", "continuous", base, head, f"--bench={STEPS}", f"--machine={MACHINE}"
    )
    return judged(text, status, "PERFORMANCE DECREASED")


def compare_fail(clone: Path) -> tuple[Verdict, str]:
    """A run of HEAD~1 that is saved, then one of HEAD that is compared with it."""
    head, stored = git(clone, "rev-parse", "HEAD"), clone.parent / "stored"
    shutil.rmtree(stored, ignore_errors=True)
    pytest = (
        "pytest", "-c", os.devnull, f"--rootdir={clone}", "-p", "no:cacheprovider",
        f"--benchmark-storage={stored.as_uri()}", "reports/gate/validation/pytest_steps.py",
    )  # fmt: skip
    try:
        git(clone, "checkout", "--quiet", "HEAD~1")
        text, status = _run(clone, *pytest, "--benchmark-save=base")
        if status:
            return Verdict.ERROR, _last_line(text)
    finally:
        git(clone, "checkout", "--quiet", head)
    text, status = _run(
        clone, *pytest, "--benchmark-compare", f"--benchmark-compare-fail={FAILS_AT}"
    )
    return judged(text, status, "Performance has regressed")


PEERS: dict[str, Callable[[Path], tuple[Verdict, str]]] = {
    "asv continuous": asv_continuous,
    "pytest-benchmark compare-fail": compare_fail,
}


def judged(text: str, status: int, said: str) -> tuple[Verdict, str]:
    """A regression only where it was ``said``: both tools fail with the same status for errors."""
    if said in text:
        return Verdict.REGRESSION, said
    return (Verdict.ERROR if status else Verdict.PASS), _last_line(text)


def peer_runs(
    path: Path, repository: Path, tool: str, case: str, runs: int, tell: Callable[[str], None]
) -> None:
    """Up to ``runs`` comparisons of one case by one tool; those that the file has count."""
    # Stored lines have "rival" for a peer, and "neighbour" for a background load.
    done = len(lines.of_today(path, kind="rival", tool=tool, case=case))
    if done >= runs:
        return
    commit = git(repository, "rev-parse", "HEAD")
    with clone_with(repository, case) as clone:
        for number in range(done, runs):
            started = time.monotonic()
            verdict, reason = PEERS[tool](clone)
            record: dict[str, Any] = {
                "kind": "rival",
                "tool": tool,
                "case": case,
                "neighbour": False,
                "exit_status": int(verdict),
                "reason": reason,
                "seconds": round(time.monotonic() - started, 1),
            }
            lines.append(path, record | {"commit": commit})
            told = f"{verdict.words}, {record['seconds']} s"
            tell(f"{tool}, {case}, run {number + 1} of {runs}: {told}")


def _run(clone: Path, module: str, *arguments: str) -> tuple[str, int]:
    """Everything that was written, and the exit status."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, *arguments],
        cwd=clone,
        # asv installs the model of each commit; only pytest shall import that of the clone.
        env=for_others() | ({"PYTHONPATH": str(clone)} if module == "pytest" else {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout, done.returncode


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
