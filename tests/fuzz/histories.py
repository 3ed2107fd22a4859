"""asv's results in which one file is not what it should be: the others are shown all the same."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asv.benchmarks import Benchmarks
from asv.config import Config
from asv.results import Results
from asv.runner import BenchmarkResult
from asv.util import write_json

from reports.__main__ import main
from tests.fuzz.commands import call
from tests.fuzz.forked import Attempt
from tests.fuzz.mutations import mutate_file

COMMITS = 6
MACHINE = "local-quick"
OLD_PAGE = "a page of another run"


def _described(name: str, unit: str, params: list[list[str]]) -> dict[str, Any]:
    names = [f"p{i}" for i in range(len(params))]
    fields = {"name": name, "unit": unit, "params": params, "param_names": names}
    return {**fields, "version": "1", "type": "track", "code": "", "timeout": 60}


SUITE = [
    _described("bench_cache.Decode.time_step", "seconds", [["'cached'", "'uncached'"]]),
    _described("bench_cache.CacheBytes.track_cache_bytes", "bytes", [["16"]]),
    _described("bench_other.Total.track_total", "nats", []),
]


class Histories:
    """1,500 folders of six commits; known is that nothing but the changed file may go missing."""

    name, cases = "asv results", 1500

    def __init__(self, folder: Path) -> None:
        self.repository, self.results = folder / "repository", folder / "results"
        hashes = _empty_commits(self.repository)
        configuration = Config()
        configuration.results_dir = str(self.results)
        Benchmarks(configuration, SUITE).save()
        (self.results / MACHINE).mkdir(parents=True)
        write_json(str(self.results / MACHINE / "machine.json"), {"machine": MACHINE}, 1)
        for at, commit in enumerate(hashes):
            params = {"machine": MACHINE, "cpu": "one", "ram": "1", "os": "Linux", "arch": "any"}
            stored = Results(params, {}, commit, at, "3.12", "env", {})
            for benchmark, values in zip(SUITE, ([1.0, 2.0], [7.0], [3.0]), strict=True):
                numbers = [value + 0.01 * at for value in values]
                nothing: list[None] = [None] * len(values)
                stored.add_result(
                    benchmark,
                    BenchmarkResult(numbers, nothing, nothing, 0, "", b""),
                    started_at=datetime(2026, 1, 1, tzinfo=UTC),
                )
            stored.save(str(self.results))

    def __call__(self, attempt: Attempt) -> None:
        here, page = attempt.folder / "results", attempt.folder / "history.html"
        shutil.copytree(self.results, here)
        page.write_text(OLD_PAGE)
        files = sorted(here.rglob("*.json"))
        measured = [file for file in files if file.name.endswith("-env.json")]
        chosen = attempt.random.choice(measured if attempt.random.random() < 0.85 else files)
        attempt.what(mutate_file(chosen, attempt.random))
        arguments = ["history", str(here), "--out", str(page), "--repository", str(self.repository)]
        done = call(attempt, main, arguments)
        written = page.read_text(encoding="utf-8")
        if done.status:
            if written != OLD_PAGE:
                attempt.damaged("the page of another run is not what it was")
            if chosen in measured:
                attempt.wrong("one file of six ended the history of all")
        elif not written.rstrip().endswith("</html>"):
            attempt.damaged("the page is not whole")
        elif chosen in measured:
            shown = re.search(r"(\d+) series", done.stdout)
            if not shown or int(shown.group(1)) < 4:
                attempt.wrong(f"four series are measured by the other files: {done.stdout[:80]!r}")


def _empty_commits(folder: Path) -> list[str]:
    subprocess.run(["git", "init", "-q", "-b", "main", folder], check=True)
    stream = "".join(
        f"commit refs/heads/main\ncommitter N <n@example.org> {n * 86400} +0000\ndata 1\n{n}\n"
        for n in range(COMMITS)
    )
    subprocess.run(["git", "fast-import", "--quiet"], cwd=folder, input=stream.encode(), check=True)
    listed = subprocess.run(
        ["git", "rev-list", "--reverse", "HEAD"], cwd=folder, capture_output=True, check=True
    )
    return listed.stdout.decode().split()
