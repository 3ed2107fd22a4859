"""Accepted changes: which are let pass, for how long, and what is told of the lines."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, date, datetime, timedelta

import pytest

from reference_model.errors import UserError
from reports.gate import acceptances
from reports.gate.acceptances import Acceptance, Slowness, accepted, lines_for, parse
from reports.gate.exact import Difference, fails
from reports.gate.pairs import CONTROL, Pair

FLOPS, LOGITS = "bench_gate.Work.track_flops(decode)", "bench_exact.Double.track_fingerprint(rope)"
LATER = datetime.now(UTC).date() + timedelta(days=30)
WORSE = Difference(FLOPS, "worse", 100.0, 104.0)


def line(benchmark: str = FLOPS, **changed: object) -> Acceptance:
    fields = {
        "direction": "worse",
        "size": 0.05,
        "reason": "it is more exact",
        "commit": "f" * 40,
        "expires": LATER,
    }
    return Acceptance(benchmark, **(fields | changed))  # type: ignore[arg-type]


def judged(repository, found: Difference, *lines: Acceptance) -> tuple[Difference, list[str]]:
    base = repository.git("rev-parse", "HEAD")
    (difference,), told = accepted([found], lines, repository.path, base)
    return difference, told


def test_a_change_that_was_accepted_is_shown_and_does_not_fail(repository) -> None:
    difference, told = judged(repository, WORSE, line())
    assert (difference.kind, told) == ("accepted", [])
    assert difference.because == "worse, accepted: it is more exact"
    assert not fails([difference])


@pytest.mark.parametrize(
    "other",
    [
        {"size": 0.03},
        {"direction": "changed", "size": 10.0},
        {"benchmark": "bench_gate.Work.track_bytes_moved*"},
        {"direction": "slower"},
    ],
)
def test_what_is_larger_or_another_thing_was_not_accepted(repository, other) -> None:
    difference, _ = judged(repository, WORSE, line(**{"benchmark": FLOPS, **other}))
    assert difference.kind == "worse"


def test_a_line_past_its_day_or_with_its_commit_in_base_changes_nothing_and_is_told(
    repository,
) -> None:
    past = line(expires=date(2020, 1, 31))
    done = line("*", commit=repository.git("rev-parse", "HEAD"))
    difference, told = judged(repository, WORSE, past, done, line(LOGITS))
    assert difference.kind == "worse"
    assert told == [
        f"the acceptance of {FLOPS} (worse) ended on 2020-01-31; delete it",
        "the acceptance of * (worse) has done its work, base has it; delete it",
        f"the acceptance of {LOGITS} (worse) fits nothing; delete it",
    ]


def test_an_accepted_slowdown_is_taken_off_what_is_measured(repository) -> None:
    step = "bench_gate.Step.time_step(decode)"
    slowness = Slowness([line(step, direction="slower")], [step, FLOPS], repository.path, "HEAD")
    pair = Pair({step: math.log(1.06), FLOPS: 0.01, CONTROL: 0.0}, {}, 1.0, {}, "")
    ratios = slowness.taken_off(pair).log_ratios
    assert math.exp(ratios[step]) == pytest.approx(1.06 / 1.05)
    assert (ratios[FLOPS], ratios[CONTROL]) == (0.01, 0.0)


def test_accepting_a_report_writes_lines_that_fit_it_and_are_read_again(repository) -> None:
    failing = [
        WORSE,
        Difference(LOGITS, "changed: verify", 2.0, 2.3),
        Difference("bench_norms.Work.track_operators_per_token(pre)", "gone", 5.0, None),
        Difference(FLOPS, "better", 5.0, 4.0),
    ]
    report = {
        "verdict": "regression",
        "head": {"commit": "a" * 40},
        "exact": {"differences": [vars(each) for each in failing]},
        "timed": [
            {"id": "step", "outcome": "regression", "effect": 1.06, "interval": [1.04, 1.081]}
        ],
    }
    lines = lines_for(report, "wanted, and measured twice")
    assert [each.size for each in lines] == [0.04, 0.3, None, 0.081]
    read = parse(acceptances.as_csv(lines, heading=True))
    assert read == lines
    found, told = accepted(failing, read, repository.path, "HEAD")
    assert sorted(each.kind for each in found) == ["accepted", "accepted", "accepted", "better"]
    assert told == []


def test_a_report_without_a_failure_has_nothing_to_accept() -> None:
    report = {"verdict": "pass", "head": {"commit": "a"}, "exact": {"differences": []}, "timed": []}
    with pytest.raises(UserError, match="a pass: there is nothing to accept"):
        lines_for(report, "why not")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a,worse,0.1,why,c", "line 1 has 5 columns"),
        ("a,up,0.1,why,c,2030-01-01", "direction 'up' is not one of worse, changed"),
        ("a,worse,0.1, ,c,2030-01-01", "gives no reason"),
        ("a,worse,x,why,c,2030-01-01", "could not convert string to float"),
        ("a,worse,,why,c,2030-01-01", "size '' is none"),
        ("a,worse,-1,why,c,2030-01-01", "size '-1' is none"),
        ("a,worse,0.1,why,c,tomorrow", "a day is YYYY-MM-DD"),
    ],
)
def test_what_is_no_line_is_told_with_its_number_in_the_file(text: str, why: str) -> None:
    with pytest.raises(UserError, match=f"line 1.*{re.escape(why)}|{re.escape(why)}"):
        parse(text)


def test_the_command_accepts_what_failed_and_the_gate_then_passes(repository, gate) -> None:
    from tests.reports.gate.conftest import MODEL

    repository.commit(model=MODEL.replace("BYTES = 100", "BYTES = 104"))
    asked = ("--base", "HEAD~1", "--head", "HEAD", "--select", "*track*")
    assert gate(*asked, "--json", str(repository.path.parent / "gate.json")).returncode == 10
    report = json.loads((repository.path.parent / "gate.json").read_text())
    assert report["exact"]["differences"][0]["kind"] == "worse"
    done = gate("accept", str(repository.path.parent / "gate.json"), "--reason", "wanted")
    assert (done.returncode, done.stderr) == (0, "")
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--message", "accept it")
    passed = gate("--base", "HEAD~2", "--head", "HEAD", "--select", "*track*")
    assert passed.returncode == 0, passed.stdout + passed.stderr
    assert "accepted (worse, accepted: wanted)" in passed.stdout
    again = gate("--base", "HEAD~1", "--head", "HEAD", "--select", "*track*")
    assert "has done its work" in again.stdout
