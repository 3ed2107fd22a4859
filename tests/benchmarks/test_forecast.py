"""What a run would measure, how long it takes and what it can tell, before it is started."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import __main__ as command_line
from benchmarks.experiments import catalogue
from tests.benchmarks import small_experiments as small
from tests.benchmarks.inline import Inline

Planned = Callable[..., dict[str, list[str]]]


@pytest.fixture
def plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Planned:
    """Rows of `python -m benchmarks plan` by claim, and the same after a run."""
    told = replace(small.staged, design="it finds a factor of 2")
    monkeypatch.setattr(catalogue, "all_experiments", lambda: [*small.GOOD, told])
    monkeypatch.setattr(command_line, "_executor", lambda *_: Inline())
    monkeypatch.setenv("SMALL_LOG", str(tmp_path / "log"))
    where = ["--profile", "smoke", "--record", str(tmp_path / "cells.sqlite")]

    def planned(*arguments: str, after_a_run: bool = False) -> dict[str, list[str]]:
        if after_a_run:
            out = ["--out", str(tmp_path / "results.json")]
            assert command_line.main(["run", *where, *out]) == 0
        capsys.readouterr()
        assert command_line.main(["plan", *where, *arguments]) == 0
        lines = capsys.readouterr().out.splitlines()
        rows = [re.split(r"  +", line.strip()) for line in lines if re.match(r"[a-z]+\.", line)]
        return {row[0]: row[1:] for row in rows}

    return planned


def test_a_plan_counts_cells_and_seconds_and_says_what_is_told(plan: Planned) -> None:
    before = plan()
    assert before[small.GRID][:2] == [str(small.CELLS), "0"]
    assert before[small.STAGED][:2] == ["3 and more", "0"]
    assert before[small.STAGED][-1] == "it finds a factor of 2"
    after = plan(after_a_run=True)
    assert after[small.GRID] == [str(small.CELLS), str(small.CELLS), "0 s"]
    assert after[small.STAGED] == ["5", "5", "0 s", "it finds a factor of 2"]


def test_a_plan_has_the_selected_claims_and_why_one_is_not_measured(plan: Planned) -> None:
    assert list(plan("--only", small.GRID)) == [small.GRID]
    (row,) = plan("--only", "tying.quality").values()
    assert row[0] == "none"
    assert row[-1] == "no experiment measures it yet"
