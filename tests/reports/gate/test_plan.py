"""The plan of a gate: what is compared, how long it takes, what it finds, and by which pairs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from reference_model.errors import UserError
from reports.gate import command, plan
from reports.gate.compare import Request
from reports.gate.decision import Rule
from reports.gate.pairs import CONTROL, Pair, Pairs
from reports.gate.plan import in_words, planned
from reports.gate.simulate import pairs_until_verdict, smallest_found
from reports.gate.validation import lines
from reports.gate.verdict import Verdict

ONE, TWO = (f"bench_gate.Step.time_step({name})" for name in ("one", "two"))


@pytest.fixture
def measured(repository, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What pairs were asked for, in a repository of two commits; they take no time."""
    repository.commit()
    monkeypatch.chdir(repository.path)
    asked: list[tuple[str, ...]] = []

    def measure(self: Pairs, ids: Sequence[str], more_to_come: bool) -> Pair:
        asked.append(tuple(ids))
        sign = (-1) ** len(asked)
        ratios = dict.fromkeys((*ids, CONTROL), 0.01 * sign)
        return Pair(ratios, {}, 9.0 if len(asked) == 1 else 4.0, {}, "")

    monkeypatch.setattr(Pairs, "measure", measure)
    return asked


def test_a_plan_names_what_is_compared_and_how_long_it_takes_by_pairs_that_it_measures(
    measured, repository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.json"
    assert command.main(["plan", "--base=HEAD~1", "--head=HEAD", f"--json={path}"]) == 0
    told, found = capsys.readouterr().out, json.loads(path.read_text())
    assert measured == [(ONE, TWO)] * 3
    assert f"base HEAD~1 {repository.git('rev-parse', 'HEAD~1')[:12]}, head HEAD " in told
    assert re.search(r"1 exact numbers, about \d+ s with the start, by 1 of them:", told)
    assert "  bench_gate.Work.track_flops: 1\n" in told
    assert f"2 timed benchmarks, about 4.0 s a pair:\n  {ONE}\n  {TWO}\n" in told
    assert "by 3 pairs of base with itself, measured now; a pair scatters by 1.0 %" in told
    assert found["most_pairs"] == Rule().most_pairs
    assert 0.01 < found["smallest"] < 0.03
    assert f"find a slowdown of {100 * found['smallest']:.1f} % of one benchmark" in told
    pairs = pairs_until_verdict(Rule(), np.full(3, 0.01), 50)
    seconds = found["exact_seconds"] + 9 + 4 * (pairs - 1)
    assert found["seconds"] == pytest.approx(seconds, abs=0.1)


def test_the_flag_asks_for_the_same_plan_and_no_gate_is_run(
    measured, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--base=HEAD~1", "--head=HEAD", "--select=*one*"]
    assert command.main([*options, "--plan"]) == 0
    told = capsys.readouterr().out
    assert f"1 timed benchmarks, about 4.0 s a pair:\n  {ONE}\n" in told
    assert "PASS" not in told
    assert command.main([*options, "--plan", "--html=x.html"]) == Verdict.ERROR
    assert "unrecognized arguments: --html=x.html" in capsys.readouterr().err


def test_a_plan_by_a_file_measures_no_pair_and_says_from_which_file_it_is(
    measured, repository, tmp_path: Path
) -> None:
    path = tmp_path / "lines.jsonl"
    for number in range(10):
        ratios = {ONE: 0.03 * (-1) ** number, TWO: 0.001, CONTROL: 0.001}
        record = {"kind": "pair", "stretch": "noon", "neighbour": False, "took": 6.0}
        lines.append(path, record | {"log_ratios": ratios, "utc": f"2026-01-0{1 + number // 5}T"})
    found = planned(repository.path, Request("HEAD~1", "HEAD"), 3, path, lambda line: None)
    assert measured == []
    assert found.pair_seconds == 6.0
    assert found.scatter[ONE] == pytest.approx(0.03 * math.sqrt(10 / 9))
    told = in_words(found)
    assert f"by 10 pairs of {path}, 2026-01-01 to 2026-01-02, on whatever machine" in told
    assert "a pair scatters by 0.0 to 3.2 %" in told
    with pytest.raises(UserError, match=r"holds no two pairs of .* in one block; leave --lines"):
        planned(repository.path, Request("HEAD~1", "HEAD"), 3, tmp_path / "none", print)


def test_a_budget_for_too_few_pairs_is_told_to_find_nothing(measured, repository) -> None:
    request = Request("HEAD~1", "HEAD", budget=30.0)
    told = in_words(planned(repository.path, request, 2, None, lambda line: None))
    assert re.search("[2-5] pairs would find next to nothing: the rule first looks after 8", told)


def test_what_one_side_lacks_is_not_timed_and_the_reason_is_told(measured, repository) -> None:
    repository.commit(model="BYTES = 100\n")
    found = planned(repository.path, Request("HEAD~1", "HEAD"), 2, None, lambda line: None)
    assert found.timed == []
    told = in_words(found)
    assert f"not timed: {ONE}: head: this commit has no step" in told
    assert "nothing is timed" in told


def test_what_keeps_a_gate_from_a_verdict_keeps_it_from_a_plan(
    measured, capsys: pytest.CaptureFixture[str], repository
) -> None:
    asked = ["plan", "--head=HEAD"]
    assert command.main([*asked, "--base=nowhere"]) == Verdict.ERROR
    assert "error: 'nowhere' names no commit" in capsys.readouterr().err
    assert command.main([*asked, "--base=HEAD", "--select=nothing"]) == Verdict.ERROR
    assert "matches none of 3 benchmarks" in capsys.readouterr().err
    repository.commit(pins="torch==2.12.0\n")
    assert command.main([*asked, "--base=HEAD~1"]) == Verdict.NOT_COMPARABLE
    assert command.main([*asked, "--base=HEAD", "--pairs=1"]) == Verdict.ERROR


def test_a_few_numbers_of_each_benchmark_stand_for_the_seconds_of_all(monkeypatch) -> None:
    asked = []

    class Asked:
        def send(self, do: str, ids: list[str]) -> None:
            asked.append((do, ids))

        def receive(self) -> dict:
            return {}

    clock = iter((0.0, 5.0, 10.0, 12.0, 20.0, 21.0))
    monkeypatch.setattr(plan.time, "monotonic", lambda: next(clock))
    exact = {"a": [f"a({n})" for n in range(37)], "b": ["b(1)"]}
    assert plan._seconds_of_exact([Asked(), Asked()], exact) == 5 + 3 * 2 + 1  # type: ignore[list-item]
    assert asked[::2] == asked[1::2], "both are asked the same"
    assert [ids for _, ids in asked[::2]] == [
        ["a(0)"],
        [f"a({n})" for n in range(1, 37, 3)],
        ["b(1)"],
    ]


def test_the_smallest_change_that_is_found_grows_with_the_scatter_and_shrinks_with_pairs() -> None:
    def smallest(scatter: float, pairs: int) -> float | None:
        return smallest_found(Rule(), np.full(3, scatter), pairs, runs=40)

    calm, rough, few = smallest(0.005, 50), smallest(0.03, 50), smallest(0.03, 20)
    assert Rule().margin < calm < rough < few  # type: ignore[operator]
    assert smallest(0.03, 7) is None
    assert smallest(3.0, 8) is None
    assert pairs_until_verdict(Rule(), np.full(3, 0.001), 50) == Rule().looks[0]
    assert pairs_until_verdict(Rule(), np.full(3, 0.001), 3) == 3


def test_another_command_is_one_line_beside_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setitem(command.COMMANDS, "other", "reports.gate.plan")
    monkeypatch.setattr(plan, "main", lambda words: asked.append(words) or 7)
    assert command.main(["other", "--x", "y"]) == 7
    assert asked == [["--x", "y"]]
