"""The pytest-benchmark suite: grouped, counted beside the clock, out of sight of asv."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

MICRO = Path("benchmarks/micro")


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    # Under xdist, of which these variables tell, nothing is measured.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}
    environment["OMP_NUM_THREADS"] = "1"
    return subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )


def test_a_run_that_measures_says_bytes_flops_threads_and_share_of_the_limit(
    root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "micro.json"
    quick = ["--benchmark-enable", "--benchmark-max-time=0.001", "--benchmark-min-rounds=2"]
    done = run(root, *quick, f"--benchmark-json={out}", str(MICRO / "test_norms.py"))
    assert done.returncode == 0, done.stdout
    measured = json.loads(out.read_text())["benchmarks"]
    assert len(measured) == 4
    for entry in measured:
        assert entry["group"] == "norms"
        assert set(entry["extra_info"]) == {"bytes", "flops", "threads", "share_of_limit"}
        assert entry["extra_info"]["bytes"] > 0
        assert entry["extra_info"]["share_of_limit"] > 0


def test_without_being_asked_nothing_is_measured(root: Path, tmp_path: Path) -> None:
    done = run(root, str(MICRO / "test_norms.py"), "-q")
    assert done.returncode == 0
    assert "4 passed" in done.stdout
    assert "Rounds" not in done.stdout


def test_every_micro_benchmark_has_a_group(root: Path) -> None:
    for path in sorted((root / MICRO).glob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        assert text.count("\ndef test_") == text.count("@pytest.mark.benchmark(group=") > 0, path


def test_asv_does_not_enter(root: Path) -> None:
    # It imports every module of a package; what it then discovers is held by test_asv_suite.
    assert not (root / MICRO / "__init__.py").exists()
