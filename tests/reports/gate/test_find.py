"""Which commit of a range did it: gates of a small repository, and of a judge that is made up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reference_model.errors import UserError
from reports.gate.compare import Request, compare
from reports.gate.find import Found, find, in_words, main
from reports.gate.verdict import Verdict
from tests.reports.gate.conftest import MODEL

WORK = "bench_gate.Work.track_flops(held)"
STEP = "bench_gate.Step.time_step(one)"
LARGER = MODEL.replace("BYTES = 100", "BYTES = 104")
BROKEN = MODEL.replace("BYTES = 100", "BYTES = 1 / 0")


def by_the_gate(repository, base: str, head: str = "HEAD") -> Found:
    def gate(request: Request) -> dict[str, Any]:
        return compare(repository.path, request, lambda line: None)

    return find(repository.path, Request(base, head, "*track*"), lambda line: None, gate)


def remarked(model: str, number: int) -> str:
    return f"{model}# {number}\n"


def test_the_commit_that_did_it_is_found_and_gated_against_the_one_before_it(repository) -> None:
    base = repository.git("rev-parse", "HEAD")
    before = [repository.commit(model=remarked(MODEL, number)) for number in range(2)]
    culprit = repository.commit(model=LARGER)
    for number in range(3):
        repository.commit(model=remarked(LARGER, number))
    found = by_the_gate(repository, base)
    assert found.verdict == Verdict.REGRESSION
    assert found.commits == [culprit]
    assert found.benchmark == WORK
    assert found.alone is not None
    assert (found.alone.base, found.alone.commit) == (before[-1], culprit)
    told = in_words(repository.path, found)
    assert told.startswith(f"FOUND: worse: {WORK}")
    assert f"{culprit[:12]} a commit" in told


def test_a_commit_that_cannot_run_is_passed_over_and_named(repository) -> None:
    base = repository.git("rev-parse", "HEAD")
    broken = repository.commit(model=BROKEN)
    culprit = repository.commit(model=LARGER)
    found = by_the_gate(repository, base)
    assert found.verdict == Verdict.INCONCLUSIVE
    assert found.commits == [broken, culprit]
    assert found.reason.startswith("one of 2 commits did it")
    assert f"not judged: {broken[:12]}" in in_words(repository.path, found)


def test_of_a_merge_the_commit_that_it_brought_is_found(repository) -> None:
    base = repository.commit()
    repository.git("checkout", "--quiet", "-b", "side")
    repository.commit()
    culprit = repository.commit(model=LARGER)
    repository.git("checkout", "--quiet", "main")
    repository.write("notes.md", "of main\n")
    repository.commit()
    repository.git("merge", "--quiet", "--no-edit", "side")
    repository.commit()
    assert by_the_gate(repository, base).commits == [culprit]


def test_where_nothing_is_worse_there_is_nothing_to_find(repository) -> None:
    base = repository.git("rev-parse", "HEAD")
    repository.commit(model=remarked(MODEL, 1))
    found = by_the_gate(repository, base)
    assert found.verdict == Verdict.PASS
    assert found.commits == []
    assert len(found.steps) == 1


def test_base_has_to_come_before_head(repository) -> None:
    base = repository.git("rev-parse", "HEAD")
    head = repository.commit(model=LARGER)
    for one, other in ((head, base), (base, base)):
        with pytest.raises(UserError, match="is no ancestor of"):
            by_the_gate(repository, one, other)


def a_report(status: Verdict, ratio: float = 1.0) -> dict[str, Any]:
    outcome = {Verdict.PASS: "pass", Verdict.REGRESSION: "regression"}.get(status, "inconclusive")
    return {
        "exit_status": int(status),
        "verdict": status.words,
        "reason": f"of {STEP}",
        "exact": {"differences": []},
        "timed": [{"id": STEP, "outcome": outcome, "effect": ratio}],
    }


def made_up(repository, judge) -> tuple[Found, list[Request], list[str]]:
    """Of six commits, gated by ``judge`` (number of base, of the commit, request)."""
    commits = [repository.git("rev-parse", "HEAD"), *(repository.commit() for _ in range(6))]
    asked: list[Request] = []

    def gate(request: Request) -> dict[str, Any]:
        asked.append(request)
        return judge(commits.index(request.base), commits.index(request.head), request)

    request = Request(commits[0], commits[-1], budget=100.0)
    return find(repository.path, request, lambda line: None, gate), asked, commits


def test_what_decides_nothing_is_measured_for_longer(repository) -> None:
    def judge(base: int, commit: int, request: Request) -> dict[str, Any]:
        if commit == 3 and request.budget < 300:
            return a_report(Verdict.INCONCLUSIVE)
        slower = base < 4 <= commit
        return a_report(Verdict.REGRESSION if slower else Verdict.PASS, 1.05 if slower else 1.0)

    found, asked, commits = made_up(repository, judge)
    assert found.verdict == Verdict.REGRESSION
    assert found.commits == [commits[4]]
    assert [each.budget for each in asked if each.head == commits[3]] == [100, 200, 400]
    # After the first gate one benchmark is followed, by its name and not as a pattern.
    assert [each.select for each in asked] == ["*", *[STEP] * (len(asked) - 1)]


def test_small_steps_that_add_up_are_no_single_commits(repository) -> None:
    def judge(base: int, commit: int, request: Request) -> dict[str, Any]:
        ratio = 1 + 0.004 * (commit - base)
        return a_report(Verdict.REGRESSION if ratio > 1.01 else Verdict.PASS, ratio)

    found, _, commits = made_up(repository, judge)
    assert found.verdict == Verdict.INCONCLUSIVE
    assert found.commits == [commits[3]]
    assert "add up to a regression" in found.reason


def test_the_command_writes_every_step_and_says_what_it_found(
    repository, tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = repository.git("rev-parse", "HEAD")
    culprit = repository.commit(model=LARGER)
    monkeypatch.chdir(repository.path)
    given = ["--base", base, "--head", "HEAD", "--select", "*track*"]
    assert main([*given, "--json", str(tmp_path / "found.json")]) == Verdict.REGRESSION
    told = json.loads((tmp_path / "found.json").read_text())
    assert told["commits"] == [culprit]
    assert told["exit_status"] == Verdict.REGRESSION
    assert [step["verdict"] for step in told["steps"]] == ["regression", "regression"]
    assert "FOUND" in capsys.readouterr().out
    assert main(["--base", "HEAD", "--head", base]) == Verdict.ERROR
    assert "is no ancestor of" in capsys.readouterr().err
