"""What the referee tells of its cells: measurements, the verdict, and the table."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import __main__ as command_line
from benchmarks.experiments.experiment import Settings
from benchmarks.experiments.turboquant import best_at_three
from benchmarks.instruments.windows import windows_of
from benchmarks.judging.claims import load_claims
from benchmarks.judging.verdicts import judge_claim
from benchmarks.record.results import Measurement, read_results
from benchmarks.referee import measurements, texts
from benchmarks.referee.rows import Row, row_of
from tests.benchmarks.inline import Inline

OURS = Row("turboquant", 3, 3)
COMPARED = 12  # windows


def found_of(
    row: Row, kl: float, windows: int = COMPARED, **more: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A cell of a row whose KL is this in every window, give or take a little."""
    draws = np.random.default_rng(len(row.name))
    table = kl * (1 + 0.01 * draws.standard_normal((row.seeds, windows)))
    return {"part": "quality", **row.parameters}, {
        "baseline": [1.0] * windows,
        "losses": (1 + table).tolist(),
        "divergences": table.tolist(),
        "agreements": np.full_like(table, 0.9).tolist(),
        "by_depth": [table.tolist()] * 8,
        "p99": [0.1, 0.09, 0.11, 5],
        "greedy": {"until": [[0.5] * 4] * row.seeds, "windows": [0, 1, 2, 3]},
        "recall": None,
        "bits_held": row.key_bits + 0.25,
        "bytes_once": 100,
        "calibration_tokens": 0,
        **more,
    }


CONTROLS: tuple[dict[str, Any], dict[str, Any]] = (
    {"part": "controls"},
    {"changes": {"float32": {"loss": 1e-7, "kl": 1e-9}}, "ratios": {"q4_0": [4.0, 5.0]}},
)


def needles_of(row: Row | None, found: int, of: int = 40) -> tuple[dict[str, Any], dict[str, Any]]:
    """A cell in which the first so many needles are found, in prompts of 4."""
    shares = [int(i < found) for i in range(of)]
    clusters = [i // 4 for i in range(of)]
    labels = {"part": "needles"} | (row.parameters if row else {})
    return labels, {"found": shares, "clusters": clusters, "population": "needles"}


def judged(*cells: tuple[dict[str, Any], dict[str, Any]]) -> tuple[str, list[Measurement]]:
    draws = torch.Generator().manual_seed(0)
    windows = windows_of(list(torch.randint(50, (COMPARED, 9), generator=draws)), 8)
    found = measurements.measurements(best_at_three.CLAIM, windows, [*cells, CONTROLS])
    (claim,) = (each for each in load_claims() if each.id == best_at_three.CLAIM)
    return judge_claim(claim, found)[0].verdict, found


def recalled(row: Row, share: float) -> dict[str, Any]:
    right = np.arange(200) < 200 * share
    return {"recall": [right.astype(float).tolist()] * row.seeds}


RIVAL, LARGER = Row("e8", 3, 3), Row("e8", 4, 4)


@pytest.mark.parametrize(
    ("kl", "recall", "expected"),
    [(0.01, 0.5, "refuted"), (0.03, 0.5, "confirmed"), (0.03, 0.9, "refuted")],
)
def test_the_claim_falls_with_one_rival_of_no_more_bits_that_is_better(
    kl: float, recall: float, expected: str
) -> None:
    cells = [
        found_of(OURS, 0.02, **recalled(OURS, 0.8)),
        found_of(RIVAL, kl, **recalled(RIVAL, recall)),
        found_of(LARGER, 0.001, **recalled(LARGER, 1.0)),
        found_of(Row("turboquant-least-squares", 3, 3), 0.001),
    ]
    verdict, found = judged(*cells)
    assert verdict == expected
    beside = [m.option for m in found if m.metric == "kl_over_turboquant"]
    assert beside == [RIVAL.name]


@pytest.mark.parametrize(("exact", "expected"), [(36, "depends"), (12, "confirmed")])
def test_the_claim_depends_where_a_rival_finds_more_needles_and_enough_are_found(
    exact: int, expected: str
) -> None:
    cells = [
        found_of(OURS, 0.02, **recalled(OURS, 0.8)),
        found_of(RIVAL, 0.03, **recalled(RIVAL, 0.5)),
        needles_of(None, exact),
        needles_of(OURS, 10),
        needles_of(RIVAL, 40),
    ]
    verdict, found = judged(*cells)
    assert verdict == expected
    told = {m.option: m.value for m in found if m.parameters.get("task") == "needle"}
    if expected == "depends":  # of those that are found without compression
        assert told[OURS.of.title] == pytest.approx(10 / 36)
        assert told[RIVAL.of.title] == 1
    else:
        assert told == {}
    (count,) = (m for m in found if m.metric == "needles_found")
    assert (count.value, count.parameters) == (exact, {"asked": 40})


def test_a_text_too_short_for_needles_leaves_the_other_numbers_as_they_are() -> None:
    cells = [found_of(OURS, 0.02), found_of(RIVAL, 0.01)]
    assert judged(*cells, ({"part": "needles"}, None)) == judged(*cells)


def test_controls_that_fail_leave_the_claim_open(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"changes": CONTROLS[1]["changes"], "ratios": {"q4_0": [4.0, 1.9]}}
    monkeypatch.setitem(globals(), "CONTROLS", (CONTROLS[0], found))
    assert judged(found_of(OURS, 0.02), found_of(RIVAL, 0.01))[0] == "open"


def test_pairs_near_three_bits_are_counted_as_far_as_they_are_settled() -> None:
    _, found = judged(found_of(OURS, 0.02), found_of(RIVAL, 0.01), found_of(LARGER, 0.001))
    (share,) = (m for m in found if m.metric == "settled_share")
    assert (share.value, share.parameters) == (1.0, {"near": 3, "pairs": 1})


# ---- the command


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--bits", "three"], "'three' is no list of whole numbers"),
        (["--bits", "5"], "no format has 5 bits; use 2, 3, 4 or 8"),
        (["--window", "-1"], "'-1' is not a whole number"),
        (["--model", "nowhere"], "there is no model"),
        (["--text", "nowhere"], "cannot read the text"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command_line.main(["referee", *arguments]) == 2
    stderr = capsys.readouterr().err
    assert re.fullmatch(r"error: [^\n]+\n", stderr)
    assert told in stderr
    assert list(tmp_path.iterdir()) == []


def measured_at_once(settings: Settings, part: str, **labels: Any) -> Any:
    """What a cell finds, without a model."""
    if part == "quality":
        row = row_of(labels)
        kl, held = {"float8": (1e-3, 8.0), "int8": (1e-4, 8.25)}.get(row.format, (2e-4, 8.5))
        return found_of(row, kl, texts.WINDOWS, bits_held=held)[1]
    asked = needles_of(row_of(labels) if labels.get("format") else None, 30)[1]
    return {
        "controls": CONTROLS[1],
        "needles": asked,
        "step": {"4096": [1.0, 2.0]},
        "peak": [1e6],
    }[part]


def test_the_command_measures_and_prints_a_line_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = replace(best_at_three.best_at_three, measure=measured_at_once)
    monkeypatch.setattr(best_at_three, "best_at_three", asked)
    monkeypatch.setattr(command_line, "_executor", lambda *_: Inline())
    out, record = tmp_path / "out.json", tmp_path / "cells.sqlite"
    command = ["referee", "--bits", "8", "--out", str(out), "--record", str(record)]
    assert command_line.main(command) == 0
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if re.match(r"(q8_0|INT8|FP8)", line)]
    assert [re.split(r"\s{2,}", line)[:4] for line in lines] == [
        ["FP8 (E4M3)", "8", "bare", "8.00"],
        ["INT8 per token", "8", "bare", "8.25"],
        ["q8_0", "8", "bare", "8.50"],
    ]
    assert [line.endswith("frontier") for line in lines] == [True, True, False]
    assert all("0.5×" in line for line in lines)
    metrics = {m["metric"] for m in read_results(out)["measurements"]}
    assert {"prediction_kl", "kl_by_depth", "peak_bytes", "damaged_control"} <= metrics
