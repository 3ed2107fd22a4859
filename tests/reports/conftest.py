"""Made-up results of every claim, their page, and a browser to see it in."""

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from benchmarks.judging.claims import load_claims
from benchmarks.judging.verdicts import NOT_BUILT
from benchmarks.running.assembling import Outcome, claim_entry
from tests.reports.in_browser import FLAGS, NAMES
from tests.reports.made_up import made_up_measurements

Results = dict[str, Any]


@pytest.fixture(scope="session")
def results() -> Results:
    """Shared: not to be changed."""
    measurements = made_up_measurements()
    entries = []
    for claim in load_claims():
        own = [m for m in measurements if m.claim == claim.id]
        seconds = 3.2 if own else None
        entries.append(claim_entry(claim, Outcome(own, seconds, NOT_BUILT)))
    return {
        "schema": 2,
        "environment": {
            "commit": "8012a56c0ffee00000000000000000000000beef",
            "dirty": True,
            "cpu": "Example CPU @ 2.10GHz",
            "cores": 2,
            "memory_bytes": 33_000_000_000,
            "gpu": "none: this build of torch has no CUDA",
            "driver": "none: this build of torch has no CUDA",
            "platform": "Linux-6.1-x86_64",
            "python": "3.11.7",
            "packages": {"torch": "2.13.0", "numpy": "2.4.6"},
            "profile": "quick",
            "device": "cpu",
            "threads": 2,
            "seed": 0,
            "utc": "2026-11-22T05:26:10+00:00",
        },
        "measurements": [m.as_json() for m in measurements],
        "claims": entries,
    }


@pytest.fixture
def few_results(results: Results) -> Results:
    """A copy of its own with one claim of each verdict, quick to render."""
    chosen = (
        "tying.abandoned",
        "int8.norm-damage",
        "int8.weights-quality",
        "lora.rslora-is-a-rate",
    )
    few = copy.deepcopy({**results, "claims": [], "measurements": []})
    few["claims"] = [copy.deepcopy(c) for c in results["claims"] if c["id"] in chosen]
    few["measurements"] = [
        copy.deepcopy(m) for m in results["measurements"] if m["claim"] in chosen
    ]
    return few


@pytest.fixture(scope="session")
def view(results: Results) -> dict[str, Any]:
    """What the page says and draws. Shared: not to be changed."""
    from reports.render.page import page_view

    return page_view(results)


@pytest.fixture(scope="session")
def page(view: dict[str, Any]) -> str:
    from reports.render.page import page_of

    return page_of(view)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Any], Path]:
    """Write anything as tmp_path/results.json."""

    def write_json(content: Any) -> Path:
        path = tmp_path / "results.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write_json


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        reason = f"no browser is installed: none of {', '.join(NAMES)} is on the path"
        if os.environ.get("LLM_DESIGN_BENCH_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        yield browser
        browser.close()
