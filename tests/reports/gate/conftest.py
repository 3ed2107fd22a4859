"""Small repositories, real to git, whose model and suite take no time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.data.git import git

SUITE = """
from types import SimpleNamespace
TIMED = ("bench_gate.Step.time_step",)
EXACT = {"bench_gate.Work.track_flops": SimpleNamespace(better="lower", tolerance=0.0)}
"""
MODEL = """
import time
BYTES = 100
def step():
    end = time.perf_counter() + 0.001
    while time.perf_counter() < end:
        pass
"""
BENCH = """
class Step:
    params = (("one", "two"),)
    def setup(self, name):
        import reference_model
        if not hasattr(reference_model, "step"):
            raise NotImplementedError("this commit has no step")
        self.step = reference_model.step
    def time_step(self, name):
        self.step()

class Work:
    params = (("held",),)
    def setup(self, name):
        import reference_model
        if not hasattr(reference_model, "BYTES"):
            raise NotImplementedError("this commit has no bytes")
        self.bytes = reference_model.BYTES
    def track_flops(self, name):
        return self.bytes
"""
# Of torch the worker needs this much, and the real one takes seconds to import in each process.
TORCH = """
__version__ = "0"
class cuda:
    is_available = staticmethod(lambda: False)
def get_num_threads():
    return 1
def set_num_threads(count):
    pass
"""


class Repository:
    """A repository to commit to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.name", "test")
        self.git("config", "user.email", "test@example.invalid")

    def git(self, *arguments: str) -> str:
        return git(self.path, *arguments)

    def write(self, name: str, text: str) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_text(text, encoding="utf-8")

    def commit(self, **files: str) -> str:
        """Write files ("reference_model/__init__.py" spelt model) and commit everything."""
        places = {
            "model": "reference_model/__init__.py",
            "bench": "benchmarks/bench_gate.py",
            "pins": "requirements.txt",
            "project": "pyproject.toml",
        }
        for name, text in files.items():
            self.write(places[name], text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "a commit")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path, root: Path) -> Repository:
    """One commit of a model and a suite that are as small as can be, with the gate's worker."""
    made = Repository(tmp_path / "repository")
    worker = (root / "benchmarks" / "gate_worker.py").read_text(encoding="utf-8")
    made.write("benchmarks/gate_worker.py", worker)
    made.write("benchmarks/__init__.py", "")
    made.write("benchmarks/gate_suite.py", SUITE)
    made.write("torch.py", TORCH)
    made.write(".gitignore", "__pycache__/\n")
    made.commit(model=MODEL, bench=BENCH, pins="torch==2.13.0\n", project="[project]\n")
    return made


Gate = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def gate(repository: Repository, root: Path) -> Gate:
    """Runs the gate in the repository, as a process: only so are its exit statuses its own."""

    def run(*arguments: str, path: str = str(root)) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "reports.gate", *arguments],
            cwd=repository.path,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )

    return run
