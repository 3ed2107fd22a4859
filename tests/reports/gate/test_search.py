"""Bisection with a judge that may be in doubt."""

from __future__ import annotations

import random

import pytest

from reports.gate.search import most_judged, suspects

COMMITS = [f"commit {number}" for number in range(16)]


@pytest.mark.parametrize("culprit", range(16))
def test_without_doubt_the_one_is_found_in_no_more_steps_than_bisection_takes(culprit: int) -> None:
    judged: list[str] = []

    def judge(commit: str) -> bool:
        judged.append(commit)
        return COMMITS.index(commit) >= culprit

    assert suspects(COMMITS, judge) == [COMMITS[culprit]]
    assert len(judged) <= most_judged(16) == 4
    assert len(set(judged)) == len(judged)


def test_commits_that_nobody_can_judge_are_passed_over() -> None:
    draws = random.Random(0)
    for _ in range(200):
        culprit = draws.randrange(16)
        doubtful = {at for at in range(15) if draws.random() < 0.4}

        def judge(commit: str, culprit: int = culprit, doubtful: set[int] = doubtful):
            at = COMMITS.index(commit)
            return None if at in doubtful else at >= culprit

        left = suspects(COMMITS, judge)
        assert COMMITS[culprit] in left
        # What is left beside the last one are commits that could not be judged.
        assert {COMMITS.index(commit) for commit in left[:-1]} <= doubtful


def test_a_range_of_one_commit_needs_no_judge() -> None:
    assert suspects(["alone"], lambda commit: pytest.fail(commit)) == ["alone"]
    assert most_judged(1) == 0
