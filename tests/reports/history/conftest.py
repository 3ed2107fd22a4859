"""Made-up histories: a repository of empty commits, and results that asv itself writes."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from asv.benchmarks import Benchmarks
from asv.config import Config
from asv.results import Results
from asv.runner import BenchmarkResult
from asv.util import write_json

from tests.reports.history.small_history import COUNTED, HOSTILE, TIMED

Write = Callable[..., Path]


def described(name: str, unit: str, params: list[list[str]], version: str = "1") -> dict[str, Any]:
    names = [f"p{i}" for i in range(len(params))]
    fields = {"name": name, "unit": unit, "params": params, "param_names": names}
    return {**fields, "version": version, "type": "track", "code": "", "timeout": 60}


SUITE = [described(TIMED, "seconds", [["'cached'"]]), described(COUNTED, "bytes", [["16"]])]


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve commits, the seventh with a hostile message; the last is HEAD."""
    folder = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", "-b", "main", folder], check=True)
    stream = b""
    for n in range(12):
        message = (HOSTILE if n == 6 else f"Commit {n}").encode()
        stream += b"commit refs/heads/main\ncommitter N <n@example.org> %d +0000\n" % (n * 86400)
        stream += b"data %d\n%s\n" % (len(message), message)
    subprocess.run(["git", "fast-import", "--quiet"], cwd=folder, input=stream, check=True)
    return folder


@pytest.fixture(scope="session")
def hashes(repository: Path) -> list[str]:
    """The oldest first."""
    told = subprocess.run(
        ["git", "rev-list", "--reverse", "HEAD"], cwd=repository, capture_output=True, check=True
    )
    return told.stdout.decode().split()


@pytest.fixture
def write(tmp_path: Path, hashes: list[str]) -> Write:
    """Values of one benchmark, one a commit, as asv stores them; "absent": no file."""

    def write(
        values: Sequence[Any],
        benchmark: str = TIMED,
        machine: str = "local-quick",
        first: int = 0,
        **facts: str,
    ) -> Path:
        folder = tmp_path / "results"
        configuration = Config()
        configuration.results_dir = str(folder)
        Benchmarks(configuration, SUITE).save()
        (folder / machine).mkdir(parents=True, exist_ok=True)
        write_json(str(folder / machine / "machine.json"), {"machine": machine}, 1)
        chosen = next(b for b in SUITE if b["name"] == benchmark)
        for commit, value in zip(hashes[first:], values, strict=False):
            if value == "absent":
                continue
            params = {"machine": machine, "cpu": "one", "ram": "1", **facts}
            requirements: dict[str, str] = {}
            name = "env" + re.sub(r"\W", "", "".join(facts.values()))
            results = Results(params, requirements, commit, 0, "3.12", name, {})
            results.load_data(str(folder))
            results.add_result(
                chosen,
                BenchmarkResult([value], [None], [None], 0, "", b""),
                started_at=datetime(2026, 1, 1, tzinfo=UTC),
            )
            results.save(str(folder))
        return folder

    return write
