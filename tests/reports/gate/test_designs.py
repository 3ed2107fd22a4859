"""How a pair should be measured: designs and numbers of turns, compared by what they cost."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from reports.gate import pairs as pairs_module
from reports.gate.checkouts import checked_out
from reports.gate.pairs import ASKING
from reports.gate.validation import designs, lines, turns
from reports.gate.validation.__main__ import main

ONE, TWO = (f"bench_gate.Step.time_step({name})" for name in ("one", "two"))


def test_turns_are_recorded_once_and_cut_where_each_rule_ends_them(
    repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(turns, "RECORDED_SECONDS", 0.02)
    monkeypatch.chdir(repository.path)
    path = tmp_path / "turns.jsonl"
    for pairs in (1, 2):
        assert main(["turns", f"--lines={path}", f"--pairs={pairs}"]) == 0
    found = lines.read(path, kind="turns", neighbour=False)
    assert [set(record["seconds"]) for record in found] == [{ONE, TWO}] * 2
    assert all(len(each) % 2 == 0 for record in found for each in record["seconds"].values())
    rows = json.loads(capsys.readouterr().out.split("]")[-2] + "]")
    assert [row["turns"] for row in rows] == ["0.3 s", "0.45 s", "0.9 s", "1.8 s", "as shipped"]


def test_the_summary_of_turns_is_that_of_what_a_rule_leaves_of_them(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    rough = [(0.01, 0.015)] * 16  # 0.4 s; then both take the same
    record = {"kind": "turns", "neighbour": False, "setup": 1.0}
    lines.append(path, record | {"seconds": {"a": rough + [(0.01, 0.01)] * 200}})
    by_rule = {row["turns"]: row for row in turns.summary(path)}
    assert by_rule["0.3 s"]["sd"] == pytest.approx(np.log(1.5))
    assert by_rule["1.8 s"]["sd"] == pytest.approx(0.0)
    assert by_rule["0.3 s"]["seconds_per_pair"] == pytest.approx(1.3, abs=0.05)
    # Until fewer than a quarter are rough, so that the quartiles no longer meet any.
    shipped = 1.0 + 16 * 0.025 + 50 * 0.02 + 66 * 2 * ASKING
    assert by_rule["as shipped"]["seconds_per_pair"] == pytest.approx(shipped)


@pytest.mark.parametrize("name", designs.DESIGNS)
def test_each_design_gives_a_log_ratio_of_every_benchmark(
    repository, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for seconds in ("BURST_SECONDS", "ALONE_SECONDS"):
        monkeypatch.setattr(designs, seconds, 0.003)
    monkeypatch.setattr(pairs_module, "MOST_SECONDS", 0.01)
    with checked_out(repository.path, "HEAD", "HEAD") as checkouts:
        found, seconds = designs.DESIGNS[name](checkouts, [ONE, TWO], random.Random(0))
    assert found.keys() == {ONE, TWO}
    assert seconds > 0
    assert all(abs(ratio) < 2 for ratio in found.values())


def test_the_summary_of_designs_is_variance_times_seconds(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    for ratio in (0.01, -0.01, 0.01, -0.01):
        record = {"kind": "design", "design": "copies", "log_ratios": {"a": ratio}, "took": 3.0}
        lines.append(path, record)
    (row,) = designs.summary(path)
    assert row["variance_seconds"] == pytest.approx(3 * 0.01**2 * 4 / 3)
    assert row["lag_1"] == pytest.approx(-1)
