"""The gate from end to end on a small repository: its verdicts, and what is written of them."""

from __future__ import annotations

import itertools
import math
import random
import re
import sys
from collections.abc import Sequence

import pytest

from reference_model.errors import UserError
from reports.gate import compare as compare_module
from reports.gate import pairs as pairs_module
from reports.gate.checkouts import checked_out
from reports.gate.compare import Request, compare
from reports.gate.output import as_json, markdown, terminal, timed_rows
from reports.gate.page import render
from reports.gate.pairs import CONTROL, OutOfTime, Pair, Pairs
from reports.gate.verdict import NotComparable

ONE, TWO = (f"bench_gate.Step.time_step({name})" for name in ("one", "two"))
QUIET = {"stolen": 0.0, "load": 1.0, "megahertz": 3000.0, "throttled": 0}


def fake_pairs(
    monkeypatch: pytest.MonkeyPatch, rough: str = "", **slowdowns: float
) -> list[Sequence[str]]:
    """Pairs that take no time: one, two or control slower by a share, ``rough`` ten times as rough.

    Returns what was asked for, pair by pair.
    """
    names = {"one": ONE, "two": TWO, "control": CONTROL}
    shifts = {names[name]: math.log1p(share) for name, share in slowdowns.items()}
    wobble, asked = itertools.cycle((0.004, -0.005, 0.001, -0.002, 0.003, -0.001, 0.002)), []

    def measure(self, ids, deadline):
        asked.append(tuple(ids))
        ratios = {
            id: next(wobble) * (10 if id == rough else 1) + shifts.get(id, 0.0)
            for id in (*ids, CONTROL)
        }
        return Pair(ratios, {id: [1.0, 1.0] for id in ratios}, 1.0, QUIET, "")

    monkeypatch.setattr(Pairs, "measure", measure)
    return asked


def run(repository, **asked) -> dict:
    return compare(repository.path, Request("HEAD~1", "HEAD", **asked), lambda line: None)


# ---- verdicts, on pairs that take no time


def test_a_commit_that_changes_nothing_passes_and_is_told_to_be_so(repository, monkeypatch) -> None:
    repository.commit()
    fake_pairs(monkeypatch)
    report = run(repository)
    for text in (terminal(report), markdown(report), render(report)):
        assert "ase and head have the same model" in text
        assert "one commit" not in text
    assert (report["verdict"], report["exit_status"]) == ("pass", 0)
    assert report["exact"] == {**report["exact"], "compared": 1, "differences": []}
    assert [b["outcome"] for b in report["timed"]] == ["pass", "pass"]
    assert report["base"]["commit"] != report["head"]["commit"]


@pytest.mark.K4
def test_one_commit_that_is_compared_with_itself_passes_and_every_form_says_so(
    repository, monkeypatch
) -> None:
    fake_pairs(monkeypatch)
    report = compare(repository.path, Request("main", "HEAD"), lambda line: None)
    assert (report["verdict"], report["exit_status"]) == ("pass", 0)
    for text in (terminal(report), markdown(report), render(report), as_json(report)):
        assert "; base and head are one commit" in text


def test_a_slower_benchmark_is_a_regression_that_is_named_with_its_size(
    repository, monkeypatch
) -> None:
    repository.commit()
    fake_pairs(monkeypatch, two=0.05)
    report = run(repository)
    assert report["exit_status"] == 10
    assert re.fullmatch(rf"slower: {re.escape(TWO)} by 5\.\d %", report["reason"])


@pytest.mark.parametrize("differs", [0.1, -0.1])
def test_an_unstable_control_is_inconclusive_with_the_reason(
    repository, monkeypatch, differs: float
) -> None:
    repository.commit()
    fake_pairs(monkeypatch, one=0.1, control=differs)
    report = run(repository)
    assert report["exit_status"] == 11
    assert report["reason"].startswith("unstable machine")
    assert [row[1] for row in timed_rows(report)] == ["✗ regression", "✓ pass", "✗ differs"]


def test_a_spent_budget_is_inconclusive_with_the_reason(repository, monkeypatch) -> None:
    repository.commit()
    fake_pairs(monkeypatch)
    report = run(repository, budget=0.001)
    assert report["exit_status"] == 11
    assert "too few" in report["reason"]
    assert "the budget is spent" in report["reason"]


def test_a_pair_that_runs_out_of_time_is_no_pair_and_the_budget_is_spent(
    repository, monkeypatch
) -> None:
    repository.commit()
    with (
        checked_out(repository.path, "HEAD~1", "HEAD") as checkouts,
        Pairs(checkouts, "cpu", random.Random(0)) as pairs,
        pytest.raises(OutOfTime),
    ):
        pairs.measure([ONE], deadline=0.0)

    def late(*given):
        raise OutOfTime

    monkeypatch.setattr(Pairs, "measure", late)
    report = run(repository)
    assert (report["exit_status"], report["pairs"]) == (11, [])
    assert "the budget is spent" in report["reason"]


def test_what_has_passed_is_not_measured_again(repository, monkeypatch) -> None:
    repository.commit()
    asked = fake_pairs(monkeypatch, rough=TWO)
    run(repository)
    assert asked[0] == (ONE, TWO)
    assert asked[-1] == (TWO,)


def test_a_control_that_has_passed_is_still_compared_with_itself(repository, monkeypatch) -> None:
    monkeypatch.setattr(pairs_module, "MOST_SECONDS", 0.01)
    repository.commit()
    with (
        checked_out(repository.path, "HEAD~1", "HEAD") as checkouts,
        Pairs(checkouts, "cpu", random.Random(0), control=ONE) as pairs,
    ):
        pair = pairs.measure([TWO])
    assert set(pair.log_ratios) == {TWO, CONTROL}


def test_more_bytes_fail_at_once_and_no_pair_is_measured(repository, monkeypatch) -> None:
    model = (repository.path / "reference_model/__init__.py").read_text()
    repository.commit(model=model.replace("BYTES = 100", "BYTES = 101"))
    assert fake_pairs(monkeypatch) == []
    report = run(repository)
    assert report["exit_status"] == 10
    assert report["reason"] == "worse: bench_gate.Work.track_flops(held), by exact numbers"
    assert report["pairs"] == []


def test_fewer_bytes_are_listed_and_pass(repository, monkeypatch) -> None:
    model = (repository.path / "reference_model/__init__.py").read_text()
    repository.commit(model=model.replace("BYTES = 100", "BYTES = 99"))
    fake_pairs(monkeypatch)
    report = run(repository)
    assert report["exit_status"] == 0
    assert [d["kind"] for d in report["exact"]["differences"]] == ["better"]
    assert "the same model" not in terminal(report)


def test_a_timed_benchmark_that_base_lacks_is_new_and_that_head_lacks_is_gone(
    repository, monkeypatch
) -> None:
    model = (repository.path / "reference_model/__init__.py").read_text()
    repository.commit(model="BYTES = 100\n")
    fake_pairs(monkeypatch)
    report = run(repository)
    assert report["exit_status"] == 10
    assert {d["kind"] for d in report["exact"]["differences"]} == {"gone"}
    assert "this commit has no step" in report["exact"]["differences"][0]["because"]
    repository.commit(model=model)
    report = run(repository)
    assert report["exit_status"] == 0
    assert {d["kind"] for d in report["exact"]["differences"]} == {"new"}


def test_a_benchmark_that_is_no_more_in_heads_suite_is_gone(repository, monkeypatch) -> None:
    bench = (repository.path / "benchmarks/bench_gate.py").read_text()
    repository.commit(bench=bench.replace('("one", "two")', '("one", "three")'))
    fake_pairs(monkeypatch)
    report = run(repository)
    assert report["exit_status"] == 10
    assert [(d["kind"], d["id"]) for d in report["exact"]["differences"]] == [("gone", TWO)]
    assert run(repository, select="*one*")["exit_status"] == 0
    # Head's suite has none that is selected, and base's had.
    assert run(repository, select=f"*{TWO}")["reason"].startswith(f"gone: {TWO}")


def test_what_heads_suite_skips_on_both_sides_and_bases_own_measured_is_gone(
    repository, monkeypatch
) -> None:
    bench = (repository.path / "benchmarks/bench_gate.py").read_text()
    spoilt = 'if name == "two" or not hasattr(reference_model, "step"):'
    repository.commit(bench=bench.replace('if not hasattr(reference_model, "step"):', spoilt))
    fake_pairs(monkeypatch)
    report = run(repository)
    assert report["exit_status"] == 10
    assert [(d["kind"], d["id"]) for d in report["exact"]["differences"]] == [("gone", TWO)]
    assert report["skipped"] == {}
    repository.commit()
    report = run(repository)
    assert report["exit_status"] == 0
    assert report["skipped"] == {TWO: "this commit has no step"}
    for text in (terminal(report), markdown(report), render(report)):
        assert (
            "1 skipped on both sides, of bench_gate.Step.time_step: this commit has no step" in text
        )


def test_a_stricter_suite_counts_at_once_and_a_looser_one_once_base_has_it(
    repository, monkeypatch
) -> None:
    model = (repository.path / "reference_model/__init__.py").read_text()
    suite = (repository.path / "benchmarks/gate_suite.py").read_text()
    fake_pairs(monkeypatch)

    def less_with(how: str) -> int:
        repository.commit(model=model)
        repository.write(
            "benchmarks/gate_suite.py", suite.replace('better="lower", tolerance=0.0', how)
        )
        repository.commit(model=model.replace("BYTES = 100", "BYTES = 99"))
        return run(repository)["exit_status"]

    assert less_with('better="same", tolerance=0.0') == 10
    assert less_with('better="same", tolerance=1.0') == 10  # head's own word, and not base's
    assert less_with('better="same", tolerance=1.0') == 0


def test_sides_that_run_on_different_versions_are_not_comparable(repository) -> None:
    torch = (repository.path / "torch.py").read_text()
    repository.write("torch.py", torch.replace('__version__ = "0"', '__version__ = "1"'))
    repository.commit()
    with pytest.raises(NotComparable, match=r"'torch': '0'.*'torch': '1'"):
        run(repository)
    asked = {"base_python": sys.executable, "head_python": sys.executable}
    assert run(repository, budget=0.001, **asked)["exit_status"] == 11


def test_what_the_machine_did_is_told_of_a_pass_as_well(repository, monkeypatch) -> None:
    repository.commit()
    fake_pairs(monkeypatch)
    monkeypatch.setitem(QUIET, "stolen", 0.3)
    report = run(repository)
    assert report["verdict"] == "pass"
    for text in (terminal(report), markdown(report), render(report)):
        assert "30 % of the time went to other machines" in text


def test_a_run_in_which_every_benchmark_is_skipped_is_an_error_and_no_pass(repository) -> None:
    repository.commit(model="")
    repository.commit()
    with pytest.raises(UserError, match="nothing was measured"):
        run(repository)


def test_a_run_that_compares_nothing_with_base_is_an_error_and_no_pass(repository) -> None:
    model = (repository.path / "reference_model/__init__.py").read_text()
    repository.commit(model="BYTES = 100\n")
    repository.commit(model=model)
    with pytest.raises(UserError, match="on both sides: this commit has no step"):
        run(repository, select="*Step*")


def test_a_selection_without_a_benchmark_is_an_error(repository) -> None:
    repository.commit()
    with pytest.raises(UserError, match="'nothing' matches none of 3 benchmarks"):
        run(repository, select="nothing")


# ---- what is written


def hostile() -> dict:
    report = compare_module.failed(None, compare_module.Verdict.ERROR, "a <b>|`c`\nd")
    report["base"]["revision"] = "<script>alert(1)</script>`|"
    report["exact"]["differences"] = [
        {"id": "<i>|x", "kind": "worse", "base": 1.0, "head": 2.0, "because": ""}
    ]
    return report


def test_texts_of_others_are_escaped_on_the_page_and_in_the_summary() -> None:
    page, summary = render(hostile()), markdown(hostile())
    assert "<script>" not in page
    assert "<i>" not in page
    assert "<b>" not in summary
    assert "<i>" not in summary
    assert "&lt;i&gt;\\|x" in summary
    assert "ERROR: a <b>" in terminal(hostile())


@pytest.mark.K8
def test_no_text_of_a_commit_looks_like_a_verdict_in_the_terminal() -> None:
    report, fake = hostile(), "\x1b[2K\nPASS: all is well"
    report["reason"], report["skipped"] = fake, {fake: fake}
    report["exact"]["differences"][0]["id"] = fake
    lines = terminal(report).splitlines()
    assert not any(line.startswith("PASS") for line in lines)
    assert "\x1b" not in terminal(report)
    assert len(lines) == 7


def test_a_page_needs_nothing_from_elsewhere(repository, monkeypatch) -> None:
    repository.commit()
    fake_pairs(monkeypatch, two=0.05)
    report = run(repository)
    page = render(report)
    assert re.findall(r"(?:src|href)=(?!\"data:,\")|url\(|@import", page) == []
    assert page.count("<svg") == 3
    assert page.count("<circle") == sum(len(pair["log_ratios"]) for pair in report["pairs"])


def test_an_improvement_is_told_in_every_form(repository, monkeypatch) -> None:
    repository.commit()
    fake_pairs(monkeypatch, one=-0.2, two=-0.008)  # two by less than the margin
    report = run(repository)
    assert [timed_rows(report)[at][1] for at in (0, 1)] == ["✓ faster", "✓ pass"]
    for text in (terminal(report), markdown(report), render(report)):
        assert "faster" in text
        assert re.search(r"-(19|20)\.\d %", text)
