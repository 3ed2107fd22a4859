"""The fuzzer's judge sees each fault that it counts, and none where there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own, which imports so little that it can fork in peace.
CASES = """
import json, os, sys, time
from pathlib import Path
from tests.fuzz import forked

forked.SECONDS = 1

def case(attempt):
    attempt.what(attempt.folder.name)
    match attempt.folder.name:
        case "good": attempt.outcome("read")
        case "raises": raise KeyError("a key")
        case "hangs": time.sleep(30)
        case "spins":
            while True: pass
        case "grows": bytearray(3 * 2**30)
        case "crashes": os.abort()
        case "lies": attempt.wrong("another answer")
        case "breaks": attempt.damaged("half a file")

verdicts = forked.run_cases(case, sys.argv[2:], Path(sys.argv[1]), at_once=2)
print(json.dumps({verdict.seed: [kind for kind, _ in verdict.faults] for verdict in verdicts}))
"""
SEEN = {
    "good": [],
    "raises": ["traceback"],
    "hangs": ["slow"],
    "spins": ["slow"],
    "grows": ["memory"],
    "crashes": ["crash"],
    "lies": ["wrong"],
    "breaks": ["damaged"],
}


@pytest.mark.skipif(sys.platform != "linux", reason="its limits are those of Linux")
def test_each_fault_is_seen_and_nothing_else(root: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", CASES, str(tmp_path), *SEEN],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(run.stdout) == SEEN
    assert not list(tmp_path.iterdir())
