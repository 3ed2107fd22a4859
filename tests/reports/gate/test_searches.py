"""Replayed searches for the commit that made a benchmark slower."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reference_model.errors import UserError
from reports.gate.pairs import CONTROL
from reports.gate.validation.searches import main, searched


def recorded(scatter: float) -> list[dict[str, Any]]:
    """Two blocks of forty pairs of equal commits, of one benchmark."""
    draws = np.random.default_rng(0)
    return [
        {
            "stretch": block,
            "neighbour": False,
            "took": 4.0,
            "log_ratios": {"a": draws.normal(0, scatter), CONTROL: draws.normal(0, scatter)},
        }
        for block in ("one", "two")
        for _ in range(40)
    ]


def test_a_step_that_a_gate_always_finds_is_found_by_every_search() -> None:
    found = searched(recorded(0.003), searches=40)
    assert found["right"]["value"] == 1
    assert found["wrong"]["value"] == 0
    assert 4 <= found["gates, median"] <= 6  # four of a bisection, head's and the last one


def test_a_step_that_no_gate_can_find_is_left_open_and_no_commit_is_blamed() -> None:
    found = searched(recorded(0.003), slowdown=0.001, searches=20)
    assert found["open"]["value"] == 1
    assert found["wrong"]["value"] == 0


def test_the_published_searches_are_those_of_the_published_pairs(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = json.loads((root / "reports/published/gate_searches.json").read_text())
    assert published["searches"] == 200
    assert published["right"]["value"] >= 0.95
    pairs = root / "reports/published/gate_pairs.jsonl"
    given = ["--lines", str(pairs), "--searches", "3", "--out", str(tmp_path / "found.json")]
    assert main(given) == 0
    assert json.loads((tmp_path / "found.json").read_text())["right"]["value"] == 1


def test_without_pairs_there_is_no_search() -> None:
    with pytest.raises(UserError, match="record some first"):
        searched([])
